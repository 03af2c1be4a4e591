"""Which tokens of a pass belong to which sequence, as device tensors that kernels and graphs read.

A kernel finds a token's sequence, position and page here. Positions are never passed to it: each is derived
from its sequence's length, new tokens included. A kernel that takes both once mixed them up, so that a new
token could not attend to itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor as X

from kernels.ops import Ints


@dataclass(frozen=True, slots=True)
class Batch:
    """`tokens` new tokens of up to `len(lengths)` sequences, one after another.

    `lengths` (sequences,) counts the positions of each sequence, the new tokens included. Tokens
    `offsets[s] .. offsets[s + 1] - 1` are the last ones of sequence s; tokens from `offsets[-1]` on are
    padding that every kernel leaves alone. Position p of sequence s lives in page `pages[s, p // size]`.
    All are int32. A graph captures these tensors; `write` refills them in place.
    """

    lengths: X
    offsets: X
    pages: X

    @classmethod
    def allocate(cls, sequences: int, max_pages: int, device: torch.device | str) -> Batch:
        """Tensors for `sequences` sequences of at most `max_pages` pages, without tokens."""
        if sequences < 1 or max_pages < 1:
            raise ValueError(f"a batch of {sequences} sequences with {max_pages} pages")
        sizes: tuple[tuple[int, ...], ...] = (
            (sequences,),
            (sequences + 1,),
            (sequences, max_pages),
        )
        return cls(*(torch.zeros(size, dtype=torch.int32, device=device) for size in sizes))

    @property
    def sequences(self) -> int:
        return len(self.lengths)

    def write(
        self, lengths: Sequence[int], queries: Sequence[int], pages: Sequence[Ints], page_size: int
    ) -> None:
        """Sequence s has `lengths[s]` positions, `queries[s]` of them new, on `pages[s]`.

        Slots left over hold no tokens. Raises ValueError where a sequence has fewer positions than new
        tokens, or fewer pages than positions need.
        """
        if not len(lengths) == len(queries) == len(pages) <= self.sequences:
            raise ValueError(f"{len(lengths)} sequences for a batch of {self.sequences}")
        table = np.zeros(self.pages.shape, np.int32)
        for s, (length, new, row) in enumerate(zip(lengths, queries, pages, strict=True)):
            used = -(-length // page_size)
            if not 0 <= new <= length or not used <= min(len(row), table.shape[1]):
                raise ValueError(f"{new} new of {length} positions on {len(row)} pages")
            table[s, :used] = row[:used]
        spare = [0] * (self.sequences - len(lengths))
        offsets = np.concatenate([[0], np.cumsum([*queries, *spare])]).astype(np.int32)
        self.lengths.copy_(torch.from_numpy(np.array([*lengths, *spare], np.int32)))
        self.offsets.copy_(torch.from_numpy(offsets))
        self.pages.copy_(torch.from_numpy(table))


@triton.jit
def locate(
    token: tl.tensor,
    lengths: tl.tensor,
    offsets: tl.tensor,
    SEQUENCES: tl.constexpr,
    SLOTS: tl.constexpr,
) -> tl.tensor:
    """(sequence, position) of a token; the sequence is SEQUENCES for padding.

    SLOTS is SEQUENCES rounded up to a power of two.
    """
    slot = tl.arange(0, SLOTS)
    ends = tl.load(offsets + 1 + slot, mask=slot < SEQUENCES, other=2147483647)
    sequence = tl.sum((ends <= token).to(tl.int32), axis=0)
    real = sequence < SEQUENCES
    length = tl.load(lengths + sequence, mask=real, other=0)
    end = tl.load(offsets + sequence + 1, mask=real, other=0)
    return sequence, length - (end - token)


@triton.jit
def kv_slot(
    sequence: tl.tensor,
    position: tl.tensor,
    inside: tl.tensor,
    pages: tl.tensor,
    pages_stride: tl.tensor,
    PAGE_SIZE: tl.constexpr,
    RING: tl.constexpr,
) -> tl.tensor:
    """(page, slot) of a sequence's positions, the page as int64; page 0 where not `inside`.

    They go round in RING pages; 0: they are in the sequence's.
    """
    number = position // PAGE_SIZE
    if RING:
        page = tl.where(inside, number % RING, 0).to(tl.int64)
    else:
        entry = pages + sequence * pages_stride + number
        page = tl.load(entry, mask=inside, other=0).to(tl.int64)
    return page, position % PAGE_SIZE
