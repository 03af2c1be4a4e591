"""Decoders in Triton: from the planes of a type to float32, for the types whose blocks have scales.

One function a type, shared by every product. All take the same arguments:

planes  the type's planes (`formats`), typed pointers to matrix 0
table   the type's codebook, int8, or None
first   where the matrix begins, in bytes after matrix 0
at      index of the block of 32 columns among the matrix's blocks, (1, blocks, rows, 1), int64
lane    0 .. 3, (1, 1, 1, 4)
mask    which blocks there are, as `at`; what is left out reads as zero bytes
slots   0 .. 7

and return eight tiles (1, blocks, rows, 4): slot k holds columns 4 k + lane of every block. The
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
def four(planes, plane: tl.constexpr, first, at, lane, mask):
    """A lane's word of numbers of 4 bits."""
    return read(planes, plane, first, at * 4 + lane, mask)


@triton.jit
def nibble(words, k: tl.constexpr):
    """Slot k of a lane's word that `four` read."""
    return (words >> (k % 4 * 8 + k // 4 * 4)) & 15


@triton.jit
def two(planes, plane: tl.constexpr, first, at, lane, mask):
    """A lane's numbers of 2 bits: its groups in the lowest four bits of each byte. Lanes share words."""
    low = read(planes, plane, first, at * 2, mask)
    high = read(planes, plane, first, at * 2 + 1, mask)
    return tl.where(lane < 2, low, high) >> ((lane & 1) * 4).to(tl.uint32)


@triton.jit
def pair(words, k: tl.constexpr):
    """Slot k of what `two` read."""
    return (words >> (k % 4 * 8 + k // 4 * 2)) & 3


@triton.jit
def one(planes, plane: tl.constexpr, first, at, lane, mask):
    """A lane's numbers of 1 bit: its groups in the lowest two bits of each byte."""
    first_bit = (lane & 1) * 4 + (lane >> 1) * 2
    return read(planes, plane, first, at, mask) >> first_bit.to(tl.uint32)


@triton.jit
def bit(words, k: tl.constexpr):
    """Slot k of what `one` read."""
    return (words >> (k % 4 * 8 + k // 4)) & 1


@triton.jit
def low_half(words):
    """The float16 in the lower half of words."""
    return (words & 0xFFFF).to(tl.uint16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def high_half(words):
    """The float16 in the upper half of words."""
    return (words >> 16).to(tl.uint16).to(tl.float16, bitcast=True).to(tl.float32)


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
    low = four(planes, 0, first, at, lane, mask)
    scale = read(planes, 1, first, at, mask).to(tl.float32)
    return [scale * number(nibble(low, k), 8) for k in slots]


@triton.jit
def q4_1(planes, table, first, at, lane, mask, slots):
    low = four(planes, 0, first, at, lane, mask)
    scale = read(planes, 1, first, at * 2, mask).to(tl.float32)
    minimum = read(planes, 1, first, at * 2 + 1, mask).to(tl.float32)
    return [scale * number(nibble(low, k), 0) + minimum for k in slots]


@triton.jit
def q5_0(planes, table, first, at, lane, mask, slots):
    low = four(planes, 0, first, at, lane, mask)
    high = one(planes, 1, first, at, lane, mask)
    scale = read(planes, 2, first, at, mask).to(tl.float32)
    return [scale * number(nibble(low, k) | bit(high, k) << 4, 16) for k in slots]


@triton.jit
def q5_1(planes, table, first, at, lane, mask, slots):
    low = four(planes, 0, first, at, lane, mask)
    high = one(planes, 1, first, at, lane, mask)
    scale = read(planes, 2, first, at * 2, mask).to(tl.float32)
    minimum = read(planes, 2, first, at * 2 + 1, mask).to(tl.float32)
    return [scale * number(nibble(low, k) | bit(high, k) << 4, 0) + minimum for k in slots]


@triton.jit
def q8_0(planes, table, first, at, lane, mask, slots):
    words0 = read(planes, 0, first, at * 8 + lane, mask)
    words1 = read(planes, 0, first, at * 8 + 4 + lane, mask)
    scale = read(planes, 1, first, at, mask).to(tl.float32)
    return [scale * number(bits(half(k, words0, words1), 8, k % 4) ^ 128, 128) for k in slots]


@triton.jit
def q1_0(planes, table, first, at, lane, mask, slots):
    words = one(planes, 0, first, at, lane, mask)
    scale = read(planes, 1, first, at >> 2, mask).to(tl.float32)
    return [scale * number(bit(words, k) << 1, 1) for k in slots]


@triton.jit
def q2_0(planes, table, first, at, lane, mask, slots):
    words = two(planes, 0, first, at, lane, mask)
    scale = read(planes, 1, first, at >> 1, mask).to(tl.float32)
    return [scale * number(pair(words, k), 1) for k in slots]


@triton.jit
def tq2_0(planes, table, first, at, lane, mask, slots):
    words = two(planes, 0, first, at, lane, mask)
    scale = read(planes, 1, first, at >> 3, mask).to(tl.float32)
    return [scale * number(pair(words, k), 1) for k in slots]


@triton.jit
def q2_k(planes, table, first, at, lane, mask, slots):
    words = two(planes, 0, first, at, lane, mask)
    d = read(planes, 2, first, (at >> 3) * 2, mask).to(tl.float32)
    dmin = read(planes, 2, first, (at >> 3) * 2 + 1, mask).to(tl.float32)
    group0 = read(planes, 1, first, at * 2, mask)
    group1 = read(planes, 1, first, at * 2 + 1, mask)
    scale0, scale1 = d * (group0 & 15).to(tl.float32), d * (group1 & 15).to(tl.float32)
    min0, min1 = dmin * (group0 >> 4).to(tl.float32), dmin * (group1 >> 4).to(tl.float32)
    return [
        half(k, scale0, scale1) * number(pair(words, k), 0) - half(k, min0, min1) for k in slots
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
    low = two(planes, 0, first, at, lane, mask)
    high = one(planes, 1, first, at, lane, mask)
    d = read(planes, 3, first, at >> 3, mask).to(tl.float32)
    scale0 = d * _q3_k_scale(planes, first, at, mask, (at & 7) * 2)
    scale1 = d * _q3_k_scale(planes, first, at, mask, (at & 7) * 2 + 1)
    return [half(k, scale0, scale1) * number(pair(low, k) | bit(high, k) << 2, 4) for k in slots]


@triton.jit
def _k_scales(planes, plane: tl.constexpr, first, at, mask):
    """Scale and minimum of a block of Q4_K or Q5_K: 6 bits each, eight of both in twelve bytes."""
    start = (at >> 3) * 4
    both = read(planes, plane, first, start, mask)
    group = (at & 7).to(tl.uint32)
    shift = (group & 3) * 8
    scales = read(planes, plane, first, start + 1, mask) >> shift
    minima = read(planes, plane, first, start + 2, mask) >> shift
    rest = read(planes, plane, first, start + 3, mask) >> shift
    scale = tl.where(group < 4, scales & 63, rest & 15 | (scales >> 2) & 48)
    minimum = tl.where(group < 4, minima & 63, rest >> 4 & 15 | (minima >> 2) & 48)
    return low_half(both) * scale.to(tl.float32), high_half(both) * minimum.to(tl.float32)


@triton.jit
def q4_k(planes, table, first, at, lane, mask, slots):
    low = four(planes, 0, first, at, lane, mask)
    scale, minimum = _k_scales(planes, 1, first, at, mask)
    return [scale * number(nibble(low, k), 0) - minimum for k in slots]


@triton.jit
def q5_k(planes, table, first, at, lane, mask, slots):
    low = four(planes, 0, first, at, lane, mask)
    high = one(planes, 1, first, at, lane, mask)
    scale, minimum = _k_scales(planes, 2, first, at, mask)
    return [scale * number(nibble(low, k) | bit(high, k) << 4, 0) - minimum for k in slots]


@triton.jit
def q6_k(planes, table, first, at, lane, mask, slots):
    low = four(planes, 0, first, at, lane, mask)
    high = two(planes, 1, first, at, lane, mask)
    d = read(planes, 3, first, at >> 3, mask).to(tl.float32)
    scale0 = d * read(planes, 2, first, at * 2, mask).to(tl.float32)
    scale1 = d * read(planes, 2, first, at * 2 + 1, mask).to(tl.float32)
    return [
        half(k, scale0, scale1) * number(nibble(low, k) | pair(high, k) << 4, 32) for k in slots
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
