"""Decoders in Triton: from the planes of a type to float32, for the types whose blocks have scales.

One function a type, shared by every product. All take the same arguments:

planes  the type's planes (`formats`), typed pointers to matrix 0
table   the type's codebook, int8, or None
first   where the matrix begins, in bytes after matrix 0
at      index of the block of 32 columns among the matrix's blocks, (1, rows, blocks, 1), int64
lane    0 .. 3, (1, 1, 1, 4)
mask    which blocks there are, as `at`; what is left out reads as zero bytes
slots   0 .. 7

and return eight tiles (1, rows, blocks, 4): slot k holds columns 4 k + lane of every block. The
formulas are those of dequantize_row_* in ggml-quants.c.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def read(planes, plane: tl.constexpr, first, index, mask):
    """Elements `index` of a plane."""
    pointer = planes[plane]
    start = first // (pointer.dtype.element_ty.primitive_bitwidth // 8)
    return tl.load(pointer + start + index, mask=mask, other=0)


@triton.jit
def bits(words, width: tl.constexpr, k: tl.constexpr):
    """Number k of every word, as uint32."""
    return ((words >> (width * k)) & ((1 << width) - 1)).to(tl.uint32)


@triton.jit
def number(code, bias: tl.constexpr):
    """code - bias in float32, for codes below 2^23: 2^23 + code is its own bit pattern (exact)."""
    return (code | 0x4B000000).to(tl.float32, bitcast=True) - (8388608.0 + bias)


@triton.jit
def half(k: tl.constexpr, low, high):
    """What belongs to slot k when each 16 columns of a block have their own."""
    return low if k < 4 else high


@triton.jit
def f32(planes, table, first, at, lane, mask, slots):  # F32 and F16
    return [read(planes, 0, first, at * 32 + 4 * k + lane, mask).to(tl.float32) for k in slots]


@triton.jit
def bf16(planes, table, first, at, lane, mask, slots):
    return [
        (read(planes, 0, first, at * 32 + 4 * k + lane, mask).to(tl.uint32) << 16).to(
            tl.float32, bitcast=True
        )
        for k in slots
    ]


@triton.jit
def q4_0(planes, table, first, at, lane, mask, slots):
    low = read(planes, 0, first, at * 4 + lane, mask)
    scale = read(planes, 1, first, at, mask).to(tl.float32)
    return [scale * number(bits(low, 4, k), 8) for k in slots]


@triton.jit
def q4_1(planes, table, first, at, lane, mask, slots):
    low = read(planes, 0, first, at * 4 + lane, mask)
    scale = read(planes, 1, first, at * 2, mask).to(tl.float32)
    minimum = read(planes, 1, first, at * 2 + 1, mask).to(tl.float32)
    return [scale * number(bits(low, 4, k), 0) + minimum for k in slots]


@triton.jit
def q5_0(planes, table, first, at, lane, mask, slots):
    low = read(planes, 0, first, at * 4 + lane, mask)
    high = read(planes, 1, first, at * 4 + lane, mask)
    scale = read(planes, 2, first, at, mask).to(tl.float32)
    return [scale * number(bits(low, 4, k) | bits(high, 1, k) << 4, 16) for k in slots]


@triton.jit
def q5_1(planes, table, first, at, lane, mask, slots):
    low = read(planes, 0, first, at * 4 + lane, mask)
    high = read(planes, 1, first, at * 4 + lane, mask)
    scale = read(planes, 2, first, at * 2, mask).to(tl.float32)
    minimum = read(planes, 2, first, at * 2 + 1, mask).to(tl.float32)
    return [scale * number(bits(low, 4, k) | bits(high, 1, k) << 4, 0) + minimum for k in slots]


@triton.jit
def q8_0(planes, table, first, at, lane, mask, slots):
    words0 = read(planes, 0, first, at * 8 + lane, mask)
    words1 = read(planes, 0, first, at * 8 + 4 + lane, mask)
    scale = read(planes, 1, first, at, mask).to(tl.float32)
    return [scale * number(bits(half(k, words0, words1), 8, k % 4) ^ 128, 128) for k in slots]


@triton.jit
def q1_0(planes, table, first, at, lane, mask, slots):
    words = read(planes, 0, first, at * 4 + lane, mask)
    scale = read(planes, 1, first, at >> 2, mask).to(tl.float32)
    return [scale * number(bits(words, 1, k) << 1, 1) for k in slots]


@triton.jit
def q2_0(planes, table, first, at, lane, mask, slots):
    words = read(planes, 0, first, at * 4 + lane, mask)
    scale = read(planes, 1, first, at >> 1, mask).to(tl.float32)
    return [scale * number(bits(words, 2, k), 1) for k in slots]


@triton.jit
def tq2_0(planes, table, first, at, lane, mask, slots):
    words = read(planes, 0, first, at * 4 + lane, mask)
    scale = read(planes, 1, first, at >> 3, mask).to(tl.float32)
    return [scale * number(bits(words, 2, k), 1) for k in slots]


@triton.jit
def q2_k(planes, table, first, at, lane, mask, slots):
    words = read(planes, 0, first, at * 4 + lane, mask)
    d = read(planes, 2, first, (at >> 3) * 2, mask).to(tl.float32)
    dmin = read(planes, 2, first, (at >> 3) * 2 + 1, mask).to(tl.float32)
    group0 = read(planes, 1, first, at * 2, mask)
    group1 = read(planes, 1, first, at * 2 + 1, mask)
    scale0, scale1 = d * (group0 & 15).to(tl.float32), d * (group1 & 15).to(tl.float32)
    min0, min1 = dmin * (group0 >> 4).to(tl.float32), dmin * (group1 >> 4).to(tl.float32)
    return [
        half(k, scale0, scale1) * number(bits(words, 2, k), 0) - half(k, min0, min1) for k in slots
    ]


@triton.jit
def _q3_k_scale(planes, first, at, mask, group):
    """Scale `group` of 16: nibbles in eight bytes, then upper pairs in four."""
    start = (at >> 3) * 12
    nibbles = read(planes, 2, first, start + (group & 7), mask).to(tl.int32)
    pairs = read(planes, 2, first, start + 8 + (group & 3), mask).to(tl.int32)
    low = (nibbles >> ((group >> 3) * 4).to(tl.int32)) & 15
    return ((low | ((pairs >> ((group >> 2) * 2).to(tl.int32)) & 3) << 4) - 32).to(tl.float32)


@triton.jit
def q3_k(planes, table, first, at, lane, mask, slots):
    low = read(planes, 0, first, at * 4 + lane, mask)
    high = read(planes, 1, first, at * 4 + lane, mask)
    d = read(planes, 3, first, at >> 3, mask).to(tl.float32)
    scale0 = d * _q3_k_scale(planes, first, at, mask, (at & 7) * 2)
    scale1 = d * _q3_k_scale(planes, first, at, mask, (at & 7) * 2 + 1)
    return [
        half(k, scale0, scale1) * number(bits(low, 2, k) | bits(high, 1, k) << 2, 4) for k in slots
    ]


@triton.jit
def _k_scales(planes, plane: tl.constexpr, first, at, mask):
    """Scale and minimum of a block of Q4_K or Q5_K: 6 bits each, eight of both in twelve bytes."""
    group = at & 7
    start = (at >> 3) * 12 + (group & 3)
    scales = read(planes, plane, first, start, mask).to(tl.uint32)
    minima = read(planes, plane, first, start + 4, mask).to(tl.uint32)
    rest = read(planes, plane, first, start + 8, mask).to(tl.uint32)
    scale = tl.where(group < 4, scales & 63, rest & 15 | (scales >> 6) << 4)
    minimum = tl.where(group < 4, minima & 63, rest >> 4 | (minima >> 6) << 4)
    d = read(planes, plane + 1, first, (at >> 3) * 2, mask).to(tl.float32)
    dmin = read(planes, plane + 1, first, (at >> 3) * 2 + 1, mask).to(tl.float32)
    return d * scale.to(tl.float32), dmin * minimum.to(tl.float32)


@triton.jit
def q4_k(planes, table, first, at, lane, mask, slots):
    low = read(planes, 0, first, at * 4 + lane, mask)
    scale, minimum = _k_scales(planes, 1, first, at, mask)
    return [scale * number(bits(low, 4, k), 0) - minimum for k in slots]


@triton.jit
def q5_k(planes, table, first, at, lane, mask, slots):
    low = read(planes, 0, first, at * 4 + lane, mask)
    high = read(planes, 1, first, at * 4 + lane, mask)
    scale, minimum = _k_scales(planes, 2, first, at, mask)
    return [scale * number(bits(low, 4, k) | bits(high, 1, k) << 4, 0) - minimum for k in slots]


@triton.jit
def q6_k(planes, table, first, at, lane, mask, slots):
    low = read(planes, 0, first, at * 4 + lane, mask)
    high = read(planes, 1, first, at * 4 + lane, mask)
    d = read(planes, 3, first, at >> 3, mask).to(tl.float32)
    scale0 = d * read(planes, 2, first, at * 2, mask).to(tl.float32)
    scale1 = d * read(planes, 2, first, at * 2 + 1, mask).to(tl.float32)
    return [
        half(k, scale0, scale1) * number(bits(low, 4, k) | bits(high, 2, k) << 4, 32) for k in slots
    ]


@triton.jit
def tq1_0(planes, table, first, at, lane, mask, slots):
    d = read(planes, 1, first, at >> 3, mask).to(tl.float32)
    return [d * _trit(planes, first, at, 4 * k + lane, mask) for k in slots]


@triton.jit
def _trit(planes, first, at, col, mask):
    """-1, 0 or 1: five to a byte in 32 bytes, then in 16, then four to a byte in 4."""
    index = ((at & 7) * 32 + col).to(tl.int32)
    middle, last = index - 160, index - 240
    byte = tl.where(
        index < 160, index & 31, tl.where(last < 0, 32 + (middle & 15), 48 + (last & 3))
    )
    digit = tl.where(index < 160, index >> 5, tl.where(last < 0, middle >> 4, last >> 2))
    power = tl.where((digit & 1) != 0, 3, 1) * tl.where((digit & 2) != 0, 9, 1)
    power *= tl.where((digit & 4) != 0, 81, 1)
    code = read(planes, 0, first, (at >> 3) * 52 + byte, mask).to(tl.int32) * power & 255
    return (code * 3 >> 8).to(tl.float32) - 1.0
