"""The same recurrent layers over the GPU's op set and over the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from kernels.gpu.gpu_ops import GpuOps
from kernels.ops import Tensor
from kernels.quants import BY_NAME
from kernels.recurrent import DeltaNet, DeltaNetWeights, StateShape
from kernels.reference import ReferenceOps
from tests.kernels.gpu.gpu_cases import DEVICE, error, normal

EPS = 1e-6
FLOAT = 2e-6
REFERENCE = ReferenceOps()
NET = DeltaNet(key_heads=2, value_heads=4, key=16, value=16, kernel=4, tiled=False)


def vector(values: Any) -> Tensor:
    data = np.ascontiguousarray(values.cpu().numpy(), np.float32)
    return Tensor("vector", BY_NAME["F32"], data.shape, data.view(np.uint8))


class Layers:
    """The same two layers of a net over both op sets; the second one is used."""

    def __init__(self, net: DeltaNet, decays: Any = None, shifts: Any = None) -> None:
        self.net, self.ops = net, GpuOps(DEVICE)
        heads = net.value_heads
        vectors = (
            normal(1, net.conv_features * net.kernel, scale=0.5),
            -1 - normal(2, heads).abs() if decays is None else decays,
            normal(3, heads) if shifts is None else shifts,
            1 + 0.2 * normal(4, net.value),
        )
        self.sides = [
            (ops, DeltaNetWeights(*(ops.vector(vector(v)) for v in vectors)),
             ops.recurrent_state(StateShape(2, 2, net)))
            for ops in (self.ops, REFERENCE)
        ]  # fmt: skip
        fill = normal(5, net.kernel - 1, net.conv_features), normal(6, heads, net.key, net.value)
        for _, _, state in self.sides:
            state.conv[1, 0], state.matrices[1, 0] = fill

    def rows(self, n: int, seed: int = 7) -> list[Any]:
        """qkv, z, alpha and beta, parts of one wide product as layers have them."""
        net = self.net
        sizes = [net.conv_features, net.values, net.value_heads, net.value_heads]
        return list(torch.split(normal(seed, n, sum(sizes)), sizes, dim=1))

    def run(self, rows: Sequence[Any]) -> tuple[Any, Any]:
        """Both op sets' outputs."""
        ours, theirs = (
            ops.delta_net(
                *(x if ops is self.ops else x.cpu() for x in rows), weights, EPS, self.net, state, 1
            )
            for ops, weights, state in self.sides
        )
        return ours, theirs

    def check(self, rows: Sequence[Any], tolerance: float = FLOAT) -> None:
        """The outputs agree, and the states after them; other slots and layers are as they were."""
        ours, theirs = self.run(rows)
        assert error(ours, theirs) < tolerance
        (_, _, mine), (_, _, wanted) = self.sides
        assert torch.equal(mine.conv.cpu(), wanted.conv)
        assert error(mine.matrices[1, 0], wanted.matrices[1, 0]) < tolerance
        for plane in (mine.conv, mine.matrices):
            assert not plane[0].any() and not plane[1, 1].any()
