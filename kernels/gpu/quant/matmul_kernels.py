"""The GEMV and the GEMM in Triton, for every type.

Both read a tile of weights once, decode it and use it for all the rows they hold. Nothing dequantised is
ever stored.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.dependents import behind_previous
from kernels.gpu.quant.row_tiles import dot_rows, float_rows


@triton.jit
def _part(
    part,
    tile,
    x,
    numbers,
    factors,
    n,
    cols,
    x_stride,
    DECODE: tl.constexpr,
    DOT: tl.constexpr,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    SPAN: tl.constexpr,
    FLOAT_SPAN: tl.constexpr,
    BLOCKS: tl.constexpr,
    EVEN: tl.constexpr,
    ADD: tl.constexpr,
):
    """One tile of one matrix of `gemv`."""
    y, planes, table, bias, rows = part
    if DOT is None:
        totals = float_rows(
            planes, table, x, x_stride, tl.cast(0, tl.int64), tile, rows, cols, BLOCKS, n,
            DECODE, N, ROWS, FLOAT_SPAN,
        )  # fmt: skip
    else:
        totals = dot_rows(
            planes, table, numbers, factors, tile, rows, n, DOT, N, ROWS, SPAN, BLOCKS, EVEN
        )
    out = tile * ROWS + tl.arange(0, ROWS)
    for t in tl.static_range(N):
        total = totals[t]
        if bias is not None:
            total += tl.load(bias + out, mask=out < rows, other=0.0)
        target = y + t * rows + out
        mask = (out < rows) & (t < n)
        if ADD:
            total += tl.load(target, mask=mask, other=0.0)
        tl.store(target, total, mask=mask)


@triton.jit
def gemv(
    parts,
    tiles,
    x,
    numbers,
    factors,
    n,
    cols,
    x_stride,
    DECODE0: tl.constexpr,
    DECODE1: tl.constexpr,
    DECODE2: tl.constexpr,
    DECODE3: tl.constexpr,
    DOT0: tl.constexpr,
    DOT1: tl.constexpr,
    DOT2: tl.constexpr,
    DOT3: tl.constexpr,
    COUNT: tl.constexpr,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    SPAN: tl.constexpr,
    FLOAT_SPAN: tl.constexpr,
    BLOCKS: tl.constexpr,
    EVEN: tl.constexpr,
    ADD: tl.constexpr,
):
    """y (n, rows) = x (n, cols) @ W.T + bias for up to four matrices of BLOCKS blocks a row, one after another.

    A part is (y, planes, table, bias or None, rows); `tiles` are where the later parts' tiles begin. A
    matrix with a DOT reads the activations in 8 bits. The grid is all parts' tiles.
    """
    zero = behind_previous()
    x, numbers, factors = x + zero, numbers + zero, factors + zero
    at = tl.program_id(0)
    if COUNT == 1 or at < tiles[0]:
        _part(parts[0], at, x, numbers, factors, n, cols, x_stride,
              DECODE0, DOT0, N, ROWS, SPAN, FLOAT_SPAN, BLOCKS, EVEN, ADD)  # fmt: skip
    elif COUNT == 2 or at < tiles[1]:
        _part(parts[1], at - tiles[0], x, numbers, factors, n, cols, x_stride,
              DECODE1, DOT1, N, ROWS, SPAN, FLOAT_SPAN, BLOCKS, EVEN, ADD)  # fmt: skip
    elif COUNT == 3 or at < tiles[2]:
        _part(parts[2], at - tiles[1], x, numbers, factors, n, cols, x_stride,
              DECODE2, DOT2, N, ROWS, SPAN, FLOAT_SPAN, BLOCKS, EVEN, ADD)  # fmt: skip
    else:
        _part(parts[3], at - tiles[2], x, numbers, factors, n, cols, x_stride,
              DECODE3, DOT3, N, ROWS, SPAN, FLOAT_SPAN, BLOCKS, EVEN, ADD)  # fmt: skip


@triton.jit
def expert_gemv(
    y,
    x,
    ids,
    planes,
    table,
    rows,
    cols,
    blocks,
    x_stride,
    matrix_bytes,
    top_k,
    DECODE: tl.constexpr,
    ROWS: tl.constexpr,
    SPAN: tl.constexpr,
):
    """y[p] = x[p // top_k] @ W[ids[p]].T in float32, zero for ids below zero. The grid is (row tiles, pairs)."""
    tile = tl.program_id(0)
    pair = tl.program_id(1)
    expert = tl.load(ids + pair)
    matrix = tl.maximum(expert, 0).to(tl.int64) * matrix_bytes
    x += (pair // top_k) * x_stride
    read = tl.where(expert < 0, 0, blocks)
    out = tile * ROWS + tl.arange(0, ROWS)
    total = tl.zeros([ROWS], tl.float32)
    if read > 0:
        total = float_rows(
            planes, table, x, x_stride, matrix, tile, rows, cols, blocks, 1, DECODE, 1, ROWS, SPAN
        )[0]
    tl.store(y + pair * rows + out, total, mask=out < rows)


# A prompt's number of tokens is any: with one for multiples of 16 there would be two of each kernel.
@triton.jit(do_not_specialize=["n"])
def gemm(
    y,
    x,
    scales,
    order,
    tiles,
    planes,
    table,
    n,
    rows,
    blocks,
    matrix_bytes,
    top_k,
    DECODE: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
    EXPERTS: tl.constexpr,
    READS_ORDERED: tl.constexpr,
    WRITES_ORDERED: tl.constexpr,
    ADD: tl.constexpr,
):
    """y (n, rows) = x (n, cols) @ W.T in float16 with float32 sums, or the same grouped by expert.

    x is (n, 8, blocks, 4): slot k's columns of all blocks lie side by side; `scales` multiply y's rows.
    The grid is (row tiles, token tiles). For experts, token tile i is tiles[i] = (expert, begin, end):
    it takes the pairs order[begin .. min(end, begin + TOKENS)], pair p reading x[p // top_k] and
    writing y[p]. Ordered rows, of x or y, are those of the pairs in the order of `order`.
    """
    first = tl.cast(0, tl.int64)
    limit = blocks
    token = tl.program_id(1) * TOKENS + tl.arange(0, TOKENS)
    if EXPERTS:
        begin = tl.load(tiles + tl.program_id(1) * 3 + 1)
        end = tl.load(tiles + tl.program_id(1) * 3 + 2)
        first = tl.load(tiles + tl.program_id(1) * 3).to(tl.int64) * matrix_bytes
        limit = tl.where(begin < end, blocks, 0)
        position = begin + tl.arange(0, TOKENS)
        live = position < end
        token = tl.load(order + position, mask=live, other=0)
    else:
        live = token < n
    source = (position if READS_ORDERED else token // top_k).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[None, :, None, None]
    lane = tl.arange(0, 4)[None, None, None, :]
    near = tl.arange(0, BLOCKS * 4)[None, :]
    total = tl.zeros([TOKENS, ROWS], tl.float32)
    for start in range(0, limit, BLOCKS):
        block = start + tl.arange(0, BLOCKS)[None, None, :, None]
        mask = (row < rows) & (block < blocks)
        at = row.to(tl.int64) * blocks + block
        w = DECODE(planes, table, first, at, lane, mask, (0, 1, 2, 3, 4, 5, 6, 7))
        here = (start * 4 + near < blocks * 4) & live[:, None]
        for k in tl.static_range(8):
            columns = x + (source[:, None] * 8 + k) * blocks * 4 + start * 4 + near
            left = tl.load(columns, mask=here, other=0.0)
            right = tl.trans(tl.reshape(w[k].to(tl.float16), (ROWS, BLOCKS * 4)))
            total = tl.dot(left, right, total)
    total *= tl.load(scales + source, mask=live, other=0.0)[:, None]
    out = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[None, :]
    written = (position if WRITES_ORDERED else token).to(tl.int64)
    target = y + written[:, None] * rows + out
    mask = live[:, None] & (out < rows)
    if ADD:
        total += tl.load(target, mask=mask, other=0.0)
    tl.store(target, total, mask=mask)
