"""Matrix products of few rows with weights that stay in their GGUF type on the device: one launch for matrices
that read the same rows.

Rows of activations are float32, (n, cols), contiguous, or 8 bits where a type takes that; results are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import triton
from torch import Tensor as Buffer

from kernels.gpu.dependents import early
from kernels.gpu.quant import matmul_kernels as kernels
from kernels.gpu.quant.q8 import Q8, quantise
from kernels.gpu.quant.weight import PackedWeight

GEMV_MAX_ROWS = 8
"""Rows that the GEMV takes at once; more go to the tensor cores."""
GEMV_MAX_PARTS = 4
"""Matrices that one launch of the GEMV takes."""
_WARPS = 32
"""Warps that every multiprocessor shall have: with fewer, too little is read at a time."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows of a program, blocks of a step, and warps. A warp reads 32 blocks of a row side by side, 512 bytes
    of 4-bit numbers."""

    rows: int
    blocks: int
    warps: int


_INTERPRETED = (Tile(512, 32, 4),)
"""In the interpreter it is programs that take time."""
TILES = Tile(16, 32, 4), Tile(8, 32, 4), Tile(8, 64, 4), Tile(4, 64, 4), Tile(4, 128, 4)
_TILES = _INTERPRETED if triton.knobs.runtime.interpret else TILES


def tile_for(
    rows: int,
    blocks: int,
    products: int,
    device: torch.device,
    tiles: tuple[Tile, ...] | None = None,
) -> Tile:
    """The first of the tiles (of TILES, if none are given) that gives so many products of so many rows warps
    enough, or the last. But for the first, none reads more blocks at a time than a row has."""
    wanted = _WARPS * multiprocessors(device)
    first, *others = tiles or _TILES
    usable = [first, *(tile for tile in others if tile.blocks < 2 * max(32, blocks))]
    for tile in usable:
        if -(-rows // tile.rows) * products * tile.warps >= wanted:
            return tile
    return usable[-1]


def _float_span(tile: Tile) -> int:
    """Blocks that a step in float32 reads: each thread has the four lanes of one block of one row."""
    return max(8, 32 * tile.warps // tile.rows)


@dataclass(frozen=True, slots=True)
class Rows:
    """Few rows of activations, (n, cols), and the same in 8 bits where a product wants them; which may be all that
    there is, their numbers then standing for both."""

    x: Buffer
    q8: Q8 | None = None

    @classmethod
    def of(cls, x: Buffer | Q8) -> Rows:
        """Rows in float32, or such as are there in 8 bits only."""
        return cls(x.numbers, x) if isinstance(x, Q8) else cls(x)

    def for_weights(self, weights: Sequence[PackedWeight]) -> Rows:
        """The same, in 8 bits too if one of the weights reads that."""
        if self.q8 is None and any(weight.dot is not None for weight in weights):
            return Rows(self.x, quantise(self.x))
        return self


def gemv(
    x: Buffer | Rows,
    weights: Sequence[PackedWeight],
    out: Buffer | None = None,
    biases: Sequence[Buffer | None] | None = None,
) -> list[Buffer]:
    """x (1 to 8, cols) @ W.T + bias of up to four weights in one launch, added to `out` (n, rows) when given,
    which is for one weight: (n, rows) each.
    """
    given = (x if isinstance(x, Rows) else Rows(x)).for_weights(weights)
    x, q8, n, first = given.x, given.q8, len(given.x), weights[0]
    for weight in weights:
        _check(x, weight, 1, GEMV_MAX_ROWS)
    if len(weights) > GEMV_MAX_PARTS or (out is not None and len(weights) > 1):
        raise ValueError(f"{len(weights)} weights in one launch")
    assert out is None or out.is_contiguous()
    outs = [out] if out is not None else [
        torch.empty(n, weight.rows, device=x.device) for weight in weights
    ]  # fmt: skip
    tile = tile_for(sum(weight.rows for weight in weights), first.blocks, 1, x.device)
    tiles = np.cumsum([-(-weight.rows // tile.rows) for weight in weights]).tolist()
    parts = tuple(
        (y, weight.planes, weight.table, bias, weight.rows)
        for y, weight, bias in zip(outs, weights, biases or [None] * len(weights), strict=True)
    )
    spare: list[None] = [None] * (GEMV_MAX_PARTS - len(weights))
    decodes = [None if weight.dot else weight.format.decode for weight in weights] + spare
    dots = [weight.dot for weight in weights] + spare
    numbers, factors = (x, x) if q8 is None else (q8.numbers.view(torch.int32), q8.factors)
    kernels.gemv[(tiles[-1],)](
        *(parts, tuple(tiles[:-1]) or (0,), x, numbers, factors, n, first.cols, x.stride(0)),
        *(*decodes, *dots),
        COUNT=len(weights),
        N=1 << (n - 1).bit_length(),
        ROWS=tile.rows,
        SPAN=tile.blocks,
        FLOAT_SPAN=_float_span(tile),
        BLOCKS=first.blocks,
        EVEN=all(weight.rows % tile.rows == 0 for weight in weights),
        ADD=out is not None,
        num_warps=tile.warps,
        **early(x.device),
    )
    return outs


def gemvs(
    x: Buffer | Rows, weights: Sequence[PackedWeight], biases: Sequence[Buffer | None]
) -> list[Buffer]:
    """The same of any number of weights, in as few launches as take them."""
    rows = (x if isinstance(x, Rows) else Rows(x)).for_weights(weights)
    parts = (
        slice(first, first + GEMV_MAX_PARTS) for first in range(0, len(weights), GEMV_MAX_PARTS)
    )
    return [y for part in parts for y in gemv(rows, weights[part], biases=biases[part])]


def expert_gemv(x: Buffer, weight: PackedWeight, ids: Buffer) -> Buffer:
    """y[p] = x[p // (pairs / len(x))] @ W[ids[p]].T for every pair p, in float32: (pairs, rows).

    `ids`, (pairs,) int32 on the device, are indices of the weight's matrices; below zero means
    that the expert is not here: its row of y is zero.
    """
    pairs = len(ids)
    _check(x, weight, 1, pairs)
    if pairs % len(x):
        raise ValueError(f"{pairs} pairs are no multiple of {len(x)} rows")
    tile = tile_for(weight.rows, weight.blocks, pairs, x.device)
    y = torch.empty(pairs, weight.rows, device=x.device)
    kernels.expert_gemv[(-(-weight.rows // tile.rows), pairs)](
        *(y, x, ids, weight.planes, weight.table, weight.rows, weight.cols, weight.blocks),
        *(x.stride(0), weight.data.stride(0), pairs // len(x)),
        DECODE=weight.format.decode,
        ROWS=tile.rows,
        SPAN=_float_span(tile),
        num_warps=tile.warps,
    )
    return y


@cache
def multiprocessors(device: torch.device) -> int:
    """The device's; 0 on the CPU."""
    if device.type != "cuda":
        return 0
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


def _check(x: Buffer, weight: PackedWeight, least: int, most: int) -> None:
    if x.ndim != 2 or x.shape[1] != weight.cols or not least <= len(x) <= most:
        raise ValueError(f"activations {tuple(x.shape)} do not fit weights {weight.shape}")
    assert x.stride(1) == 1
