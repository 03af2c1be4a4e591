"""Recurrent layers on a GPU against the reference: outputs and states, by steps and in chunks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.interpreter import GridExecutor

from kernels.device import DeviceMemoryError
from kernels.gpu.gpu_ops import GpuOps
from kernels.gpu.graph.gpu_graph import GraphForward
from kernels.gpu.sizes import RECURRENT_STEPS, recurrent_bytes
from kernels.recurrent import DeltaNet, StateShape
from tests.kernels.gpu.gpu_cases import DEVICE, ON_GPU, error
from tests.kernels.gpu.recurrent_cases import EPS, FLOAT, NET, Layers
from tests.kernels.gpu.test_gpu_ops import PAGES, FakeGraph

# The interpreter says when exp overflows: SiLU and sigmoid mean it.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.mark.parametrize("n", [1, 2, 3, 8, 9, 31, 32, 33, 63, 64, 65, 130])
def test_outputs_and_states_are_the_references(n: int) -> None:
    layers = Layers(NET)
    layers.check(layers.rows(n))
    layers.check(layers.rows(1, seed=8))  # it goes on from there


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize(("key", "value", "kernel"), [(32, 32, 2), (64, 16, 3), (96, 40, 4), (5, 3, 4), (16, 96, 4)])  # fmt: skip
def test_odd_sizes(key: int, value: int, kernel: int, tiled: bool) -> None:
    layers = Layers(DeltaNet(1 + tiled, 2 + 2 * tiled, key, value, kernel, tiled))
    for seed, n in enumerate((40, 2, 1)):
        layers.check(layers.rows(n, seed))


@pytest.mark.parametrize("n", [1, 70])
def test_heads_of_their_real_size(n: int) -> None:
    layers = Layers(DeltaNet(1, 2, 128, 128, 4, False))
    layers.check(layers.rows(n))


def test_chunks_equal_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, ours = Layers(NET), []
    rows = layers.rows(70)
    ops, weights, state = layers.sides[0]
    for most in (RECURRENT_STEPS, 70):
        monkeypatch.setattr("kernels.gpu.recurrent.delta_net.RECURRENT_STEPS", most)
        ops.copy_state(state, 0, 1)
        out = ops.delta_net(*rows, weights, EPS, NET, state, 1)
        ours.append((out, state.matrices[1, 0].clone(), state.conv[1, 0].clone()))
        ops.copy_state(state, 1, 0)
    for chunks, by_step in zip(*ours, strict=True):
        assert error(chunks, by_step) < FLOAT


def extreme(layers: Layers, n: int) -> list[Any]:
    """Logarithms of decays of -50 and -1e-6 in turns and in runs, with rates near 1 and 0."""
    qkv, z, alpha, beta = layers.rows(n)
    turn = torch.arange(n, device=DEVICE)
    harsh = (turn % 7 == 3) | ((turn > n // 2) & (turn < n // 2 + 5))
    alpha = torch.where(harsh, 50.0, -13.8155)[:, None].expand(n, layers.net.value_heads)
    beta = torch.where(turn % 3 == 0, -20.0, 20.0)[:, None].expand(n, layers.net.value_heads)
    return [qkv, z, alpha.contiguous(), beta.contiguous()]


@pytest.mark.parametrize("n", [8, 130])
def test_decays_of_e_to_the_minus_50_and_of_nearly_1(n: int) -> None:
    layers = Layers(NET, decays=torch.full((4,), -1.0), shifts=torch.zeros(4))
    layers.check(extreme(layers, n))


@pytest.mark.parametrize("n", [1, 70])
def test_a_state_that_forgets_nothing_keeps_its_digits(n: int) -> None:
    layers = Layers(NET, decays=torch.full((4,), -1.0), shifts=torch.full((4,), -30.0))
    layers.check(layers.rows(n))


@pytest.mark.parametrize("n", [7, 70])
def test_the_same_token_over_and_over(n: int) -> None:
    """Keys that are all the same make the worst matrix to be inverted.

    Against float64 chunks are off by 4e-7 here, the reference, which adds up token by token, by 3e-6.
    """
    layers = Layers(NET, decays=torch.full((4,), -1e-6), shifts=torch.zeros(4))
    qkv, z, alpha, beta = layers.rows(1)
    layers.check([row.repeat(n, 1) for row in (qkv, z, alpha, beta + 20)], 5e-6)


@pytest.mark.parametrize("n", [6, 70])
def test_tokens_of_zeros(n: int) -> None:
    layers = Layers(NET)
    rows = layers.rows(n)
    for row in rows:
        row[1::2] = 0
    layers.check(rows)
    for _, _, state in layers.sides:
        state.conv.zero_(), state.matrices.zero_()
    for row in rows:
        row.zero_()
    (ours, theirs), (_, _, state) = layers.run(rows), layers.sides[0]
    assert not ours.any() and not theirs.any() and not state.matrices.any()


# ---- the op set -------------------------------------------------------------------------------------


def test_slots_are_copied_and_cleared_in_every_layer() -> None:
    ops = GpuOps(DEVICE)
    state = ops.recurrent_state(StateShape(2, 3, NET))
    for plane in (state.conv, state.matrices):
        assert not plane.any()
        plane[:, 0] = 1.5
    ops.copy_state(state, 0, 2)
    ops.clear_state(state)
    for plane in (state.conv, state.matrices):
        assert (plane[:, 2] == 1.5).all() and not plane[:, :2].any()
    ops.write_state(state, 0, ops.read_state(state, 2))
    for plane in (state.conv, state.matrices):
        assert (plane[:, ::2] == 1.5).all() and not plane[:, 1].any()


def test_a_state_is_counted_and_refused_where_there_is_no_room() -> None:
    shape = StateShape(2, 3, NET)
    ops = GpuOps(DEVICE, limit=3 * shape.bytes_per_slot + 100)
    state = ops.recurrent_state(shape)
    assert ops.memory().free == 100
    with pytest.raises(DeviceMemoryError, match="100 are free"):
        ops.recurrent_state(shape)
    del state
    assert ops.memory().free == 3 * shape.bytes_per_slot + 100


@pytest.mark.parametrize(
    ("net", "match"),
    [
        (DeltaNet(1, 1, 129, 16, 4, False), "at most 128"),
        (DeltaNet(1, 1, 16, 256, 4, False), "at most 128"),
        (DeltaNet(1, 1, 16, 16, 1, False), "over 1 token"),
    ],
)
def test_nets_that_no_kernel_takes_are_refused_at_load(net: DeltaNet, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        GpuOps(DEVICE).recurrent_state(StateShape(1, 1, net))


def test_what_does_not_fit_the_net_is_refused() -> None:
    layers = Layers(NET)
    ops, weights, state = layers.sides[0]
    qkv, z, alpha, beta = layers.rows(2)
    for rows in ((qkv[:, 1:], z, alpha, beta), (qkv, z[:1], alpha, beta), (qkv, z, alpha, qkv)):
        with pytest.raises(ValueError, match=r", not \(2, "):
            ops.delta_net(*rows, weights, EPS, NET, state, 1)
    other = DeltaNet(2, 4, 16, 16, 3, False)
    with pytest.raises(ValueError, match="a state"):
        ops.delta_net(qkv, z, alpha, beta, weights, EPS, other, state, 1)
    with pytest.raises(ValueError, match="a vector"):
        wrong = weights._replace(norm=weights.a)
        ops.delta_net(qkv, z, alpha, beta, wrong, EPS, NET, state, 1)


class Stage:
    """A pass that is a recurrent layer only: its inputs are parts of the hidden state."""

    def __init__(self) -> None:
        self.layers = Layers(NET)
        self.ops, self.weights, self.state = self.layers.sides[0]

    def forward(self, rows: Any, pages: Any, start: int) -> Any:
        hidden, net = self.ops.set_hidden(rows), NET
        sizes = [net.conv_features, net.values, net.value_heads, net.value_heads]
        parts = torch.split(hidden, sizes, dim=1)
        return self.ops.delta_net(*parts, self.weights, EPS, net, self.state, 1)


def test_a_captured_token_advances_the_state_once(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, layers = Stage(), Layers(NET)
    tokens = [torch.cat(layers.rows(1, seed), dim=1).cpu().numpy() for seed in (1, 2, 3)]
    captured = GraphForward(stage.ops._inputs, stage.forward, stage.ops.states_kept)
    if not ON_GPU:

        def again() -> None:
            captured._captured._host.copy_(stage.forward(tokens[0], PAGES, 0))  # type: ignore[union-attr]

        FakeGraph(monkeypatch).pass_again = again
    ops, weights, state = layers.sides[1]
    for seed, token in enumerate(tokens, 1):
        got = captured(token, PAGES, 0)
        rows = [row.cpu() for row in layers.rows(1, seed)]
        assert error(got, ops.delta_net(*rows, weights, EPS, NET, state, 1)) < FLOAT
        assert error(stage.state.matrices[1, 0], state.matrices[1, 0]) < FLOAT
        assert torch.equal(stage.state.conv.cpu(), state.conv)


class Buffers(TorchDispatchMode):
    """Notes the names of torch's ops, and the bytes that they allocate."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.names.add(str(func))
        self.bytes += result.nbytes if func is torch.ops.aten.empty.memory_format else 0
        return result


@pytest.mark.skipif(ON_GPU, reason="there kernels are launched")
@pytest.mark.parametrize(("n", "kernels"), [(1, 2), (8, 2), (9, 4), (70, 4)])
def test_torch_gives_buffers_and_nothing_else(
    n: int, kernels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No op of torch computes, copies or waits where a graph is captured; a plan knows the bytes."""
    layers, launches = Layers(NET), []
    ops, weights, state = layers.sides[0]
    rows = layers.rows(n)
    monkeypatch.setattr(GridExecutor, "__call__", lambda *args, **named: launches.append(args))
    with Buffers() as buffers:
        ops.delta_net(*rows, weights, EPS, NET, state, 1)
    assert len(launches) == kernels
    assert buffers.names == {"aten.empty.memory_format", "aten.select.int"}
    assert buffers.bytes == recurrent_bytes(NET, n)
