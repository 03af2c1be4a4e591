"""The recurrent part of `GpuOps`: states that are counted, and what a capture must not change in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from torch import Tensor as X

from kernels.gpu.attention_ops import Weight, as_vector
from kernels.gpu.elementwise import sigmoid_gate
from kernels.gpu.memory.host_planes import read_planes, write_planes
from kernels.gpu.memory.tracked_allocator import TrackedAllocator
from kernels.gpu.quant.q8 import KnownQ8
from kernels.gpu.recurrent.delta_net import delta_net
from kernels.gpu.recurrent.state import GpuRecurrentState, check
from kernels.ops import Bytes
from kernels.recurrent import DeltaNet, DeltaNetWeights, StateShape


class RecurrentOps:
    """`kernels.recurrent.RecurrentOps` on the device of an allocator."""

    known: KnownQ8

    def __init__(self, allocator: TrackedAllocator) -> None:
        self._memory = allocator
        self._states: WeakSet[GpuRecurrentState] = WeakSet()

    def recurrent_state(self, shape: StateShape) -> GpuRecurrentState:
        """Zeros. Raises `ValueError` for a net that the kernels do not take, before anything is allocated."""
        check(shape)
        with self._memory.room(shape.bytes_per_slot * shape.slots):
            state = GpuRecurrentState.allocate(shape, self._memory.device)
        self._memory.keep(state.conv, state.matrices)
        self._states.add(state)
        return state

    def clear_state(self, state: GpuRecurrentState) -> None:
        state.clear()

    def copy_state(self, state: GpuRecurrentState, source: int, target: int) -> None:
        state.copy(source, target)

    def read_state(self, state: GpuRecurrentState, slot: int) -> Bytes:
        return read_planes([state.conv[:, slot], state.matrices[:, slot]])

    def write_state(self, state: GpuRecurrentState, slot: int, data: Bytes) -> None:
        write_planes([state.conv[:, slot], state.matrices[:, slot]], data)

    def delta_net(
        self,
        qkv: X,
        z: X,
        alpha: X,
        beta: X,
        weights: DeltaNetWeights[Weight],
        eps: float,
        net: DeltaNet,
        state: GpuRecurrentState,
        layer: int,
    ) -> X:
        vectors = DeltaNetWeights(*(as_vector(weight) for weight in weights))
        return delta_net(qkv, z, alpha, beta, vectors, eps, net, state, layer)

    def sigmoid_gate(self, x: X, gate: X) -> None:
        self.known.forget(x)
        sigmoid_gate(x, gate)

    @contextmanager
    def states_kept(self) -> Iterator[None]:
        """Passes inside leave every state as it was: a token that is done again advances none.

        The copy lies on the host, for the device may have no room for another; this waits for the device.
        """
        copies = [
            (
                layer[0],
                layer[0].to("cpu", copy=True),
            )  # one by one: strided, they would meet on the device
            for state in self._states
            for plane in (state.conv, state.matrices)
            for layer in plane
        ]
        yield
        for here, copy in copies:
            here.copy_(copy)
