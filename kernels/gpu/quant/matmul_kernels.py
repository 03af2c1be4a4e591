"""The GEMV and the GEMM in Triton, for every type.

Both read a tile of weights once, decode it and use it for all the rows they hold. Nothing dequantised is
ever stored.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _accumulate(total, w, x, block, lane, cols, n, t: tl.constexpr, N: tl.constexpr):
    """total + w * x[t], elementwise; as it was for a token beyond N."""
    if t < N:
        for k in tl.static_range(8):
            col = block * 32 + 4 * k + lane
            values = tl.load(x + col, mask=(col < cols) & (t < n), other=0.0)
            total += w[k] * values.to(tl.float32)
    return total


@triton.jit
def gemv(
    y,
    x,
    ids,
    planes,
    table,
    n,
    rows,
    cols,
    blocks,
    x_stride,
    matrix_bytes,
    top_k,
    span,
    DECODE: tl.constexpr,
    N: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCKS: tl.constexpr,
    EXPERTS: tl.constexpr,
    ADD: tl.constexpr,
):
    """y (splits, n, rows) = x (n, cols) @ W.T, or for experts y[p] = x[p // top_k] @ W[ids[p]].T.

    The grid is (row tiles, splits, pairs or 1); split s takes the blocks s * span .. (s + 1) * span.
    Every thread keeps its own sums over the columns that it reads; they are added up once, at the end.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[None, :, None, None]
    lane = tl.arange(0, 4)[None, None, None, :]
    begin = tl.program_id(1) * span
    end = tl.minimum(begin + span, blocks)
    first = tl.cast(0, tl.int64)
    y += tl.program_id(1) * n * rows
    if EXPERTS:
        pair = tl.program_id(2)
        expert = tl.load(ids + pair)
        first = tl.maximum(expert, 0).to(tl.int64) * matrix_bytes
        end = tl.where(expert < 0, begin, end)
        x += (pair // top_k) * x_stride
        y += pair * rows
    totals = [tl.zeros([1, ROWS, BLOCKS, 4], tl.float32) for _ in (0, 1, 2, 3, 4, 5, 6, 7)]
    for start in range(begin, end, BLOCKS):
        block = start + tl.arange(0, BLOCKS)[None, None, :, None]
        mask = (row < rows) & (block < end)
        at = row.to(tl.int64) * blocks + block
        w = DECODE(planes, table, first, at, lane, mask, (0, 1, 2, 3, 4, 5, 6, 7))
        totals = [
            _accumulate(totals[t], w, x + t * x_stride, block, lane, cols, n, t, N)
            for t in (0, 1, 2, 3, 4, 5, 6, 7)
        ]
    out = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[None, :]
    for t in tl.static_range(N):
        total = tl.sum(tl.sum(totals[t], 3), 2)
        target = y + t * rows + out
        mask = (out < rows) & (t < n)
        if ADD:
            total += tl.load(target, mask=mask, other=0.0)
        tl.store(target, total, mask=mask)


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
