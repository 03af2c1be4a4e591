"""Page lists as flashinfer wants them, and the device buffers that its plans copy them to.

Buffers belong to the plan: they are made once for `max_sequences`, and every batch size gets a view of
exactly its own length. flashinfer copies into them whole, so that a buffer of any other length fails at the
first step ("size of tensor a (4) must match the size of tensor b (5)").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor as X

from kernels.ops import Ints


@dataclass(frozen=True, slots=True)
class PageIndex:
    """The pages of a batch as flashinfer lists them: int32 on the host.

    Sequence s owns `indices[indptr[s] : indptr[s + 1]]`; the last of them holds `last[s]` positions, at
    least 1. `lengths` counts the positions, new tokens included.
    """

    indptr: X
    indices: X
    last: X
    lengths: X

    def on(self, device: torch.device) -> PageIndex:
        """The same where plans copy it from without waiting for the device: pinned, `indices` on it."""
        indices = pinned(self.indices, device).to(device, non_blocking=True)
        small = (pinned(part, device) for part in (self.indptr, self.last, self.lengths))
        indptr, last, lengths = small
        return PageIndex(indptr, indices, last, lengths)


def pinned(x: X, device: torch.device) -> X:
    """x in pinned memory where the device copies from that; torch keeps it until it has been read."""
    return x.pin_memory() if device.type == "cuda" else x


def page_index(lengths: Sequence[int], pages: Sequence[Ints], page_size: int) -> PageIndex:
    """The index of sequences of these lengths (not positions) on these pages.

    Raises ValueError for an empty sequence and for one with fewer pages than its length needs.
    """
    if not lengths or len(lengths) != len(pages):
        raise ValueError(f"{len(lengths)} lengths for {len(pages)} page lists")
    used = [-(-length // page_size) for length in lengths]
    for length, count, row in zip(lengths, used, pages, strict=True):
        if length < 1 or count > len(row):
            raise ValueError(f"{length} positions on {len(row)} pages of {page_size}")
    return PageIndex(
        _int32(np.cumsum([0, *used])),
        _int32(np.concatenate([row[:count] for row, count in zip(pages, used, strict=True)])),
        _int32([(length - 1) % page_size + 1 for length in lengths]),
        _int32(lengths),
    )


def _int32(values: Any) -> X:
    return torch.from_numpy(np.asarray(values, np.int32))


@dataclass(frozen=True, slots=True)
class IndexBuffers:
    """Device buffers that graphs read, for up to `max_sequences` sequences of `max_pages` pages.

    `queries` and `indptr` have max_sequences + 1 entries, `last` and `lengths` max_sequences, `indices`
    max_sequences * max_pages: sequences that share a prefix list its pages once each.
    """

    queries: X
    indptr: X
    indices: X
    last: X
    lengths: X

    @classmethod
    def allocate(
        cls, max_sequences: int, max_pages: int, device: torch.device | str
    ) -> IndexBuffers:
        if max_sequences < 1 or max_pages < 1:
            raise ValueError(f"buffers for {max_sequences} sequences of {max_pages} pages")
        n = max_sequences
        sizes = (n + 1, n + 1, n * max_pages, n, n)
        return cls(*(torch.zeros(size, dtype=torch.int32, device=device) for size in sizes))

    def first(self, sequences: int) -> IndexBuffers:
        """Views for a batch of exactly `sequences` sequences, on the same memory."""
        if not 1 <= sequences <= len(self.last):
            raise ValueError(f"{sequences} sequences in buffers for {len(self.last)}")
        return IndexBuffers(
            self.queries[: sequences + 1],
            self.indptr[: sequences + 1],
            self.indices,
            self.last[:sequences],
            self.lengths[:sequences],
        )


def query_offsets(queries: Sequence[int], lengths: Sequence[int]) -> X:
    """Where each sequence's tokens begin, (sequences + 1,)."""
    if len(queries) != len(lengths) or any(
        not 1 <= new <= length for new, length in zip(queries, lengths, strict=False)
    ):
        raise ValueError(f"{list(queries)} new tokens of {list(lengths)} positions")
    return _int32(np.cumsum([0, *queries]))
