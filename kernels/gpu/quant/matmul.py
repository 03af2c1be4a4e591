"""Matrix products with weights that stay in their GGUF type on the device: GEMV for few rows, GEMM for many.

Rows of activations are float32 or float16, (n, cols), contiguous; results are float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor as Buffer

from kernels.gpu.quant import matmul_kernels as kernels
from kernels.gpu.quant.layout import SLOTS
from kernels.gpu.quant.weight import PackedWeight
from kernels.gpu.sizes import BLOCK

GEMV_MAX_ROWS = 8
"""Rows that the GEMV takes at once; more go to the tensor cores."""
_GEMV_ROWS = {1: 16, 2: 16, 4: 16, 8: 8}
"""Rows of a tile by rows of activations: more sums for eight would not fit a thread's registers."""
_GEMV_BLOCKS = 8
_GEMM_ROWS = 64
_GEMM_BLOCKS = {16: 8, 32: 8, 64: 8, 128: 4}
"""Blocks of a step by tokens of a tile: with eight for 128 tokens, registers spill (Q5_0: 1064 bytes on sm_89)."""
_STAGES = 2
"""Loads of the next blocks run beside the products of these; three stages outgrow 99 KB a program."""
# ---- few rows --------------------------------------------------------------------------------------


def gemv(
    x: Buffer, weight: PackedWeight, out: Buffer | None = None, splits: int | None = None
) -> Buffer:
    """x (1 to 8, cols) @ W.T, added to `out` (n, rows) when given: (n, rows).

    `splits` cuts the columns between programs; chosen when None so that a small matrix fills the GPU.
    Partial sums are added in a fixed order: the same bits every time.
    """
    _check(x, weight, 1, GEMV_MAX_ROWS)
    return _gemv(x, weight, None, len(x), out, splits)


def expert_gemv(x: Buffer, weight: PackedWeight, ids: Buffer, splits: int | None = None) -> Buffer:
    """y[p] = x[p // (pairs / len(x))] @ W[ids[p]].T for every pair p: (pairs, rows).

    `ids`, (pairs,) int32 on the device, are indices of the weight's matrices; below zero means
    that the expert is not here: its row of y is zero.
    """
    _check(x, weight, 1, len(ids))
    if len(ids) % len(x):
        raise ValueError(f"{len(ids)} pairs are no multiple of {len(x)} rows")
    return _gemv(x, weight, ids, 1, None, splits)


def _gemv(
    x: Buffer,
    weight: PackedWeight,
    ids: Buffer | None,
    n: int,
    out: Buffer | None,
    splits: int | None,
) -> Buffer:
    assert out is None or out.is_contiguous()
    pairs = 1 if ids is None else len(ids)
    width = 1 << (n - 1).bit_length()
    rows, blocks = _GEMV_ROWS[width], _GEMV_BLOCKS
    tiles = -(-weight.rows // rows)
    steps = -(-weight.blocks // blocks)
    span = -(-steps // (splits or _splits(tiles * pairs, steps, x.device))) * blocks
    used = -(-weight.blocks // span)
    shape = (n if ids is None else pairs, weight.rows)
    direct = out if used == 1 else None
    y = torch.empty((used, *shape), device=x.device) if direct is None else direct
    kernels.gemv[(tiles, used, pairs)](
        *(y, x, ids, weight.planes, weight.table, shape[0], weight.rows, weight.cols),
        *(weight.blocks, x.stride(0), weight.data.stride(0), 1 if ids is None else pairs // len(x)),
        span,
        DECODE=weight.format.decode,
        N=width,
        ROWS=rows,
        BLOCKS=blocks,
        EXPERTS=ids is not None,
        ADD=direct is not None,
    )
    if direct is not None:
        return direct
    total = y[0] if used == 1 else y.sum(0)
    return total if out is None else out.add_(total)


def _splits(programs: int, steps: int, device: torch.device) -> int:
    """As many cuts as give every multiprocessor four programs, where there are steps to cut."""
    wanted = 4 * multiprocessors(device)
    return max(1, min(steps, -(-wanted // programs) if programs < wanted else 1))


@cache
def multiprocessors(device: torch.device) -> int:
    """The device's; 0 on the CPU."""
    if device.type != "cuda":
        return 0
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


# ---- many rows -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fp16Activations:
    """Activations for the tensor cores: float16, (n, 8, blocks, 4), and what to multiply rows by.

    Each row is divided by a power of two that brings its largest magnitude to 2^14 .. 2^15, so that
    nothing overflows float16 and little falls below its normal numbers. Made once for all the weights
    that read the same activations.
    """

    values: Buffer
    scales: Buffer


def fp16_activations(x: Buffer) -> Fp16Activations:
    """Activations (n, cols) made ready for `gemm` and `grouped_gemm`."""
    blocks = -(-x.shape[1] // BLOCK)
    x = torch.nn.functional.pad(x.float(), (0, blocks * BLOCK - x.shape[1]))
    exponents = torch.frexp(x.abs().amax(-1, keepdim=True)).exponent.clamp(min=-100) - 15
    values = torch.ldexp(x, -exponents).to(torch.float16)
    # Column 32 b + 4 k + j of the file is slot k, block b, lane j.
    values = values.view(len(x), blocks, SLOTS, 4).transpose(1, 2).contiguous()
    scales = torch.ldexp(torch.ones_like(exponents, dtype=torch.float32), exponents)
    return Fp16Activations(values, scales.view(-1))


@dataclass(frozen=True, slots=True)
class Groups:
    """Pairs of token and expert in the order of their experts, cut into tiles of at most `size`.

    `order` (pairs,) int32; `tiles` (most tiles there can be, 3) int32: expert, begin, end, the last
    two within `order`. Tiles that are not needed begin at their end.
    """

    order: Buffer
    tiles: Buffer
    size: int


def groups(ids: Buffer, experts: int) -> Groups:
    """Group pairs by ids, (pairs,) on the device, of 0 .. experts - 1; ids below zero are left out.

    Nothing is read back, so the device never waits. After vLLM's moe_align_block_size.
    """
    pairs = len(ids)
    size = 16 if pairs <= 16 * experts else 32 if pairs <= 32 * experts else 64
    keys, order = torch.sort(ids.long(), stable=True)
    edges = torch.searchsorted(keys, torch.arange(experts + 1, device=ids.device))
    counts = (edges[1:] - edges[:-1] + size - 1) // size
    ends = counts.cumsum(0)
    numbers = torch.arange(pairs // size + min(pairs, experts), device=ids.device)
    expert = torch.searchsorted(ends, numbers, right=True)
    known = expert.clamp(max=experts - 1)
    begin = edges[known] + (numbers - (ends - counts)[known]) * size
    end = torch.where(expert < experts, torch.minimum(edges[known + 1], begin + size), begin)
    tiles = torch.stack([known, begin, end], dim=1)
    return Groups(order.int(), tiles.int().contiguous(), size)


def gemm(x: Fp16Activations, weight: PackedWeight, out: Buffer | None = None) -> Buffer:
    """x @ W.T with float16 inputs and float32 sums, added to `out` (n, rows) when given: (n, rows)."""
    n = len(x.values)
    # Float32 weights fill the shared memory that more rows would need.
    size = 16 if n <= 16 else 32 if n <= 32 else 64 if n <= 512 or weight.type.bytes == 4 else 128
    y = torch.empty(n, weight.rows, device=x.values.device) if out is None else out
    return _gemm(y, x, weight, None, -(-n // size), size, add=out is not None)


def grouped_gemm(x: Fp16Activations, weight: PackedWeight, grouped: Groups) -> Buffer:
    """y[p] = x[p // (pairs / n)] @ W[ids[p]].T for every pair p: (pairs, rows), zero where left out."""
    y = torch.zeros(len(grouped.order), weight.rows, device=x.values.device)
    top_k = len(y) // len(x.values)
    return _gemm(y, x, weight, grouped, len(grouped.tiles), grouped.size, False, top_k)


def gathered_gemm(x: Fp16Activations, weight: PackedWeight, grouped: Groups, top_k: int) -> Buffer:
    """The same products in the order of `grouped`, which may hold some of the pairs: pair p reads
    x[p // top_k]. (len(order), rows)
    """
    y = torch.empty(len(grouped.order), weight.rows, device=x.values.device)
    tiles = len(grouped.tiles)
    return _gemm(y, x, weight, grouped, tiles, grouped.size, False, top_k, writes_ordered=True)


def scattered_gemm(x: Fp16Activations, weight: PackedWeight, grouped: Groups, out: Buffer) -> None:
    """Rows of x in the order of `grouped`, as `gathered_gemm` leaves them, to out[p] of their pairs p."""
    tiles = len(grouped.tiles)
    _gemm(out, x, weight, grouped, tiles, grouped.size, False, reads_ordered=True)


def _gemm(
    y: Buffer,
    x: Fp16Activations,
    weight: PackedWeight,
    grouped: Groups | None,
    tiles: int,
    size: int,
    add: bool,
    top_k: int = 1,
    reads_ordered: bool = False,
    writes_ordered: bool = False,
) -> Buffer:
    n = len(x.values)
    assert x.values.shape[2] == weight.blocks and y.is_contiguous()
    kernels.gemm[(-(-weight.rows // _GEMM_ROWS), tiles)](
        *(y, x.values, x.scales),
        *(None, None) if grouped is None else (grouped.order, grouped.tiles),
        *(weight.planes, weight.table, n, weight.rows, weight.blocks),
        *(weight.data.stride(0), top_k),
        DECODE=weight.format.decode,
        TOKENS=size,
        ROWS=_GEMM_ROWS,
        BLOCKS=_GEMM_BLOCKS[size],
        EXPERTS=grouped is not None,
        READS_ORDERED=reads_ordered,
        WRITES_ORDERED=writes_ordered,
        ADD=add,
        num_warps=8 if size >= 64 else 4,
        num_stages=_STAGES,
    )
    return y


def linear(x: Buffer, weight: PackedWeight, out: Buffer | None = None) -> Buffer:
    """x (n, cols) @ W.T by whichever product suits n, added to `out` when given: (n, rows)."""
    return (
        gemv(x, weight, out) if len(x) <= GEMV_MAX_ROWS else gemm(fp16_activations(x), weight, out)
    )


def _check(x: Buffer, weight: PackedWeight, least: int, most: int) -> None:
    if x.ndim != 2 or x.shape[1] != weight.cols or not least <= len(x) <= most:
        raise ValueError(f"activations {tuple(x.shape)} do not fit weights {weight.shape}")
    assert x.stride(1) == 1
