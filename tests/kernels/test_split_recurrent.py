"""A pass divided between two op sets with layers that have a recurrent state: it is the device's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.model.transformer import page_table
from kernels.hybrid.split_experts import Slots
from kernels.ops import Floats, Ops, Routing, Tensor
from kernels.quants import BY_NAME
from kernels.recurrent import DeltaNet, DeltaNetWeights, StateShape
from kernels.reference import ReferenceOps
from tests.kernels.test_split import every, half, none, split
from tests.support.fidelity import nmse
from tests.support.simulated_device import SimulatedDevice


class RecurrentLayer:
    """A gated delta net and routed experts over an op set: 32 features, 8 experts."""

    net = DeltaNet(key_heads=1, value_heads=2, key=8, value=16, kernel=4, tiled=False)

    def __init__(self, ops: Ops[Any, Any, Any]) -> None:
        self.ops, self._random, net = ops, np.random.default_rng(3), self.net
        sizes = net.conv_features, net.values, net.value_heads, net.value_heads, net.values
        self._in = [ops.matrix(self._weights("in", size, 32)) for size in sizes]
        self._out = ops.matrix(self._weights("out", 32, net.values))
        lengths = net.conv_features * net.kernel, net.value_heads, net.value_heads, net.value
        vectors = [self._weights("vector", length) for length in lengths]
        vectors[1].data.view(np.float32)[:] = -1
        self._vectors = DeltaNetWeights(*map(ops.vector, vectors))
        self._norm = ops.vector(self._weights("norm", 32))
        self._router = ops.matrix(self._weights("router", 8, 32))
        names = ("blk.0.ffn_gate_exps.weight", "blk.0.ffn_up_exps.weight", "blk.0.ffn_down_exps.weight")  # fmt: skip
        self._experts = [ops.matrix(self._weights(name, 8, 32, 32)) for name in names]
        self.state = ops.recurrent_state(StateShape(1, 2, net))

    def _weights(self, name: str, *shape: int) -> Tensor:
        values = self._random.normal(0, shape[-1] ** -0.5, shape).astype(np.float32)
        return Tensor(name, BY_NAME["F32"], shape, values.reshape(-1).view(np.uint8))

    def forward(self, rows: Any, pages: Any, start: int) -> Any:
        ops = self.ops
        x = ops.set_hidden(rows)
        *parts, gate = ops.norm_linear(x, self._norm, 1e-6, self._in)
        mixed = ops.delta_net(*parts, self._vectors, 1e-6, self.net, self.state, 0)
        ops.sigmoid_gate(mixed, gate)
        ops.linear_add(mixed, self._out, x)
        chosen = ops.route(x, self._norm, 1e-6, self._router, None, Routing(2))
        ops.moe_add(*chosen, *self._experts, x)
        return ops.last_row(x)

    def read(self, run: Any, rows: Floats) -> Floats:
        return self.ops.to_numpy(run(rows, page_table([0]), 0)).copy()


@pytest.mark.parametrize("slots", [none, half, every])
def test_a_recurrent_state_goes_on_from_pass_to_pass(slots: Slots) -> None:
    """By chunks and repeated tokens, and back to a copy: a token that is captured advances it once."""
    device = SimulatedDevice()
    tokens = np.random.default_rng(4).normal(size=(16, 1, 32)).astype(np.float32)

    def said(ops: Any) -> Floats:
        layer = RecurrentLayer(ops)
        run = ops.record(layer.forward)
        out = [layer.read(layer.forward, np.concatenate(tokens[:5]))]
        out += [layer.read(run, token) for token in tokens[5:10]]
        ops.copy_state(layer.state, 0, 1)
        out += [layer.read(run, token) for token in tokens[10:]]
        ops.copy_state(layer.state, 1, 0)
        again = [layer.read(run, token) for token in tokens[10:]]
        assert nmse(np.concatenate(again), np.concatenate(out[-6:])) < 1e-12
        ops.clear_state(layer.state)
        return np.concatenate([*out, layer.read(run, tokens[0])])

    with split(slots, device) as ops, ops.active():
        got = said(ops)
        if slots is not every:
            assert device.replays == 5 + 6 + 6
    assert nmse(got, said(ReferenceOps())) < 1e-10


def test_a_recurrent_state_is_counted_while_it_exists() -> None:
    device = SimulatedDevice()
    shape = StateShape(2, 3, RecurrentLayer.net)
    with split(none, device) as ops:
        state = ops.recurrent_state(shape)
        assert device.held == 3 * shape.bytes_per_slot
        del state
        assert device.held == 0
