"""Recurrent layers on the CPU: their state, shape checks, and one native call an op."""

from __future__ import annotations

import ctypes

import numpy as np

from kernels.cpu.buffers import Array, Weight, address, expect, rows_of, vector_pointer
from kernels.cpu.context import NativeContext
from kernels.cpu.native import load
from kernels.host_bytes import joined, split
from kernels.ops import Bytes, Floats
from kernels.recurrent import DeltaNet, DeltaNetWeights, StateShape

MOST_TAPS = 4
"""The longest short convolution: `kMostTaps` of src/kernels.h."""


class RecurrentState:
    """The recurrent states of some layers, in native memory. Raises `ValueError` for a shape without kernels."""

    __slots__ = ("_free", "pointer", "shape")

    def __init__(self, shape: StateShape) -> None:
        self.pointer = 0
        net = shape.net
        sizes = (shape.layers, shape.slots, net.key_heads, net.value_heads, net.key, net.value)
        if min(sizes) < 1 or net.value_heads % net.key_heads:
            raise ValueError(f"no recurrent state of {shape}")
        if not 1 <= net.kernel <= MOST_TAPS:
            raise ValueError(f"a convolution over {net.kernel} tokens: at most {MOST_TAPS}")
        self.shape = shape
        self._free = load().kt_state_free
        self.pointer = load().kt_state(*sizes, net.kernel, int(net.tiled))
        if not self.pointer:
            raise MemoryError("no memory for recurrent states")

    def __del__(self) -> None:
        if self.pointer:
            self._free(self.pointer)

    def read(self, layer: int, slot: int = 0) -> tuple[Floats, Floats]:
        """Copies of the convolution's last tokens (kernel - 1, conv_features), the oldest first, and of the
        matrices (value_heads, key, value).
        """
        self.expect_layer(layer)
        self.expect_slot(slot)
        net = self.shape.net
        conv = np.empty((net.kernel - 1, net.conv_features), dtype=np.float32)
        matrices = np.empty((net.value_heads, net.key, net.value), dtype=np.float32)
        load().kt_state_read(self.pointer, layer, slot, conv.ctypes.data, matrices.ctypes.data)
        return conv, matrices

    def slot(self, slot: int) -> Floats:
        """What is in a slot, all layers, as it lies there: a view."""
        self.expect_slot(slot)
        library = load()
        address = library.kt_state_slot(self.pointer, slot)
        floats = (ctypes.c_float * library.kt_state_slot_floats(self.pointer)).from_address(address)
        return np.frombuffer(floats, np.float32)

    def expect_layer(self, layer: int) -> None:
        """Raise `IndexError` for a layer that is not there."""
        if not 0 <= layer < self.shape.layers:
            raise IndexError(f"recurrent layer {layer} of {self.shape.layers}")

    def expect_slot(self, slot: int) -> None:
        """Raise `IndexError` for a slot that is not there."""
        if not 0 <= slot < self.shape.slots:
            raise IndexError(f"slot {slot} of {self.shape.slots}")


class RecurrentOps(NativeContext):
    """`kernels.recurrent.RecurrentOps` on the CPU."""

    def recurrent_state(self, shape: StateShape) -> RecurrentState:
        return RecurrentState(shape)

    def clear_state(self, state: RecurrentState) -> None:
        self._native.kt_state_clear(self._alive(), state.pointer)

    def copy_state(self, state: RecurrentState, source: int, target: int) -> None:
        state.expect_slot(source)
        state.expect_slot(target)
        self._native.kt_state_copy(self._alive(), state.pointer, source, target)

    def read_state(self, state: RecurrentState, slot: int) -> Bytes:
        return joined([state.slot(slot)])

    def write_state(self, state: RecurrentState, slot: int, data: Bytes) -> None:
        split([state.slot(slot)], data)

    def delta_net(
        self,
        qkv: Array,
        z: Array,
        alpha: Array,
        beta: Array,
        weights: DeltaNetWeights[Weight],
        eps: float,
        net: DeltaNet,
        state: RecurrentState,
        layer: int,
    ) -> Array:
        features, values, heads = net.conv_features, net.values, net.value_heads
        n = rows_of(qkv, features)
        expect(z, n, values)
        expect(alpha, n, heads)
        expect(beta, n, heads)
        if net != state.shape.net:
            raise ValueError(f"a state of {state.shape.net} for {net}")
        state.expect_layer(layer)
        out = self._buffer(n, values)
        self._call(
            "kt_delta_net",
            address(qkv),
            n,
            address(z),
            address(alpha),
            address(beta),
            vector_pointer(weights.conv, features * net.kernel),
            vector_pointer(weights.a, heads),
            vector_pointer(weights.dt, heads),
            vector_pointer(weights.norm, net.value),
            eps,
            state.pointer,
            layer,
            address(out),
        )
        return out

    def sigmoid_gate(self, x: Array, gate: Array) -> None:
        cols = x.shape[-1]
        n = rows_of(x, cols)
        expect(gate, n, cols)
        self._call("kt_sigmoid_gate", address(x), address(gate), n * cols)
