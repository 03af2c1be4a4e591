"""Attention that sees a window, with and without sinks, over a ring: a sequence in chunks, beside the textbook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kernels.ops import CacheKind, CacheShape, Floats, Rope, Tensor
from kernels.quants import BY_NAME
from kernels.window import WindowPages

KV_HEADS, HEADS, HEAD = 2, 4, 32
NO_ROPE = Rope((0.0,), False)


class Reading(NamedTuple):
    """A sequence that is read in `chunks` of tokens."""

    window: int
    chunks: Sequence[int]
    page_size: int = 16
    sinks: bool = True

    @property
    def ring(self) -> int:
        """The least ring that its chunks allow."""
        return -(-(self.window + max(self.chunks) - 1) // self.page_size)


CASES = {
    "one position": Reading(1, [1, 5, 20, 1]),
    "a page's edge": Reading(16, [15, 1, 1, 16, 17, 1]),
    "around the ring": Reading(40, [64, 1, 33, 50, 1, 1, 64, 3, 64]),
    "no whole pages": Reading(21, [7, 33, 1, 30, 2]),
    "decoding around the ring": Reading(8, [1] * 75),
    "longer than the prompt": Reading(200, [40, 1, 20, 1]),
    "no sinks": Reading(33, [40, 1, 20], sinks=False),
    "sinks without a window": Reading(0, [30, 1, 20, 1]),
    "several ranges": Reading(300, [512, 1, 200, 1], 32),
}


def run(
    ops: Any, convert: Callable[[Floats], Any], of: Reading, kind: CacheKind = "f16"
) -> list[Any]:
    """Each chunk's attention, layer 1 of 2; the ring's pages are not the sequence's."""
    length = sum(of.chunks)
    rng = np.random.default_rng(3)
    rows = [
        rng.standard_normal((length, n * HEAD), np.float32) for n in (HEADS, KV_HEADS, KV_HEADS)
    ]
    pages = -(-length // of.page_size)
    ring = of.ring if of.window else 0
    shape = CacheShape(2, max(pages, ring) + 2, of.page_size, KV_HEADS, HEAD, HEAD, kind, ring)
    cache, table = ops.kv_cache(shape), np.arange(pages, dtype=np.int32)[::-1].copy()
    sinks = np.linspace(-2.0, 3.0, HEADS, dtype=np.float32)
    tensor = Tensor("sinks", BY_NAME["F32"], (HEADS,), sinks.view(np.uint8))
    seen = of.window, ops.vector(tensor) if of.sinks else None
    out, start = [], 0
    for count in of.chunks:
        q, k, v = (convert(part[start : start + count].copy()) for part in rows)
        ops.rope_append(q, k, v, None, 1e-6, NO_ROPE, cache, 1, table, start)
        out.append(ops.attention(q, HEADS, 0.3, cache, 1, table, start, *seen))
        start += count
    return out


def textbook(of: Reading) -> Floats:
    """The same in float64, position by position: (length, HEADS * HEAD)."""
    length = sum(of.chunks)
    rng = np.random.default_rng(3)
    q, k, v = (
        rng.standard_normal((length, n * HEAD), np.float32).reshape(length, n, HEAD)
        for n in (HEADS, KV_HEADS, KV_HEADS)
    )
    sinks = np.linspace(-2.0, 3.0, HEADS)
    out = np.empty((length, HEADS, HEAD))
    for token in range(length):
        first = max(0, token + 1 - of.window) if of.window else 0
        for head in range(HEADS):
            kv = head * KV_HEADS // HEADS
            weights = np.exp(0.3 * (k[first : token + 1, kv] @ q[token, head].astype(np.float64)))
            total = weights.sum() + (np.exp(sinks[head]) if of.sinks else 0.0)
            out[token, head] = weights @ v[first : token + 1, kv] / total
    return out.reshape(length, -1).astype(np.float32)


def check_copies(window: int, page_size: int) -> None:
    """A copy of a ring has all that the token at its position sees, in pages of its own."""
    pages = WindowPages(window, page_size)
    for position in range(1, 3 * pages.ring * page_size):
        for slot in (1, 3):
            copied = pages.of_copy(slot, position)
            rings, kept = (list(side) for side in zip(*copied, strict=True)) if copied else ([], [])
            first = pages.ring + (slot - 1) * pages.copy
            assert all(first <= page < first + pages.copy for page in kept)
            assert len(set(rings)) == len(rings) and max(rings, default=0) < pages.ring
            seen = range(max(0, position - window + 1), position)
            assert {p // page_size % pages.ring for p in seen} <= set(rings)
