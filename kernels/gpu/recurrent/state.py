"""The states of recurrent layers on the device, and which sizes of nets the kernels take."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor as X

from kernels.recurrent import DeltaNet, StateShape

MAX_HEAD = 128
"""Features of a key or value head: a program keeps a matrix of them in its registers."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class GpuRecurrentState:
    """The convolution's last tokens (layers, slots, kernel - 1, conv_features), the oldest first, and matrices
    (layers, slots, value_heads, key, value), float32."""

    conv: X
    matrices: X

    @classmethod
    def allocate(cls, shape: StateShape, device: torch.device | str) -> GpuRecurrentState:
        """Zeros. Raises `ValueError` for a net that the kernels do not take."""
        check(shape)
        net, size = shape.net, (shape.layers, shape.slots)
        return cls(
            torch.zeros(*size, net.kernel - 1, net.conv_features, device=device),
            torch.zeros(*size, net.value_heads, net.key, net.value, device=device),
        )

    def clear(self) -> None:
        """Slot 0 becomes zeros in every layer."""
        for plane in (self.conv, self.matrices):
            plane[:, 0].zero_()

    def copy(self, source: int, target: int) -> None:
        """Copy a slot in every layer."""
        for plane in (self.conv, self.matrices):
            plane[:, target].copy_(plane[:, source])


def check(shape: StateShape) -> None:
    """Raises `ValueError` for a net that the kernels do not take, or for no layer or slot."""
    net = shape.net
    if shape.layers < 1 or shape.slots < 1:
        raise ValueError(f"a recurrent state of {shape.layers} layers and {shape.slots} slots")
    if not (1 <= net.key <= MAX_HEAD and 1 <= net.value <= MAX_HEAD):
        raise ValueError(
            f"heads of {net.key} and {net.value} features; at most {MAX_HEAD} are handled"
        )
    if net.kernel < 2:
        raise ValueError("a convolution over 1 token has no state")


def check_net(net: DeltaNet, state: GpuRecurrentState) -> None:
    """Raises `ValueError` where a state is not of this net."""
    conv, matrices = tuple(state.conv.shape[2:]), tuple(state.matrices.shape[2:])
    if conv != (net.kernel - 1, net.conv_features) or matrices != (
        net.value_heads,
        net.key,
        net.value,
    ):
        raise ValueError(f"a state {conv}, {matrices} for {net}")
