"""Weights on their way from a mapped file to a device: in blocks, through pinned memory, packed on arrival.

Several blocks are read at once, by threads, while those before them are copied.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Lock

import torch

from kernels.gpu.memory.side_stream import Mark, Reached, SideStream
from kernels.gpu.memory.tracked_allocator import TrackedAllocator
from kernels.gpu.quant.weight import PackedWeight
from kernels.gpu.sizes import BLOCK_BYTES, BUFFERS
from kernels.ops import Bytes, Tensor


@dataclass(frozen=True, slots=True)
class Piece:
    """A block: the same rows, from `row` on, of the matrices `matrix`, `matrix` + 1, …

    `raw` has a matrix's file bytes each, (rows, bytes of a row).
    """

    weight: PackedWeight
    matrix: int
    row: int
    raw: tuple[Bytes, ...]


def pieces(
    tensor: Tensor, experts: Sequence[int], weight: PackedWeight, matrix: int, block: int
) -> Iterator[Piece]:
    """Matrices `experts` of a file's tensor into `weight` from `matrix` on, at most `block` bytes at once.

    A tensor of one matrix has expert 0. Raises `ValueError` where its bytes are not its shape, or a row
    is larger than a block.
    """
    row_bytes = tensor.type.row_bytes(tensor.cols)
    count = tensor.shape[0] if len(tensor.shape) == 3 else 1
    if tensor.data.nbytes != count * tensor.rows * row_bytes:
        raise ValueError(f"{tensor.name} has {tensor.data.nbytes} bytes, which is not its shape")
    if row_bytes > block:
        raise ValueError(f"a row of {tensor.name} has {row_bytes} bytes; a block has {block}")
    data = tensor.data.reshape(count, tensor.rows, row_bytes)
    together = max(1, block // (tensor.rows * row_bytes))
    rows = min(tensor.rows, block // row_bytes)
    for first in range(0, len(experts), together):
        chosen = experts[first : first + together]
        for row in range(0, tensor.rows, rows):
            raw = tuple(data[expert, row : row + rows] for expert in chosen)
            yield Piece(weight, matrix + first, row, raw)


@dataclass(slots=True)
class _Buffer:
    """Pinned memory for one block, and the mark behind the copy that read it last."""

    host: torch.Tensor
    sent: Mark

    def fill(self, piece: Piece) -> torch.Tensor:
        """A piece's bytes, (matrices, rows, bytes): the only copy that the host makes."""
        shape = (len(piece.raw), *piece.raw[0].shape)
        size = len(piece.raw) * piece.raw[0].nbytes
        filled = self.host[:size].view(shape)
        for target, raw in zip(filled.numpy(), piece.raw, strict=True):
            target[...] = raw
        return filled


class Staging:
    """The way to one device. Any thread may send, one after another; blocks are packed in their order.

    What is sent lies on the device once `stream` has come as far. On the device it takes `block` bytes.
    """

    def __init__(
        self,
        allocator: TrackedAllocator,
        block: int = BLOCK_BYTES,
        stream: SideStream | None = None,
    ) -> None:
        device = allocator.device
        self.block = block
        self.stream = SideStream(device) if stream is None else stream
        self._arrival = allocator.empty(block)
        pinned = device.type == "cuda"
        self._ring = deque(
            _Buffer(torch.empty(block, dtype=torch.uint8, pin_memory=pinned), Reached())
            for _ in range(BUFFERS)
        )
        self._readers = ThreadPoolExecutor(BUFFERS - 1, "weights")
        self._lock = Lock()
        self.stream.after(self.stream.current_mark())

    def close(self) -> None:
        """Stop the threads."""
        self._readers.shutdown()

    def send(self, blocks: Iterable[Piece]) -> None:
        """Ask for blocks to be copied and packed; returns once the last has been read from the host."""
        reading: deque[tuple[Piece, _Buffer, Future[torch.Tensor]]] = deque()
        with self._lock:
            try:
                for piece in blocks:
                    if len(reading) == len(self._ring) - 1:
                        self._copy(*reading.popleft())
                    buffer = self._ring[0]
                    buffer.sent.synchronize()
                    self._ring.rotate(-1)
                    reading.append((piece, buffer, self._readers.submit(buffer.fill, piece)))
                while reading:
                    self._copy(*reading.popleft())
            finally:
                # Nobody may be writing to a buffer that the next to send finds free.
                wait([future for _, _, future in reading])

    def _copy(self, piece: Piece, buffer: _Buffer, filling: Future[torch.Tensor]) -> None:
        filled = filling.result()
        with self.stream.active():
            arrived = self._arrival[: filled.nbytes].view(filled.shape)
            arrived.copy_(filled, non_blocking=True)
            buffer.sent = self.stream.mark()
            piece.weight.store(arrived, piece.matrix, piece.row)
