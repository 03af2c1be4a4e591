"""The recurrent state in its slots, recurrent layers in a recorded step, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kernels.cpu import CpuOps
from kernels.ops import Floats, Ints, PassInput
from kernels.recurrent import DeltaNet, StateShape
from tests.kernels.cpu_cases import cpu_ops, normal, tensor
from tests.kernels.recurrent_cases import EPS, NETS, QWEN36, SMALL, Vectors, random_case, weights
from tests.kernels.test_cpu_step import Times

# ---- slots --------------------------------------------------------------------------------------


def same(ours: tuple[Floats, ...], theirs: tuple[Floats, ...]) -> bool:
    return all(map(np.array_equal, ours, theirs))


@pytest.mark.parametrize("net", [NETS["odd"], QWEN36], ids=["odd", "real"])
def test_slots_are_copied_and_cleared_in_every_layer(net: DeltaNet) -> None:
    ops, case = cpu_ops(2), random_case(net, 9)
    state, vectors = ops.recurrent_state(StateShape(3, 4, net)), weights(ops, case.vectors)
    empty = state.read(0)
    assert not any(part.any() for part in empty)

    def advance(layers: Sequence[int], begin: int, end: int) -> list[Floats]:
        part = case.inputs.rows(begin, end)
        return [ops.delta_net(*part, vectors, EPS, net, state, layer) for layer in layers]

    advance([0, 1, 2], 0, 2)
    advance([1], 2, 3)  # now layer 1 differs
    advance([2], 2, 9)
    kept = [state.read(layer) for layer in range(3)]
    assert not same(kept[0], kept[1]) and not same(kept[1], kept[2])
    ops.copy_state(state, 0, 2)
    ops.copy_state(state, 0, 0)
    after = advance([0, 1, 2], 3, 5)
    for layer in range(3):
        assert same(state.read(layer, 2), kept[layer])
        assert not same(state.read(layer), kept[layer])
        assert same(state.read(layer, 1), empty) and same(state.read(layer, 3), empty)
    ops.clear_state(state)
    for layer in range(3):
        assert same(state.read(layer), empty) and same(state.read(layer, 2), kept[layer])
    ops.copy_state(state, 2, 0)
    assert same(tuple(advance([0, 1, 2], 3, 5)), tuple(after))
    ops.write_state(state, 0, ops.read_state(state, 2))
    assert same(tuple(advance([0, 1, 2], 3, 5)), tuple(after))
    with pytest.raises(ValueError, match="bytes expected"):
        ops.write_state(state, 0, ops.read_state(state, 2)[4:])


# ---- a recorded step ----------------------------------------------------------------------------


def one_token(ops: CpuOps, net: DeltaNet, record: bool, times: Times) -> tuple[Floats, Any]:
    """Outputs of six tokens through two recurrent layers alone, and the state after them."""
    state, hidden = ops.recurrent_state(StateShape(2, 1, net)), 32
    vectors = weights(ops, random_case(net, 1).vectors)
    sizes = (net.conv_features, net.values, net.value_heads, net.value_heads)
    inward = [ops.matrix(tensor(normal(9 + i, rows, hidden))) for i, rows in enumerate(sizes)]
    gate = ops.matrix(tensor(normal(14, net.values, hidden)))
    outward = ops.matrix(tensor(normal(15, hidden, net.values)))

    def forward(rows: PassInput, pages: Ints, start: int) -> Floats:
        x = ops.set_hidden(rows)
        for layer in (1, 0):
            projected = ops.norm_linear(x, None, EPS, inward)
            out = ops.delta_net(*projected, vectors, EPS, net, state, layer)
            ops.sigmoid_gate(out, ops.norm_linear(x, None, EPS, [gate])[0])
            ops.linear_add(out, outward, x)
        return x

    step = ops.record(forward) if record else forward
    outs = []
    ops.times = times
    for at in range(6):
        outs.append(step(normal(30 + at, 1, hidden), np.zeros(1, np.int32), at).copy())
    ops.times = None
    return np.concatenate(outs), state


def test_a_step_repeats_recurrent_layers() -> None:
    ops, told = CpuOps(2), (Times(), Times())
    plain, state = one_token(ops, SMALL, False, told[0])
    repeated, other = one_token(ops, SMALL, True, told[1])
    np.testing.assert_array_equal(plain, repeated)
    for layer in range(2):
        assert same(state.read(layer), other.read(layer))
    names = [[(name, layer) for name, layer, *_ in times.ops_told] for times in told]
    assert names[0] == names[1]
    token = names[1][: len(names[1]) // 6]
    assert [layer for name, layer in token if name == "delta_net"] == [1, 0]
    assert ("sigmoid_gate", None) in token


# ---- what is refused ----------------------------------------------------------------------------

CASE = random_case(SMALL, 3)


def call(layer: int = 0, net: DeltaNet = SMALL, **changed: Any) -> Any:
    """delta_net with some inputs or weights in other shapes."""
    ops, of_state = cpu_ops(), changed.pop("of_state", SMALL)
    inputs = [changed.get(name, part) for name, part in CASE.inputs._asdict().items()]
    vectors = Vectors(*(changed.get(name, part) for name, part in CASE.vectors._asdict().items()))
    state = ops.recurrent_state(StateShape(2, 2, of_state))
    return ops.delta_net(*inputs, weights(ops, vectors), EPS, net, state, layer)


def copy(source: int, target: int) -> None:
    ops = cpu_ops()
    ops.copy_state(ops.recurrent_state(StateShape(1, 2, SMALL)), source, target)


def make(layers: int = 1, slots: int = 1, **changed: Any) -> Any:
    return cpu_ops().recurrent_state(StateShape(layers, slots, replace(SMALL, **changed)))


def read(layer: int, slot: int) -> Any:
    return make().read(layer, slot)


def gate(x: Any, other: Any) -> None:
    cpu_ops().sigmoid_gate(x, other)


FEATURES, VALUES = SMALL.conv_features, SMALL.values
REFUSED: dict[str, Callable[[], Any]] = {
    "qkv": lambda: call(qkv=normal(1, 3, FEATURES - 1)),
    "no tokens": lambda: call(qkv=normal(1, 0, FEATURES)),
    "qkv of float64": lambda: call(qkv=np.zeros((3, FEATURES))),
    "qkv in strides": lambda: call(qkv=normal(1, 3, 2 * FEATURES)[:, ::2]),
    "z": lambda: call(z=normal(1, 3, VALUES + 1)),
    "z rows": lambda: call(z=normal(1, 2, VALUES)),
    "z of float64": lambda: call(z=np.zeros((3, VALUES))),
    "alpha": lambda: call(alpha=normal(1, 3, 5)),
    "beta rows": lambda: call(beta=normal(1, 4, 4)),
    "conv": lambda: call(conv=normal(1, FEATURES * 3)),
    "a": lambda: call(a=normal(1, 5)),
    "dt": lambda: call(dt=normal(1, 3)),
    "norm": lambda: call(norm=normal(1, 63)),
    "another state": lambda: call(of_state=replace(SMALL, tiled=False)),
    "no layers": lambda: make(layers=0),
    "no slots": lambda: make(slots=0),
    "no keys": lambda: make(key=0),
    "heads": lambda: make(value_heads=3),
    "no key heads": lambda: make(key_heads=0),
    "a long convolution": lambda: make(kernel=5),
    "an empty convolution": lambda: make(kernel=0),
    "gate": lambda: gate(normal(1, 2, 8), normal(1, 2, 7)),
    "gate rows": lambda: gate(normal(1, 2, 8), normal(1, 1, 8)),
    "gate of float64": lambda: gate(normal(1, 2, 8), np.zeros((2, 8))),
    "gate in strides": lambda: gate(normal(1, 2, 8), normal(1, 2, 16)[:, ::2]),
}
OUTSIDE: dict[str, Callable[[], Any]] = {
    "layer": lambda: call(layer=2),
    "negative layer": lambda: call(layer=-1),
    "source": lambda: copy(2, 0),
    "target": lambda: copy(0, 2),
    "negative slot": lambda: copy(-1, 0),
    "layer to read": lambda: read(1, 0),
    "slot to read": lambda: read(0, 1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_shapes_are_refused(name: str) -> None:
    with pytest.raises(ValueError):
        REFUSED[name]()


@pytest.mark.parametrize("name", OUTSIDE)
def test_layers_and_slots_that_are_not_there_are_refused(name: str) -> None:
    with pytest.raises(IndexError):
        OUTSIDE[name]()


def test_the_right_shapes_are_taken_and_a_closed_op_set_is_not() -> None:
    assert call(layer=1).shape == (3, VALUES)
    ops = CpuOps(1)
    state = ops.recurrent_state(StateShape(1, 2, SMALL))
    ops.close()
    for use in (lambda: ops.clear_state(state), lambda: ops.copy_state(state, 0, 1)):
        with pytest.raises(ValueError):
            use()
