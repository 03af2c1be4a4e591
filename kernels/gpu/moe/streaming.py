"""A layer's experts that are not on the device are streamed through it: some are copied while others compute.

Two buffers are used alternately. Made for long chunks, in which most experts have tokens and each of them
many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor as X

from kernels.gpu import elementwise
from kernels.gpu.graph.inputs import to_device
from kernels.gpu.memory.side_stream import Mark
from kernels.gpu.memory.staging import pieces
from kernels.gpu.memory.tracked_allocator import TrackedAllocator
from kernels.gpu.memory.weight_store import WeightStore
from kernels.gpu.moe.experts import Rows, Stacks, activated, add_weighted, moe_add
from kernels.gpu.quant import matmul
from kernels.gpu.quant.matmul import Fp16Activations, Groups
from kernels.gpu.quant.weight import PackedWeight, packed_bytes
from kernels.gpu.sizes import experts_at_once, stream_bytes
from kernels.ops import Ints, Tensor


@dataclass(frozen=True, slots=True)
class Pass:
    """Experts that are on the device together, in the order of their slots, and the pairs that they serve.

    `order` are those pairs (token * top_k + choice), expert after expert; a row of `tiles` is a slot and
    the begin and end of at most `size` of its pairs within `order`.
    """

    experts: tuple[int, ...]
    order: Ints
    tiles: Ints
    size: int


def passes(ids: Ints, at_once: int) -> list[Pass]:
    """The passes that compute ids (n, top_k), -1 for none, with at most `at_once` experts in each."""
    flat = ids.reshape(-1)
    order: Ints = np.argsort(flat, kind="stable").astype(np.int32)
    order = order[int((flat < 0).sum()) :]
    used, firsts, counts = np.unique(flat[order], return_index=True, return_counts=True)
    size = 16 if len(order) <= 16 * len(used) else 32 if len(order) <= 32 * len(used) else 64
    result = []
    for start in range(0, len(used), at_once):
        part = slice(start, start + at_once)
        base = int(firsts[start])
        tiles = [
            (slot, begin, min(begin + size, first + count))
            for slot, (first, count) in enumerate(
                zip((firsts[part] - base).tolist(), counts[part].tolist(), strict=True)
            )
            for begin in range(first, first + count, size)
        ]
        pairs = order[base : base + int(counts[part].sum())]
        experts = tuple(used[part].tolist())
        result.append(Pass(experts, pairs, np.array(tiles, np.int32), size))
    return result


@dataclass(slots=True)
class _Buffer:
    """Room for the experts of one pass, and the mark behind the products that read it last."""

    data: X
    read: Mark

    def stacks(self, tensors: Sequence[Tensor], at_once: int) -> Stacks:
        """The buffer as stacks of `at_once` experts each."""
        start, views = 0, []
        for tensor in tensors:
            size = packed_bytes(tensor.type, tensor.shape[1:])
            part = self.data[start : start + at_once * size].view(at_once, size)
            views.append(PackedWeight.over(tensor.type, (at_once, *tensor.shape[1:]), part))
            start += at_once * size
        gate, up, down = views
        return gate, up, down


class ExpertStream:
    """Streams experts to one device. Its buffers, made when first needed, serve all layers."""

    def __init__(self, allocator: TrackedAllocator, store: WeightStore) -> None:
        self._allocator, self._store = allocator, store
        self._buffers: tuple[_Buffer, ...] = ()

    def moe_add(
        self,
        x: X,
        ids: X,
        weights: X,
        tensors: tuple[Tensor, Tensor, Tensor],
        residual: X,
        bias_tensors: tuple[Tensor, Tensor, Tensor] | None = None,
        activation: int = 0,
    ) -> None:
        """As `experts.moe_add`, with the gate, up and down stacks of a file, which `ids` count in.

        Waits for the ids. Raises `DeviceMemoryError` where there is no room for the buffers.
        """
        n, top_k = ids.shape
        chosen = ids.cpu().numpy()
        kinds = [(tensor.type, tensor.shape) for tensor in tensors]
        at_once = experts_at_once(kinds)
        work = passes(chosen, at_once)
        if not work:
            return
        self._make_buffers(stream_bytes([kinds]) // 2)
        few = n <= matmul.GEMV_MAX_ROWS
        biases = None if bias_tensors is None else _rows(bias_tensors, x.device)
        groups = [] if few else _groups(work, x.device)
        x16 = None if few else matmul.fp16_activations(x)
        results = torch.zeros(0 if few else n, top_k, residual.shape[1], device=x.device)
        for number, part in enumerate(work):
            buffer = self._buffers[number % 2]
            stacks = self._fill(buffer, part.experts, tensors, at_once)
            if x16 is None:
                slots = to_device(_slots(chosen, part), x.device)
                some = None if biases is None else _some(biases, part.experts)
                moe_add(x, slots, weights, stacks, residual, some, activation)
            else:
                rows = results.view(n * top_k, -1)
                _products(x16, groups[number], stacks, rows, top_k, ids, biases, activation)
            buffer.read = self._store.staging.stream.current_mark()
        if few:
            return
        if biases is not None:
            elementwise.add_rows(results.view(n * top_k, -1), biases[2], ids.view(-1))
        add_weighted(results, weights, residual)

    def _fill(
        self, buffer: _Buffer, experts: Sequence[int], tensors: Sequence[Tensor], at_once: int
    ) -> Stacks:
        """Experts of a layer, there for the ops that are asked for next."""
        staging, stacks = self._store.staging, buffer.stacks(tensors, at_once)
        staging.stream.after(buffer.read)
        for weight, tensor in zip(stacks, tensors, strict=True):
            staging.send(pieces(tensor, experts, weight, 0, staging.block))
        staging.stream.before_current()
        return stacks

    def _make_buffers(self, size: int) -> None:
        if not self._buffers or len(self._buffers[0].data) < size:
            self._buffers = ()
            data = [self._allocator.empty(size) for _ in range(2)]
            allocated = self._store.staging.stream.current_mark()
            self._buffers = _Buffer(data[0], allocated), _Buffer(data[1], allocated)


def _products(
    x16: Fp16Activations,
    grouped: Groups,
    stacks: Stacks,
    results: X,
    top_k: int,
    ids: X,
    biases: Rows | None,
    activation: int,
) -> None:
    """Write the rows of `results`, (pairs, hidden), that these groups serve, without down's bias."""
    gate, up, down = stacks
    products = [matmul.gathered_gemm(x16, w, grouped, top_k) for w in (gate, up)]
    inner = None if biases is None else biases[:2]
    experts = None if biases is None else ids.view(-1)[grouped.order.long()]
    hidden = activated(products, activation, experts, inner)
    matmul.scattered_gemm(matmul.fp16_activations(hidden), down, grouped, results)


def _rows(tensors: tuple[Tensor, Tensor, Tensor], device: torch.device) -> Rows:
    """A file's biases on the device, (experts, features) each."""
    gate, up, down = (
        to_device(tensor.data.view(np.float32).reshape(len_experts, -1), device)
        for tensor in tensors
        for len_experts in tensor.shape[:1]
    )
    return gate, up, down


def _some(biases: Rows, experts: Sequence[int]) -> Rows:
    """The biases of some experts, in their order."""
    gate, up, down = (rows[list(experts)] for rows in biases)
    return gate, up, down


def _slots(ids: Ints, part: Pass) -> Ints:
    """ids (n, top_k) as slots of a pass, -1 for what others compute."""
    slots: Ints = np.full(ids.shape, -1, dtype=np.int32)
    for slot, expert in enumerate(part.experts):
        slots[ids == expert] = slot
    return slots


def _groups(work: Sequence[Pass], device: torch.device) -> list[Groups]:
    """The passes' pairs and tiles on the device, in one copy."""
    arrays = [array for part in work for array in (part.order, part.tiles.reshape(-1))]
    # Each begins at 16 bytes, which kernels are compiled for.
    starts = np.cumsum([0] + [-(-len(array) // 4) * 4 for array in arrays]).tolist()
    together: Ints = np.zeros(starts[-1], dtype=np.int32)
    for start, array in zip(starts, arrays, strict=False):
        together[start : start + len(array)] = array
    there = to_device(together, device)
    parts = [there[start:][: len(array)] for start, array in zip(starts, arrays, strict=False)]
    return [
        Groups(order, tiles.view(-1, 3), part.size)
        for part, order, tiles in zip(work, parts[::2], parts[1::2], strict=True)
    ]
