"""What the products of few rows share: a tile of weight rows times one or more rows of activations.

A weight is read once for all rows of activations. Every thread keeps its own sums over the blocks that it
reads; they are added up once, at the end, in a fixed order: the same bits every time.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.quant.words import add_products, read_four


@triton.jit
def activations(numbers, factors, block, inside, WHOLE: tl.constexpr):
    """Words and factors of blocks (1, blocks) of one row in 8 bits (`q8`); nothing where not `inside`."""
    first = read_four(numbers + block * 8)
    second = read_four(numbers + block * 8 + 4)
    scale, sum0, sum1, sums = read_four(factors + block * 4)
    scale, sum0 = scale.to(tl.float32, bitcast=True), sum0.to(tl.float32, bitcast=True)
    sum1, sums = sum1.to(tl.float32, bitcast=True), sums.to(tl.float32, bitcast=True)
    if not WHOLE:
        scale, sum0 = tl.where(inside, scale, 0.0), tl.where(inside, sum0, 0.0)
        sum1, sums = tl.where(inside, sum1, 0.0), tl.where(inside, sums, 0.0)
    return first, second, (scale, sum0, sum1, sums)


@triton.jit
def contract(total, decoded, x):
    """total plus the products of decoded blocks (rows, blocks) (`dots`) with `activations`."""
    words, scales, minima, bias = decoded
    first, second, factors = x
    half0 = _four_groups(words, 0, first, words[0] & 0)
    half1 = _four_groups(words, 4, second, half0 if len(scales) == 1 else words[0] & 0)
    if len(scales) == 1:
        total += scales[0] * _unbiased(half1, factors[0], factors[3], bias)
    else:
        total += scales[0] * _unbiased(half0, factors[0], factors[1], bias)
        total += scales[1] * _unbiased(half1, factors[0], factors[2], bias)
    if len(minima) == 1:
        total -= minima[0] * factors[3]
    if len(minima) == 2:
        total -= minima[0] * factors[1]
        total -= minima[1] * factors[2]
    return total


@triton.jit
def _four_groups(words, g: tl.constexpr, x, total):
    """total plus the products of the groups from g on, and of what is to be added to them."""
    total = add_products(words[g], x[0], total)
    total = add_products(words[g + 1], x[1], total)
    total = add_products(words[g + 2], x[2], total)
    total = add_products(words[g + 3], x[3], total)
    if len(words) == 16:
        total = add_products(words[g + 8], x[0], total)
        total = add_products(words[g + 9], x[1], total)
        total = add_products(words[g + 10], x[2], total)
        total = add_products(words[g + 11], x[3], total)
    return total


@triton.jit
def _unbiased(products, scale, sums, bias):
    """Products with the activations' numbers as products with the activations, less the bias's."""
    if len(bias) == 1:
        return products.to(tl.float32) * scale - sums * bias[0]
    return products.to(tl.float32) * scale


@triton.jit
def _add_dots(total, decoded, numbers, factors, block, inside, n, t: tl.constexpr,
              N: tl.constexpr, BLOCKS: tl.constexpr, WHOLE: tl.constexpr):  # fmt: skip
    """total plus the products with row t of activations; as it was for one beyond N."""
    if t < N:
        row = tl.minimum(n - 1, t)
        x = activations(
            numbers + row * BLOCKS * 8, factors + row * BLOCKS * 4, block, inside, WHOLE
        )
        total = contract(total, decoded, x)
    return total


@triton.jit
def tile_rows(tile, rows, ROWS: tl.constexpr, EVEN: tl.constexpr):
    """Rows of a tile counted from its first, (ROWS, 1); none beyond the last there is."""
    row = tl.arange(0, ROWS)[:, None]
    return row if EVEN else tl.minimum(row, rows - 1 - tile * ROWS)


@triton.jit
def dot_rows(planes, table, numbers, factors, tile, rows, n, DOT: tl.constexpr, N: tl.constexpr,
             ROWS: tl.constexpr, SPAN: tl.constexpr, BLOCKS: tl.constexpr, EVEN: tl.constexpr):  # fmt: skip
    """Sums (ROWS,) of a tile of weight rows with each of N rows of activations in 8 bits."""
    row = tile_rows(tile, rows, ROWS, EVEN) * BLOCKS
    first = tile.to(tl.int64) * (ROWS * BLOCKS)
    zero = tl.zeros([ROWS, SPAN], tl.float32)
    totals = [zero for _ in (0, 1, 2, 3, 4, 5, 6, 7)]
    WHOLE: tl.constexpr = BLOCKS % SPAN == 0
    group = tl.arange(0, SPAN)[None, :] & 7
    for start in range(0, BLOCKS, SPAN):
        block = start + tl.arange(0, SPAN)[None, :]
        inside = block < BLOCKS
        if not WHOLE:
            block = tl.minimum(block, BLOCKS - 1)
        decoded = DOT(planes, table, tl.cast(0, tl.int64), first, row, block, group)
        totals = [
            _add_dots(totals[t], decoded, numbers, factors, block, inside, n, t, N, BLOCKS, WHOLE)
            for t in (0, 1, 2, 3, 4, 5, 6, 7)
        ]
    return [tl.sum(total, 1) for total in totals]


@triton.jit
def _add_floats(total, w, x, block, lane, cols, n, t: tl.constexpr, N: tl.constexpr):
    """total + w * x[t], elementwise; as it was for a token beyond N."""
    if t < N:
        for k in tl.static_range(8):
            col = tl.broadcast_to(block * 32 + 4 * k + lane, w[k].shape)
            values = tl.load(x + col, mask=(col < cols) & (t < n), other=0.0)
            total += w[k] * values.to(tl.float32)
    return total


@triton.jit
def float_rows(planes, table, x, x_stride, matrix, tile, rows, cols, blocks, n, DECODE: tl.constexpr,
               N: tl.constexpr, ROWS: tl.constexpr, SPAN: tl.constexpr):  # fmt: skip
    """The same sums in float32, of any type: `blocks` of its blocks are read, of the matrix that begins there."""
    row = tile * ROWS + tl.arange(0, ROWS)[None, None, :, None]
    lane = tl.arange(0, 4)[None, None, None, :]
    zero = tl.zeros([1, SPAN, ROWS, 4], tl.float32)
    totals = [zero for _ in (0, 1, 2, 3, 4, 5, 6, 7)]
    for start in range(0, blocks, SPAN):
        block = start + tl.arange(0, SPAN)[None, :, None, None]
        mask = (row < rows) & (block < blocks)
        at = row.to(tl.int64) * blocks + block
        w = DECODE(planes, table, matrix, at, lane, mask, (0, 1, 2, 3, 4, 5, 6, 7))
        totals = [
            _add_floats(totals[t], w, x + t * x_stride, block, lane, cols, n, t, N)
            for t in (0, 1, 2, 3, 4, 5, 6, 7)
        ]
    return [tl.reshape(tl.sum(tl.sum(total, 3), 1), [ROWS]) for total in totals]
