"""Rotary embedding of queries, with the norm of their heads.

Keys are rotated by the same function on their way to the cache (`kernels.gpu.attention.append`). Angles
are exact at every position: a frequency is kept as a 64-bit fixed-point fraction of a full rotation, so
that position * frequency wraps around by itself, where a float32 product would be off by 0.004 rad at
position 65536.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor as X

from kernels.gpu.attention.batch import Batch, locate
from kernels.ops import Rope

_RADIANS = tl.constexpr(2 * math.pi / 2**32)


@dataclass(frozen=True, slots=True)
class RopeTable:
    """`kernels.ops.Rope` on the device.

    `frequencies` are (pairs,) int64: 2**64 is a full rotation a position.
    """

    frequencies: X
    interleaved: bool
    offset: int
    magnitude: float

    @property
    def pairs(self) -> int:
        return len(self.frequencies)


def rope_table(rope: Rope, device: torch.device | str) -> RopeTable:
    """The table of a plain or YaRN rope; frequencies are radians a position."""
    if not rope.frequencies:
        raise ValueError("a rope without frequencies")
    frequencies = [round(f / (2 * math.pi) * 2**64) % 2**64 for f in rope.frequencies]
    table = torch.from_numpy(np.array(frequencies, np.uint64).view(np.int64)).to(device)
    return RopeTable(table, rope.interleaved, rope.offset, rope.magnitude)


def rotate(x: X, norm: X | None, eps: float, table: RopeTable, offset: int, batch: Batch) -> None:
    """Per head and in place: RMSNorm (when `norm`, (features,)), then rope of the features from `offset`.

    x is (n, heads, features), of any float type and any strides but the last. Rows of padding tokens are
    left alone.
    """
    n, heads, features = x.shape
    check_rows("x", x, n, heads, features)
    check_pairs(table, offset, features)
    _rotate[(n, heads)](
        x,
        x if norm is None else norm,
        table.frequencies,
        batch.lengths,
        batch.offsets,
        *x.stride()[:2],
        eps,
        table.magnitude,
        SEQUENCES=batch.sequences,
        SLOTS=triton.next_power_of_2(batch.sequences),
        FEATURES=features,
        BLOCK=triton.next_power_of_2(features),
        OFFSET=offset,
        PAIRS=table.pairs,
        INTERLEAVED=table.interleaved,
        NORM=norm is not None,
        num_warps=1,
    )


def check_rows(name: str, x: X, *shape: int) -> None:
    """Raise ValueError unless x has this shape and contiguous features."""
    if tuple(x.shape) != shape or x.stride(-1) != 1:
        raise ValueError(f"{name} is {tuple(x.shape)} with strides {x.stride()}, not {shape}")


def check_pairs(table: RopeTable, offset: int, features: int) -> None:
    """Raise ValueError where the rotated features are not all there."""
    if offset < 0 or offset + 2 * table.pairs > features:
        raise ValueError(f"{table.pairs} pairs from {offset} of {features} features")


@triton.jit
def _rotate(
    x: tl.tensor,
    norm: tl.tensor,
    frequencies: tl.tensor,
    lengths: tl.tensor,
    offsets: tl.tensor,
    x_token: tl.tensor,
    x_head: tl.tensor,
    eps: tl.tensor,
    magnitude: tl.tensor,
    SEQUENCES: tl.constexpr,
    SLOTS: tl.constexpr,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
    OFFSET: tl.constexpr,
    PAIRS: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    NORM: tl.constexpr,
) -> None:
    token = tl.program_id(0)
    sequence, position = locate(token, lengths, offsets, SEQUENCES, SLOTS)
    row = x + token.to(tl.int64) * x_token + tl.program_id(1) * x_head
    y = rotated_head(
        row, norm, frequencies, position, eps, magnitude,
        FEATURES, BLOCK, OFFSET, PAIRS, INTERLEAVED, NORM,
    )  # fmt: skip
    tl.debug_barrier()  # a feature's neighbour has read it before it is written
    d = tl.arange(0, BLOCK)
    tl.store(row + d, y.to(x.dtype.element_ty), mask=(d < FEATURES) & (sequence < SEQUENCES))


@triton.jit
def rotated_head(
    row: tl.tensor,
    weight: tl.tensor,
    frequencies: tl.tensor,
    position: tl.tensor,
    eps: tl.tensor,
    magnitude: tl.tensor,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
    OFFSET: tl.constexpr,
    PAIRS: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    NORM: tl.constexpr,
) -> tl.tensor:
    """The normed and rotated features of one head, (BLOCK,) float32. Feature d meets its partner."""
    d = tl.arange(0, BLOCK)
    inside = d < FEATURES
    rotated, first, pair, partner = _partners(d, OFFSET, PAIRS, INTERLEAVED)
    x = tl.load(row + d, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(row + partner, mask=rotated, other=0.0).to(tl.float32)
    if NORM:
        scale = tl.rsqrt(tl.sum(x * x, axis=0) / FEATURES + eps)
        x = x * scale * tl.load(weight + d, mask=inside, other=0.0)
        y = y * scale * tl.load(weight + partner, mask=rotated, other=0.0)
    cos, sin = _turn(frequencies, pair, rotated, position, magnitude)
    return tl.where(rotated, x * cos + tl.where(first, -y, y) * sin, x)


@triton.jit
def rotated_rows(
    rows: tl.tensor,
    real: tl.tensor,
    weight: tl.tensor,
    frequencies: tl.tensor,
    position: tl.tensor,
    eps: tl.tensor,
    magnitude: tl.tensor,
    FEATURES: tl.constexpr,
    BLOCK: tl.constexpr,
    OFFSET: tl.constexpr,
    PAIRS: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    NORM: tl.constexpr,
) -> tl.tensor:
    """The same of several heads at one position, (heads, BLOCK); zeros where not `real`."""
    d = tl.arange(0, BLOCK)[None, :]
    inside = d < FEATURES
    rotated, first, pair, partner = _partners(d, OFFSET, PAIRS, INTERLEAVED)
    x = tl.load(rows[:, None] + d, mask=real[:, None] & inside, other=0.0).to(tl.float32)
    y = tl.load(rows[:, None] + partner, mask=real[:, None] & rotated, other=0.0).to(tl.float32)
    if NORM:
        scale = tl.rsqrt(tl.sum(x * x, axis=1) / FEATURES + eps)[:, None]
        x = x * scale * tl.load(weight + d, mask=inside, other=0.0)
        y = y * scale * tl.load(weight + partner, mask=rotated, other=0.0)
    cos, sin = _turn(frequencies, pair, rotated, position, magnitude)
    return tl.where(rotated, x * cos + tl.where(first, -y, y) * sin, x)


@triton.jit
def _partners(d, OFFSET: tl.constexpr, PAIRS: tl.constexpr, INTERLEAVED: tl.constexpr):
    """Of features d: whether they are rotated, whether they come first in their pair, its number, and the other's."""
    local = d - OFFSET
    rotated = (local >= 0) & (local < 2 * PAIRS)
    if INTERLEAVED:
        pair = local // 2
        first = local % 2 == 0
        partner = d + tl.where(first, 1, -1)
    else:
        first = local < PAIRS
        pair = tl.where(first, local, local - PAIRS)
        partner = d + tl.where(first, PAIRS, -PAIRS)
    return rotated, first, pair, partner


@triton.jit
def _turn(frequencies, pair, rotated, position, magnitude):
    """Cosine and sine of the pairs' angles at a position."""
    fraction = tl.load(frequencies + pair, mask=rotated, other=0) * position.to(tl.int64)
    angle = (fraction >> 32).to(tl.float32) * _RADIANS
    return tl.cos(angle) * magnitude, tl.sin(angle) * magnitude
