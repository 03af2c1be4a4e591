"""Experts that are not on the device are streamed through it: some are copied while others compute.

Made for long chunks, in which most experts have tokens and each of them many. Buffers are filled by a thread, in a
stream of their own and ahead of the layer that computes (`expert_feed`).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor as X

from kernels.device import StreamedLayer
from kernels.gpu.graph.inputs import to_device
from kernels.gpu.memory.side_stream import Mark
from kernels.gpu.memory.staging import pieces
from kernels.gpu.memory.tracked_allocator import TrackedAllocator
from kernels.gpu.memory.weight_store import WeightStore
from kernels.gpu.moe.expert_feed import ExpertFeed, FeedLayer, Part
from kernels.gpu.moe.experts import Biases, Stacks, activated, add_weighted, moe_add
from kernels.gpu.quant import gemv, matmul
from kernels.gpu.quant.matmul import Fp16Activations, Groups
from kernels.gpu.quant.weight import PackedWeight, packed_bytes
from kernels.gpu.rows.kernels import add_rows
from kernels.gpu.sizes import STREAM_BUFFERS, Kind, experts_at_once, stream_bytes
from kernels.ops import Ints, Tensor
from kernels.sizes import PROMPT_CHUNK


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a chunk's router chose: ids (n, top_k), -1 for none; pairs (token * top_k + choice) by their experts.

    `order` are the pairs, expert after expert; expert `used[i]` has `counts[i]` of them from `firsts[i]` on. Tiles have
    at most `size`.
    """

    ids: Ints
    order: Ints
    used: Ints
    firsts: Any
    counts: Any
    size: int

    @classmethod
    def of(cls, ids: Ints) -> Chosen:
        """Of these ids."""
        flat = ids.reshape(-1)
        order: Ints = np.argsort(flat, kind="stable").astype(np.int32)
        order = order[int((flat < 0).sum()) :]
        used, firsts, counts = np.unique(flat[order], return_index=True, return_counts=True)
        size = 16 if len(order) <= 16 * len(used) else 32 if len(order) <= 32 * len(used) else 64
        return cls(ids, order, used, firsts, counts, size)

    def groups(self, experts: Sequence[int]) -> tuple[Ints, Ints]:
        """The pairs of these experts in their order, and tiles (slot, begin, end): the slot is an expert's place in
        `experts`, begin and end are within those pairs. Experts that nobody chose have none."""
        where = {int(expert): place for place, expert in enumerate(self.used)}
        pairs, tiles, begin = [], [], 0
        for slot, expert in enumerate(experts):
            if (place := where.get(expert)) is None:
                continue
            count, first = int(self.counts[place]), int(self.firsts[place])
            pairs.append(self.order[first : first + count])
            tiles += [
                (slot, start, min(start + self.size, begin + count))
                for start in range(begin, begin + count, self.size)
            ]
            begin += count
        order: Ints = np.concatenate(pairs) if pairs else np.empty(0, np.int32)
        return order, np.array(tiles, np.int32).reshape(-1, 3)

    def slots(self, experts: Sequence[int]) -> Ints:
        """ids as places in `experts`, -1 for others."""
        slots: Ints = np.full(self.ids.shape, -1, dtype=np.int32)
        for slot, expert in enumerate(experts):
            slots[self.ids == expert] = slot
        return slots


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
        self._buffers: list[_Buffer] = []
        on_gpu = allocator.device.type == "cuda"
        self._thread = ThreadPoolExecutor(1, "streamed experts") if on_gpu else None
        self._layers: list[StreamedLayer] = []
        self._feed: ExpertFeed[_Buffer] | None = None
        self._done, self._tokens = 0, PROMPT_CHUNK
        """Layers of the feed that were computed; tokens of its chunk."""

    def close(self) -> None:
        """Stop the thread."""
        self.begin(())
        if self._thread is not None:
            self._thread.shutdown()

    def begin(self, layers: Sequence[StreamedLayer], tokens: int = PROMPT_CHUNK) -> None:
        """Begin to fetch the experts of these layers for a chunk of so many tokens, in this order; what an earlier call
        left is forgotten.

        Raises `DeviceMemoryError` where there is no room for the buffers.
        """
        if self._feed is not None:
            self._feed.stop()
        self._layers, self._feed, self._done = list(layers), None, 0
        self._tokens = tokens
        if not layers:
            return
        kinds = [_kinds(layer) for layer in layers]
        self._make_buffers(stream_bytes(kinds, tokens) // STREAM_BUFFERS)
        feed = [
            FeedLayer(layer.experts, experts_at_once(kind, tokens))
            for layer, kind in zip(layers, kinds, strict=True)
        ]
        run = _at_once if self._thread is None else self._thread.submit
        fill = self._fill_of(tuple(layers), [layer.at_once for layer in feed])
        self._feed = ExpertFeed(feed, self._buffers, fill, run)
        self._feed.start()

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

        Waits for the ids. A layer that `begin` was not told of is begun now. Raises `DeviceMemoryError` where there is
        no room for the buffers.
        """
        n, top_k = ids.shape
        chosen = Chosen.of(ids.cpu().numpy())
        used = frozenset(chosen.used.tolist())
        number = self._number(tensors, used, n)
        if not used or number is None:
            return
        few = n <= gemv.GEMV_MAX_ROWS
        biases = None if bias_tensors is None else _rows(bias_tensors, x.device)
        x16 = None if few else matmul.fp16_activations(x)
        results = torch.zeros(0 if few else n, top_k, residual.shape[1], device=x.device)
        assert self._feed is not None
        for part in self._feed.parts(number, used):
            stacks = self._ready(part, tensors)
            if x16 is None:
                slots = to_device(chosen.slots(part.experts), x.device)
                some = None if biases is None else _some(biases, part.experts)
                moe_add(x, slots, weights, stacks, residual, some, activation)
            elif (grouped := _groups(chosen, part.experts, x.device)) is not None:
                rows = results.view(n * top_k, -1)
                _products(x16, grouped, stacks, rows, top_k, ids, biases, activation)
            part.buffer.read = self._store.staging.stream.current_mark()
        self._done = number + 1
        if few:
            return
        if biases is not None:
            add_rows(results.view(n * top_k, -1), biases[2], ids.view(-1))
        add_weighted(results, weights, residual)

    def _number(
        self, tensors: tuple[Tensor, Tensor, Tensor], used: frozenset[int], tokens: int
    ) -> int | None:
        """The place of a layer among those that are fetched; None: nobody needs one of it."""
        left = range(self._done, len(self._layers))
        number = next((n for n in left if self._layers[n].tensors[0] is tensors[0]), None)
        if number is None:
            if not used:
                return None
            self.begin([StreamedLayer(tensors, sorted(used))], tokens)
            return 0
        if not used <= set(self._layers[number].experts):
            raise ValueError(f"experts of {tensors[0].name} are chosen that are not fetched")
        return number

    def _fill_of(self, layers: Sequence[StreamedLayer], at_once: Sequence[int]) -> Any:
        """What fills a buffer, for a feed of these layers."""
        staging = self._store.staging

        def fill(number: int, experts: tuple[int, ...], buffer: _Buffer) -> Mark:
            tensors = layers[number].tensors
            staging.stream.after(buffer.read)
            for weight, tensor in zip(
                buffer.stacks(tensors, at_once[number]), tensors, strict=True
            ):
                staging.send(pieces(tensor, experts, weight, 0, staging.block))
            return staging.stream.mark()

        return fill

    def _ready(self, part: Part[_Buffer], tensors: Sequence[Tensor]) -> Stacks:
        """A part's experts, there for the ops that are asked for next."""
        self._store.staging.stream.current_after(part.filled)
        kinds = [(tensor.type, tensor.shape) for tensor in tensors]
        return part.buffer.stacks(tensors, experts_at_once(kinds, self._tokens))

    def _make_buffers(self, size: int) -> None:
        if not self._buffers or len(self._buffers[0].data) < size:
            if self._thread is not None:
                self._thread.submit(int).result()  # nobody fills what goes
            self._store.staging.stream.before_current()
            self._buffers = []
            data = [self._allocator.empty(size) for _ in range(STREAM_BUFFERS)]
            allocated = self._store.staging.stream.current_mark()
            self._buffers = [_Buffer(one, allocated) for one in data]


def _at_once(job: Any) -> None:
    """In Triton's interpreter, which has one thread."""
    job()


def _kinds(layer: StreamedLayer) -> list[Kind]:
    return [(tensor.type, tensor.shape) for tensor in layer.tensors]


def _products(
    x16: Fp16Activations,
    grouped: Groups,
    stacks: Stacks,
    results: X,
    top_k: int,
    ids: X,
    biases: Biases | None,
    activation: int,
) -> None:
    """Write the rows of `results`, (pairs, hidden), that these groups serve, without down's bias."""
    gate, up, down = stacks
    products = [matmul.gathered_gemm(x16, w, grouped, top_k) for w in (gate, up)]
    inner = None if biases is None else biases[:2]
    experts = None if biases is None else ids.view(-1)[grouped.order.long()]
    hidden = activated(products, activation, experts, inner)
    matmul.scattered_gemm(matmul.fp16_activations(hidden), down, grouped, results)


def _rows(tensors: tuple[Tensor, Tensor, Tensor], device: torch.device) -> Biases:
    """A file's biases on the device, (experts, features) each."""
    gate, up, down = (
        to_device(tensor.data.view(np.float32).reshape(len_experts, -1), device)
        for tensor in tensors
        for len_experts in tensor.shape[:1]
    )
    return gate, up, down


def _some(biases: Biases, experts: Sequence[int]) -> Biases:
    """The biases of some experts, in their order."""
    gate, up, down = (rows[list(experts)] for rows in biases)
    return gate, up, down


def _groups(chosen: Chosen, experts: Sequence[int], device: torch.device) -> Groups | None:
    """The pairs and tiles of some experts on the device, in one copy; None where nobody chose them."""
    order, tiles = chosen.groups(experts)
    if not len(order):
        return None
    start = -(-len(order) // 4) * 4  # at 16 bytes, which kernels are compiled for
    together: Ints = np.zeros(start + tiles.size, dtype=np.int32)
    together[: len(order)], together[start:] = order, tiles.reshape(-1)
    there = to_device(together, device)
    return Groups(there[: len(order)], there[start:].view(-1, 3), chosen.size)
