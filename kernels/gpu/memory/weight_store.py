"""The weights on one device: loaded whole, or expert by expert into slots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from kernels.device import Copy
from kernels.gpu.memory.side_stream import Mark
from kernels.gpu.memory.staging import Piece, Staging, pieces
from kernels.gpu.memory.tracked_allocator import TrackedAllocator
from kernels.gpu.quant.weight import PackedWeight, packed_bytes
from kernels.ops import Tensor


class WeightStore:
    """Weights of one device. Raises `DeviceMemoryError` for what it has no room for.

    On a GPU a thread uploads, since a file's bytes may have to be read from a disk first. In Triton's
    interpreter, which has one thread, an upload is done when it is asked for.
    """

    def __init__(self, allocator: TrackedAllocator) -> None:
        self._allocator = allocator
        self._staging: Staging | None = None
        on_gpu = allocator.device.type == "cuda"
        self._uploader = ThreadPoolExecutor(1, "uploads") if on_gpu else None

    def close(self) -> None:
        """Finish what was begun, and stop the threads."""
        if self._uploader is not None:
            self._uploader.shutdown()
        if self._staging is not None:
            self._staging.close()

    @property
    def staging(self) -> Staging:
        """The way to the device; its buffers are made when they are first needed."""
        if self._staging is None:
            self._staging = Staging(self._allocator)
        return self._staging

    def load(self, tensor: Tensor) -> PackedWeight:
        """A file's matrix or stack. Raises `ValueError` when its bytes are not its shape."""
        staging = self.staging
        weight = self._make(tensor, tensor.shape)
        staging.stream.after(staging.stream.current_mark())
        count = tensor.shape[0] if len(tensor.shape) == 3 else 1
        staging.send(pieces(tensor, range(count), weight, 0, staging.block))
        staging.stream.before_current()
        return weight

    def slots(self, tensor: Tensor, slots: int) -> PackedWeight:
        """Room for `slots` experts of a stack."""
        return self._make(tensor, (slots, *tensor.shape[1:]))

    def upload(self, copies: Sequence[Copy[Any]]) -> Callable[[], bool]:
        """Begin to fill slots; the result says whether all are filled, and raises what went wrong."""
        for copy in copies:
            _check(copy)
        stream = self.staging.stream
        # What the current stream was given before may still read what the slots have now.
        read = stream.current_mark()

        def send() -> Mark:
            stream.after(read)
            self.staging.send(_blocks(copies, self.staging.block))
            return stream.mark()

        if self._uploader is None:
            return send().query
        sent: Future[Mark] = self._uploader.submit(send)
        return lambda: sent.done() and sent.result().query()

    def _make(self, tensor: Tensor, shape: tuple[int, ...]) -> PackedWeight:
        with self._allocator.room(packed_bytes(tensor.type, shape)):
            weight = PackedWeight.empty(tensor.type, shape, self._allocator.device)
        self._allocator.keep(weight.data)
        return weight


def _check(copy: Copy[Any]) -> None:
    """Raises `ValueError` for what does not fit."""
    weight, tensor = copy.weights, copy.tensor
    assert isinstance(weight, PackedWeight), "slots are made by `expert_slots`"
    if weight.type != tensor.type or weight.shape[1:] != tensor.shape[1:]:
        raise ValueError(f"{tensor.name} does not fit slots of {weight.type.name} {weight.shape}")
    if not 0 <= copy.slot < weight.shape[0] or not 0 <= copy.expert < tensor.shape[0]:
        raise ValueError(f"expert {copy.expert} of {tensor.name} into slot {copy.slot}")


def _blocks(copies: Sequence[Copy[Any]], block: int) -> Iterator[Piece]:
    """Slots beside each other are filled by blocks of several experts: one alone is a small copy."""
    runs: list[list[Copy[Any]]] = []
    for copy in sorted(copies, key=lambda copy: (id(copy.weights), copy.slot)):
        if runs and _beside(runs[-1][-1], copy):
            runs[-1].append(copy)
        else:
            runs.append([copy])
    for run in runs:
        first, experts = run[0], [copy.expert for copy in run]
        yield from pieces(first.tensor, experts, first.weights, first.slot, block)


def _beside(one: Copy[Any], other: Copy[Any]) -> bool:
    same = one.weights is other.weights and one.tensor is other.tensor
    return same and one.slot + 1 == other.slot
