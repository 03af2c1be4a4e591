"""Matrix products of many rows with weights that stay in their GGUF type on the device, on the tensor cores.

`gemv` has those of few rows. Results are float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor as Buffer

from kernels.gpu.quant import matmul_kernels as kernels
from kernels.gpu.quant.layout import SLOTS
from kernels.gpu.quant.weight import PackedWeight
from kernels.gpu.sizes import BLOCK

_GEMM_ROWS = 64
_GEMM_BLOCKS = {16: 8, 32: 8, 64: 8, 128: 4}
"""Blocks of a step by tokens of a tile: with eight for 128 tokens, registers spill (Q5_0: 1064 bytes on sm_89)."""
_STAGES = 2
"""Loads of the next blocks run beside the products of these; three stages outgrow 99 KB a program."""


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
