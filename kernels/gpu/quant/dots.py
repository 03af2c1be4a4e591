"""Decoders in Triton from the planes of a type to four signed bytes a word, for products with activations in 8 bits.

One function a type. All take the same arguments:

planes  the type's planes (`formats`), typed pointers
table   the type's codebook with its bytes to choose from (`codebooks`), or None
matrix  where the matrix begins, in bytes after matrix 0, int64: a number, or one for each block, (1, blocks)
first   the tile's first block of 32 columns in a matrix, int64
row     where the tile's rows begin, in blocks counted from there, (rows, 1) int32
block   blocks of a row, (1, blocks) int32, all of them there to be read
group   the block's place among the eight of a file's block of 256 columns, (1, blocks) int32: the same in every step

Rows are added to a pointer last: they then differ by constants, which cost nothing. `first` and the beginnings of rows
are whole blocks of the file, which has 8 blocks in one where it has 256 columns.

and return (words, scales, minima, bias). Word 4 h + j holds the numbers of group (j, h) of `layout`; of sixteen
words, word 8 + 4 h + j holds what is to be added to them. Column c of half h is scale[h] * (number - bias) -
minimum[h]: one scale or minimum stands for both halves, none for zero. What they compute is llama.cpp's
vec_dot_*_q8_1 (vecdotq.cuh).
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.quant.words import (
    choose_bytes,
    load_byte,
    load_four,
    load_half,
    load_short,
    load_two,
    load_word,
    two_floats,
)

_LOW = tl.constexpr(0x0F0F0F0F)


@triton.jit
def _bytes_on(pointer, count):
    """A pointer so many bytes further. Where a matrix begins is counted in bytes: a quotient for each block would cost
    more than the sum."""
    return (pointer.to(tl.pointer_type(tl.uint8), bitcast=True) + count).to(
        pointer.dtype, bitcast=True
    )


@triton.jit
def _at(plane, matrix, first, row, block, SIZE: tl.constexpr):
    """What a plane has of the blocks, of SIZE elements each."""
    return _bytes_on(plane + first * SIZE, matrix) + block * SIZE + row * SIZE


@triton.jit
def _whole(plane, matrix, first, row, block, SIZE: tl.constexpr):
    """What a plane has of the files' blocks of 256 columns that they lie in."""
    return _at(plane, matrix, first >> 3, row >> 3, block >> 3, SIZE)


@triton.jit
def _nibbles(plane, matrix, first, row, block):
    w0, w1, w2, w3 = load_four(_at(plane, matrix, first, row, block, 4))
    return (
        w0 & _LOW, w1 & _LOW, w2 & _LOW, w3 & _LOW,
        w0 >> 4 & _LOW, w1 >> 4 & _LOW, w2 >> 4 & _LOW, w3 >> 4 & _LOW,
    )  # fmt: skip


@triton.jit
def _to(word, shift: tl.constexpr):
    """Shifted left by so many bits, or right; what comes in from the left is masked by the caller."""
    return word << shift if shift >= 0 else word >> -shift


@triton.jit
def _ones(word, to: tl.constexpr):
    """The eight groups of a word of single bits, 4 h + j, each bit as bit `to` of its byte."""
    M: tl.constexpr = 0x01010101 << to
    return (
        _to(word, to) & M, _to(word, to - 4) & M, _to(word, to - 2) & M, _to(word, to - 6) & M,
        _to(word, to - 1) & M, _to(word, to - 5) & M, _to(word, to - 3) & M, _to(word, to - 7) & M,
    )  # fmt: skip


@triton.jit
def _twos(low, high, to: tl.constexpr):
    """The same of two words of pairs, the lower bit of each as bit `to`."""
    M: tl.constexpr = 0x03030303 << to
    return (
        _to(low, to) & M, _to(low, to - 4) & M, _to(high, to) & M, _to(high, to - 4) & M,
        _to(low, to - 2) & M, _to(low, to - 6) & M, _to(high, to - 2) & M, _to(high, to - 6) & M,
    )  # fmt: skip


@triton.jit
def _threes(low, high, ones):
    """The eight groups of two words of pairs, with the word of single bits above them: two at a time."""
    PAIRS: tl.constexpr = 0x33333333
    ONES: tl.constexpr = 0x44444444
    a0, a1 = low & PAIRS | ones << 2 & ONES, low >> 2 & PAIRS | ones << 1 & ONES
    b0, b1 = high & PAIRS | ones & ONES, high >> 2 & PAIRS | ones >> 1 & ONES
    return (
        a0 & _LOW, a0 >> 4 & _LOW, b0 & _LOW, b0 >> 4 & _LOW,
        a1 & _LOW, a1 >> 4 & _LOW, b1 & _LOW, b1 >> 4 & _LOW,
    )  # fmt: skip


@triton.jit
def _both(a, b):
    """Bits of either, word by word."""
    return (
        a[0] | b[0], a[1] | b[1], a[2] | b[2], a[3] | b[3],
        a[4] | b[4], a[5] | b[5], a[6] | b[6], a[7] | b[7],
    )  # fmt: skip


@triton.jit
def q4_0(planes, table, matrix, first, row, block, group):
    scale = load_half(_at(planes[1], matrix, first, row, block, 1))
    return _nibbles(planes[0], matrix, first, row, block), (scale,), (), (8.0,)


@triton.jit
def q5_0(planes, table, matrix, first, row, block, group):
    high = load_word(_at(planes[1], matrix, first, row, block, 1))
    scale = load_half(_at(planes[2], matrix, first, row, block, 1))
    words = _both(_nibbles(planes[0], matrix, first, row, block), _ones(high, 4))
    return words, (scale,), (), (16.0,)


@triton.jit
def q8_0(planes, table, matrix, first, row, block, group):
    numbers = _at(planes[0], matrix, first, row, block, 8)
    w0, w1, w2, w3 = load_four(numbers)
    w4, w5, w6, w7 = load_four(numbers + 4)
    scale = load_half(_at(planes[1], matrix, first, row, block, 1))
    return (w0, w1, w2, w3, w4, w5, w6, w7), (scale,), (), ()


@triton.jit
def _k_scales(plane, matrix, first, row, block, group):
    """Scale and minimum of Q4_K and Q5_K: 6 bits each, eight of both in twelve bytes."""
    both, scales, minima, rest = load_four(_whole(plane, matrix, first, row, block, 4))
    shift, upper = (group & 3) * 8, group >> 2
    six, four = 63 - upper * 15, upper * 15
    scale = scales >> (shift + upper * 2) & six | rest >> shift & four
    minimum = minima >> (shift + upper * 2) & six | rest >> (shift + 4) & four
    d, dmin = two_floats(both)
    return d * scale.to(tl.float32), dmin * minimum.to(tl.float32)


@triton.jit
def q4_k(planes, table, matrix, first, row, block, group):
    scale, minimum = _k_scales(planes[1], matrix, first, row, block, group)
    return _nibbles(planes[0], matrix, first, row, block), (scale,), (minimum,), ()


@triton.jit
def q5_k(planes, table, matrix, first, row, block, group):
    high = load_word(_at(planes[1], matrix, first, row, block, 1))
    scale, minimum = _k_scales(planes[2], matrix, first, row, block, group)
    words = _both(_nibbles(planes[0], matrix, first, row, block), _ones(high, 4))
    return words, (scale,), (minimum,), ()


@triton.jit
def q6_k(planes, table, matrix, first, row, block, group):
    low, high = load_two(_at(planes[1], matrix, first, row, block, 2))
    pair = planes[2].to(tl.pointer_type(tl.int16), bitcast=True)
    scales = load_short(_at(pair, matrix, first, row, block, 1))
    d = load_half(_whole(planes[3], matrix, first, row, block, 1))
    scale0, scale1 = (
        d * (scales << 24 >> 24).to(tl.float32),
        d * (scales << 16 >> 24).to(tl.float32),
    )
    words = _both(_nibbles(planes[0], matrix, first, row, block), _twos(low, high, 4))
    return words, (scale0, scale1), (), (32.0,)


@triton.jit
def q2_k(planes, table, matrix, first, row, block, group):
    low, high = load_two(_at(planes[0], matrix, first, row, block, 2))
    pair = planes[1].to(tl.pointer_type(tl.uint16), bitcast=True)
    both = load_short(_at(pair, matrix, first, row, block, 1))
    of_all = planes[2].to(tl.pointer_type(tl.int32), bitcast=True)
    ds = load_word(_whole(of_all, matrix, first, row, block, 1))
    d, dmin = two_floats(ds)
    scale0, scale1 = d * (both & 15).to(tl.float32), d * (both >> 8 & 15).to(tl.float32)
    minimum0, minimum1 = dmin * (both >> 4 & 15).to(tl.float32), dmin * (both >> 12).to(tl.float32)
    return _twos(low, high, 0), (scale0, scale1), (minimum0, minimum1), ()


@triton.jit
def q3_k(planes, table, matrix, first, row, block, group):
    low, high = load_two(_at(planes[0], matrix, first, row, block, 2))
    ones = load_word(_at(planes[1], matrix, first, row, block, 1))
    d = load_half(_whole(planes[3], matrix, first, row, block, 1))
    # Nibbles of the sixteen scales in eight bytes, then their upper pairs in four.
    six = planes[2].to(tl.pointer_type(tl.int32), bitcast=True)
    nibbles = load_word(_whole(six + (group >> 1 & 1), matrix, first, row, block, 3))
    nibbles = nibbles >> ((group & 1) * 16 + (group >> 2) * 4)
    pairs = load_word(_whole(six + 2, matrix, first, row, block, 3))
    pairs = pairs >> ((group & 1) * 16 + (group >> 1) * 2)
    both = nibbles & 0x0F0F | (pairs & 0x0303) << 4
    scale0 = d * ((both & 255) - 32).to(tl.float32)
    scale1 = d * ((both >> 8) - 32).to(tl.float32)
    return _threes(low, high, ones), (scale0, scale1), (), (4.0,)


@triton.jit
def _lower(word, table, shift: tl.constexpr):
    """Numbers of four nibbles from bit `shift` on; of those from 8 on, what `codebooks` says of signs."""
    return choose_bytes(table[0], table[1], word >> shift)


@triton.jit
def _upper(word, table, shift: tl.constexpr):
    return choose_bytes(table[2], table[3], (word ^ -2004318072) >> shift)  # 0x88888888


@triton.jit
def _look_up(plane, table, matrix, first, row, block, group):
    w0, w1, w2, w3 = load_four(_at(plane, matrix, first, row, block, 4))
    # Lanes read copies of the table: one place for all would be kept where prmt cannot read it.
    table = load_four(table.to(tl.pointer_type(tl.int32), bitcast=True) + 4 + (group & 1) * 4)
    return (
        _lower(w0, table, 0), _lower(w1, table, 0), _lower(w2, table, 0), _lower(w3, table, 0),
        _lower(w0, table, 16), _lower(w1, table, 16), _lower(w2, table, 16), _lower(w3, table, 16),
        _upper(w0, table, 0), _upper(w1, table, 0), _upper(w2, table, 0), _upper(w3, table, 0),
        _upper(w0, table, 16), _upper(w1, table, 16), _upper(w2, table, 16), _upper(w3, table, 16),
    )  # fmt: skip


@triton.jit
def iq4_xs(planes, table, matrix, first, row, block, group):
    start, nibbles = load_two(_whole(planes[1], matrix, first, row, block, 2))
    six = (nibbles >> group * 4) & 15 | (start >> (16 + group * 2) & 3) << 4
    d, _ = two_floats(start)
    scale = d * (six - 32).to(tl.float32)
    return _look_up(planes[0], table, matrix, first, row, block, group), (scale,), (), ()


@triton.jit
def mxfp4(planes, table, matrix, first, row, block, group):
    exponent = load_byte(_at(planes[1], matrix, first, row, block, 1)).to(tl.uint32)
    pattern = tl.where(exponent < 2, 0x00200000 << (exponent & 1), (exponent - 1) << 23)
    scale = pattern.to(tl.uint32).to(tl.float32, bitcast=True)
    return _look_up(planes[0], table, matrix, first, row, block, group), (scale,), (), ()
