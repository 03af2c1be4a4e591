"""Weights reach the device in blocks, in order, with no memory but their own and one block's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kernels.gpu.memory.side_stream import SideStream
from kernels.gpu.memory.staging import Piece, Staging, pieces
from kernels.gpu.memory.tracked_allocator import TrackedAllocator
from kernels.gpu.memory.weight_store import WeightStore
from kernels.gpu.quant.weight import PackedWeight, packed_bytes
from kernels.gpu.sizes import BUFFERS
from kernels.ops import Tensor
from tests.kernels.gpu.gpu_cases import DEVICE, ON_GPU
from tests.kernels.gpu.quantised_cases import random_tensor, repack

on_the_cpu = pytest.mark.skipif(ON_GPU, reason="a simulated stream, or torch's allocations counted")


class Allocations(TorchDispatchMode):
    """Counts the bytes of the tensors that torch makes, whether or not they are freed again."""

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        def storages(values: Any) -> dict[int, int]:
            tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
            return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}

        result = func(*args, **(kwargs or {}))
        known = storages((args, kwargs))
        self.total += sum(n for at, n in storages(result).items() if at not in known)
        return result


def store(block: int) -> WeightStore:
    """A store that sends blocks of so many bytes."""
    allocator = TrackedAllocator(torch.device(DEVICE))
    made = WeightStore(allocator)
    made._staging = Staging(allocator, block)
    return made


@pytest.mark.parametrize("name", ["Q6_K", "F16"])
@pytest.mark.parametrize("rows_a_block", [1, 2, 7, 30])
def test_blocks_of_any_size_pack_the_same(name: str, rows_a_block: int) -> None:
    """Some rows, a matrix, several at once: 5 matrices of 7 rows."""
    cols = 256 if name.endswith("_K") else 40
    tensor = random_tensor(name, (5, 7, cols))
    weight = store(rows_a_block * tensor.type.row_bytes(cols)).load(tensor)
    assert torch.equal(weight.data, repack(tensor, DEVICE).data)
    assert weight.nbytes == packed_bytes(tensor.type, tensor.shape)


@on_the_cpu
@pytest.mark.parametrize("name", ["Q4_K", "Q6_K", "Q1_0", "BF16"])
def test_a_load_allocates_the_weight_and_nothing_else(name: str) -> None:
    """So a load's peak is what is loaded and the one block of its op set."""
    tensor = random_tensor(name, (50, 1024))
    loading = store(tensor.data.nbytes // 9)
    with Allocations() as made:
        weight = loading.load(tensor)
    assert made.total == weight.nbytes


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="needs KTCHAT_GPU_TESTS=1 and a CUDA device")
def test_a_load_never_takes_300_mb_more() -> None:
    tensor = random_tensor("Q6_K", (40, 2048, 2048))
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    weight = repack(tensor, DEVICE)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_reserved() - before < weight.nbytes + 300e6


def test_pieces_are_bounded_and_cover_the_chosen_matrices() -> None:
    tensor = random_tensor("Q8_0", (6, 5, 64))
    weight = PackedWeight.empty(tensor.type, (3, 5, 64))
    row = tensor.type.row_bytes(64)
    data = tensor.data.reshape(6, 5, row)
    for block in (row, 3 * row, 5 * row, 11 * row, 100 * row):
        seen = np.zeros((3, 5, row), np.uint8)
        for piece in pieces(tensor, [4, 0, 5], weight, 0, block):
            assert sum(raw.nbytes for raw in piece.raw) <= block
            for number, raw in enumerate(piece.raw):
                assert np.shares_memory(raw, tensor.data), "a piece is no copy"
                seen[piece.matrix + number, piece.row : piece.row + len(raw)] = raw
        assert np.array_equal(seen, data[[4, 0, 5]])


def test_what_no_block_holds_is_refused() -> None:
    tensor = random_tensor("Q8_0", (3, 64))
    weight = PackedWeight.empty(tensor.type, (3, 64))
    with pytest.raises(ValueError, match="a block has 67"):
        list(pieces(tensor, [0], weight, 0, 67))
    with pytest.raises(ValueError, match="not its shape"):
        list(pieces(Tensor("short", tensor.type, (4, 64), tensor.data), [0], weight, 0, 1000))


class FakeMark:
    """A mark that a test reaches, or whoever waits for it."""

    def __init__(self, number: int, log: list[str]) -> None:
        self.number, self.reached, self._log = number, False, log

    def query(self) -> bool:
        return self.reached

    def synchronize(self) -> None:
        self._log.append(f"wait {self.number}")
        self.reached = True


class FakeStream(SideStream):
    """A stream that never comes anywhere by itself."""

    def __init__(self) -> None:
        self.marks: list[FakeMark] = []
        self.log: list[str] = []

    def active(self) -> AbstractContextManager[object]:
        return nullcontext()

    def mark(self) -> FakeMark:
        self.marks.append(FakeMark(len(self.marks), self.log))
        return self.marks[-1]

    def current_mark(self) -> FakeMark:
        return self.mark()

    def after(self, mark: Any) -> None:
        self.log.append(f"after {mark.number}")

    def before_current(self) -> None:
        self.log.append("before current")

    def current_after(self, mark: Any) -> None:
        self.log.append(f"current after {mark.number}")


@on_the_cpu
def test_a_buffer_is_filled_again_once_its_copy_is_done() -> None:
    tensor, stream = random_tensor("Q8_0", (BUFFERS + 3, 32)), FakeStream()
    staging = Staging(TrackedAllocator(torch.device(DEVICE)), tensor.type.row_bytes(32), stream)
    weight = PackedWeight.empty(tensor.type, tensor.shape)
    stream.marks.clear()
    stream.log.clear()
    staging.send(pieces(tensor, [0], weight, 0, staging.block))
    assert len(stream.marks) == BUFFERS + 3
    assert stream.log == ["wait 0", "wait 1", "wait 2"]
    assert torch.equal(weight.data, repack(tensor).data)


@on_the_cpu
def test_a_block_that_cannot_be_read_leaves_the_way_open() -> None:
    tensor = random_tensor("Q8_0", (BUFFERS, 32))
    staging = Staging(TrackedAllocator(torch.device(DEVICE)), 1 << 10)
    weight = PackedWeight.empty(tensor.type, tensor.shape)
    good = list(pieces(tensor, [0], weight, 0, tensor.type.row_bytes(32)))
    bad = Piece(weight, 0, 0, (np.zeros((2, 5), np.uint8), np.zeros((3, 5), np.uint8)))
    with pytest.raises(ValueError, match="broadcast"):
        staging.send([good[0], bad, *good[1:]])
    staging.send(good)
    assert torch.equal(weight.data, repack(tensor).data)


class SlowBytes:
    """Bytes whose reading takes a while."""

    shape, nbytes, read = (1, 34), 34, False

    def __array__(self, *_: Any, **__: Any) -> Any:
        time.sleep(0.05)
        self.read = True
        return np.zeros(self.shape, np.uint8)


@on_the_cpu
def test_nobody_writes_to_a_buffer_once_sending_has_failed() -> None:
    tensor, slow = random_tensor("Q8_0", (1, 32)), SlowBytes()
    staging = Staging(TrackedAllocator(torch.device(DEVICE)), 1 << 10)
    weight = PackedWeight.empty(tensor.type, tensor.shape)
    bad = Piece(weight, 0, 0, (np.zeros((2, 5), np.uint8), np.zeros((3, 5), np.uint8)))
    with pytest.raises(ValueError, match="broadcast"):
        staging.send([bad, Piece(weight, 0, 0, (slow,))])  # type: ignore[arg-type]
    assert slow.read
