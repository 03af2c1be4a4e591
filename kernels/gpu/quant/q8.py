"""Activations in 8 bits (after ggml's Q8_1), for products of four bytes at once.

Every 32 columns have a scale, their largest magnitude over 127, in float32; beside it lie the sums of both
halves and of all, which a type's offsets are multiplied with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor as X
from torch.utils.weak import WeakTensorKeyDictionary

from kernels.gpu.dependents import behind_previous, early
from kernels.gpu.sizes import BLOCK

_BLOCK = tl.constexpr(BLOCK)
_COLUMNS = 1024


@dataclass(frozen=True, slots=True)
class Q8:
    """Rows of activations: `numbers` (n, cols) int8, in each block the groups (j, h) of `layout` as words
    4 h + j; `factors` (n, blocks, 4) float32: the scale, and it times the sums of half 0, of half 1, of both."""

    numbers: X
    factors: X

    @classmethod
    def empty(cls, n: int, cols: int, device: torch.device) -> Q8:
        """For n rows of so many columns, whole blocks."""
        numbers = torch.empty(n, cols, dtype=torch.int8, device=device)
        return cls(numbers, torch.empty(n, cols // BLOCK, 4, device=device))


class KnownQ8:
    """What kernels have written in 8 bits beside the float32 rows that they were asked for, as long as those
    live. Who changes rows in place must `forget` them."""

    def __init__(self) -> None:
        self._of: Any = WeakTensorKeyDictionary()

    def make(self, x: X) -> Q8 | None:
        """Room beside x (n, cols), to be written by whoever writes x; None where its columns are no blocks."""
        if x.shape[1] % BLOCK:
            return None
        n, cols = x.shape
        q8 = Q8.empty(n, cols, x.device)
        self._of[x] = q8
        return q8

    def get(self, x: X) -> Q8 | None:
        """x in 8 bits, if it is known."""
        known: Q8 | None = self._of.get(x)
        return known

    def forget(self, x: X) -> None:
        """x is changed."""
        self._of.pop(x, None)


def quantise(x: X) -> Q8:
    """x (n, cols) float32 in 8 bits. Columns are whole blocks; rows may be strided."""
    n, cols = x.shape
    if cols % BLOCK or x.stride(1) != 1:
        raise ValueError(f"{cols} columns are no blocks of {BLOCK}")
    made = Q8.empty(n, cols, x.device)
    columns = min(_COLUMNS, triton.next_power_of_2(cols))
    _quantise[(n, triton.cdiv(cols, columns))](
        *(x, made.numbers, made.factors, x.stride(0)),
        COLS=cols,
        COLUMNS=columns,
        num_warps=4,
        **early(x.device),
    )
    return made


@triton.jit
def store_q8(values, first, numbers, factors, COLS: tl.constexpr, COLUMNS: tl.constexpr):
    """Store values (COLUMNS,) float32, those of the columns first .. of one row of `COLS`, in 8 bits.

    `numbers` and `factors` are the row's. Blocks are whole: what lies beyond COLS is not stored.
    """
    BLOCKS: tl.constexpr = COLUMNS // _BLOCK
    blocks = tl.reshape(values, [BLOCKS, _BLOCK])
    scale = tl.math.div_rn(tl.max(tl.abs(blocks), axis=1), 127.0)
    inverse = tl.where(scale == 0.0, 0.0, tl.math.div_rn(1.0, tl.where(scale == 0.0, 1.0, scale)))
    y = blocks * inverse[:, None]
    rounded = (y + tl.where(y < 0.0, -0.5, 0.5)).to(tl.int32)
    halves = tl.sum(tl.reshape(rounded, [BLOCKS, 2, _BLOCK // 2]), axis=2).to(tl.float32)
    block = first // _BLOCK + tl.arange(0, BLOCKS)
    inside = block < COLS // _BLOCK
    c = tl.arange(0, _BLOCK)[None, :]
    place = c // 16 * 16 + c % 4 * 4 + c // 4 % 4
    tl.store(numbers + block[:, None] * _BLOCK + place, rounded.to(tl.int8), mask=inside[:, None])
    half = tl.arange(0, 2)[None, :]
    to_factors = factors + block * 4
    tl.store(to_factors, scale, mask=inside)
    tl.store(to_factors[:, None] + 1 + half, halves * scale[:, None], mask=inside[:, None])
    tl.store(to_factors + 3, tl.sum(halves, axis=1) * scale, mask=inside)


@triton.jit
def _quantise(x, numbers, factors, x_stride, COLS: tl.constexpr, COLUMNS: tl.constexpr):
    behind_previous()
    row = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * COLUMNS
    d = first + tl.arange(0, COLUMNS)
    values = tl.load(x + row * x_stride + d, mask=d < COLS, other=0.0).to(tl.float32)
    numbers += row * COLS
    factors += row * (COLS // _BLOCK) * 4
    store_q8(values, first, numbers, factors, COLS, COLUMNS)
