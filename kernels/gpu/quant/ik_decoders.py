"""Decoders in Triton for the types of ik_llama.cpp; `kernels.ik_types` says what their bits mean.

Arguments and results are those of `decoders`. A code is cut to the codebook's size by its bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.quant.decoders import (
    bit,
    four,
    half,
    low_half,
    nibble,
    number,
    one,
    pair,
    read,
    two,
)


@triton.jit
def _values(table, code, moved):
    return tl.load(table + code).to(tl.float32) + moved


@triton.jit
def _whole(code, bias: tl.constexpr):
    return (code.to(tl.int32) - bias).to(tl.float32)


@triton.jit
def _moved(flags, place, by: tl.constexpr):
    """What a group's values are moved by, where bit `place` of the flags is set."""
    return ((flags.to(tl.int32) >> place.to(tl.int32)) & 1).to(tl.float32) * by


@triton.jit
def _place(at):
    """A block's place among the eight of a file's block."""
    return (at & 7).to(tl.int32)


@triton.jit
def q6_0(planes, table, first, at, lane, mask, slots):
    low = four(planes, 0, first, at, lane, mask)
    high = two(planes, 1, first, at, lane, mask)
    scale = read(planes, 2, first, at, mask).to(tl.float32)
    return [scale * number(nibble(low, k) | pair(high, _crossed(k)) << 4, 32) for k in slots]


@triton.jit
def _crossed(k: tl.constexpr):
    """Where Q6_0 has slot k's upper bits: columns 8 .. 15 and 16 .. 23 are in each other's place."""
    return k + 2 if k // 2 == 1 else (k - 2 if k // 2 == 2 else k)


@triton.jit
def iq2_k(planes, table, first, at, lane, mask, slots):
    codes = two(planes, 0, first, at, lane, mask)
    head = read(planes, 1, first, at >> 3, mask)
    both = read(planes, 2, first, at, mask)
    d, flags, place = low_half(head), head >> 16, _place(at) * 2
    scale0, scale1 = d * _whole(both & 15, 8), d * _whole(both >> 4, 8)
    moved0, moved1 = _moved(flags, place, 5.0), _moved(flags, place + 1, 5.0)
    return [
        half(k, scale0, scale1) * _values(table, pair(codes, k), half(k, moved0, moved1))
        for k in slots
    ]


@triton.jit
def iq3_k(planes, table, first, at, lane, mask, slots):
    low = two(planes, 0, first, at, lane, mask)
    high = one(planes, 1, first, at, lane, mask)
    start = (at >> 3) * 3
    d = read(planes, 2, first, start, mask).to(tl.float16, bitcast=True).to(tl.float32)
    flags = read(planes, 2, first, start + 1, mask)
    signs = read(planes, 2, first, start + 2, mask)
    both, place = read(planes, 3, first, at, mask), _place(at) * 2
    scale0 = d * _whole((both & 15) * 2, -1) * (1.0 - _moved(signs, place, 2.0))
    scale1 = d * _whole((both >> 4) * 2, -1) * (1.0 - _moved(signs, place + 1, 2.0))
    moved0, moved1 = _moved(flags, place, 4.0), _moved(flags, place + 1, 4.0)
    return [
        half(k, scale0, scale1)
        * _values(table, pair(low, k) | bit(high, k) << 2, half(k, moved0, moved1))
        for k in slots
    ]


@triton.jit
def _six(planes, plane: tl.constexpr, first, at, mask):
    """IQ4_K's and IQ5_K's header: two scales of 6 bits, the flags and the place of the first in them."""
    start, place = (at >> 3) * 4, _place(at).to(tl.uint32)
    head = read(planes, plane, first, start, mask)
    high = read(planes, plane, first, start + 1, mask) >> place * 4
    low = read(planes, plane, first, start + 2 + ((at >> 2) & 1), mask) >> (place & 3) * 8
    d = low_half(head)
    scale0 = d * _whole(low & 15 | (high & 3) << 4, 32)
    scale1 = d * _whole(low >> 4 & 15 | (high >> 2 & 3) << 4, 32)
    return scale0, scale1, head >> 16, place * 2


@triton.jit
def iq4_k(planes, table, first, at, lane, mask, slots):
    codes = four(planes, 0, first, at, lane, mask)
    scale0, scale1, flags, place = _six(planes, 1, first, at, mask)
    moved0, moved1 = _moved(flags, place, 4.0), _moved(flags, place + 1, 4.0)
    return [
        half(k, scale0, scale1) * _values(table, nibble(codes, k), half(k, moved0, moved1))
        for k in slots
    ]


@triton.jit
def iq5_k(planes, table, first, at, lane, mask, slots):
    low = four(planes, 0, first, at, lane, mask)
    high = one(planes, 1, first, at, lane, mask)
    scale0, scale1, flags, place = _six(planes, 2, first, at, mask)
    moved0, moved1 = _moved(flags, place, 2.0), _moved(flags, place + 1, 2.0)
    return [
        half(k, scale0, scale1)
        * _values(table, nibble(low, k) | bit(high, k) << 4, half(k, moved0, moved1))
        for k in slots
    ]


@triton.jit
def iq6_k(planes, table, first, at, lane, mask, slots):
    low = four(planes, 0, first, at, lane, mask)
    high = two(planes, 1, first, at, lane, mask)
    head = read(planes, 2, first, at >> 3, mask)
    d, flags, place = low_half(head), head >> 16, _place(at) * 2
    scale0 = d * read(planes, 3, first, at * 2, mask).to(tl.float32)
    scale1 = d * read(planes, 3, first, at * 2 + 1, mask).to(tl.float32)
    moved0, moved1 = _moved(flags, place, 1.0), _moved(flags, place + 1, 1.0)
    return [
        half(k, scale0, scale1)
        * _values(table, nibble(low, k) | pair(high, k) << 4, half(k, moved0, moved1))
        for k in slots
    ]


# ---- a row's scale lies in the last plane, beside each of its blocks ------------------------------


@triton.jit
def iq2_ks(planes, table, first, at, lane, mask, slots):
    codes = two(planes, 0, first, at, lane, mask)
    d = read(planes, 2, first, at >> 3, mask).to(tl.float32)
    start, place = (at >> 3) * 6, _place(at)
    flags = read(planes, 1, first, start, mask)
    fifths = read(planes, 1, first, start + 1, mask).to(tl.int32)
    both = read(planes, 1, first, start + 2 + ((at & 7) >> 1), mask).to(tl.int32)
    scale = d * _whole(both >> (place & 1) * 4 & 15 | (fifths >> place & 1) << 4, 16)
    moved = _moved(flags, place, 5.0)
    return [scale * _values(table, pair(codes, k), moved) for k in slots]


@triton.jit
def iq3_ks(planes, table, first, at, lane, mask, slots):
    low = two(planes, 0, first, at, lane, mask)
    high = one(planes, 1, first, at, lane, mask)
    d = read(planes, 3, first, at >> 3, mask).to(tl.float32)
    start, place = (at >> 3) * 6, _place(at)
    fifths = read(planes, 2, first, start, mask).to(tl.int32)
    flags = read(planes, 2, first, start + 1, mask)
    both = read(planes, 2, first, start + 2 + (at & 3), mask).to(tl.int32)
    scale = d * _whole(both >> (place >> 2) * 4 & 15 | (fifths >> place & 1) << 4, 16)
    moved = _moved(flags, place, 4.0)
    return [scale * _values(table, pair(low, k) | bit(high, k) << 2, moved) for k in slots]


@triton.jit
def iq4_ks(planes, table, first, at, lane, mask, slots):
    codes = four(planes, 0, first, at, lane, mask)
    code = read(planes, 1, first, at, mask)
    scale = read(planes, 2, first, at >> 3, mask) * _whole(code & 254, 127)
    moved = _moved(code, _place(at) & 0, 4.0)
    return [scale * _values(table, nibble(codes, k), moved) for k in slots]


@triton.jit
def iq5_ks(planes, table, first, at, lane, mask, slots):
    low = four(planes, 0, first, at, lane, mask)
    high = one(planes, 1, first, at, lane, mask)
    code = read(planes, 2, first, at, mask)
    scale = read(planes, 3, first, at >> 3, mask) * _whole(code & 254, 127)
    moved = _moved(code, _place(at) & 0, 2.0)
    return [scale * _values(table, nibble(low, k) | bit(high, k) << 4, moved) for k in slots]


@triton.jit
def _word_bits(word, i: tl.constexpr):
    """Two bits of IQ4_KSS's scale: the lowest of both halves of word i."""
    return ((word & 1) | (word >> 16 & 1) << 1) << (2 * i)


@triton.jit
def iq4_kss(planes, table, first, at, lane, mask, slots):
    w0 = read(planes, 0, first, at * 4, mask)
    w1 = read(planes, 0, first, at * 4 + 1, mask)
    w2 = read(planes, 0, first, at * 4 + 2, mask)
    w3 = read(planes, 0, first, at * 4 + 3, mask)
    code = _word_bits(w0, 0) | _word_bits(w1, 1) | _word_bits(w2, 2) | _word_bits(w3, 3)
    scale = read(planes, 1, first, at >> 3, mask) * _whole(code & 254, 127)
    moved = _moved(code, _place(at) & 0, 4.0)
    shift = (lane * 8).to(tl.uint32)
    return [scale * _values(table, _kss_code(w0, w1, w2, w3, shift, k), moved) for k in slots]


@triton.jit
def _kss_code(w0, w1, w2, w3, shift, k: tl.constexpr):
    """Slot k's code of a lane: the lower or upper one of its byte of word k % 4."""
    word = w0 if k % 4 == 0 else w1 if k % 4 == 1 else w2 if k % 4 == 2 else w3
    plain = word & 0xFFFEFFFE
    return (plain ^ plain >> 1 & 0x7FFF7FFF) >> shift + 4 * (k // 4) & 15


@triton.jit
def iq2_kl(planes, table, first, at, lane, mask, slots):
    d = read(planes, 3, first, at >> 3, mask).to(tl.float32)
    start, place = (at >> 3) * 6, _place(at)
    both = read(planes, 2, first, start + 2 + (at & 3), mask).to(tl.int32)
    high = read(planes, 2, first, start + ((at & 7) >> 2), mask).to(tl.int32)
    six = both >> (place >> 2) * 4 & 15 | (high >> (place & 3) * 2 & 3) << 4
    scale = d * _whole(six, 32)
    # A byte of one word has the codes of two blocks' columns, a bit of the other the fifth bits of eight blocks'.
    low, fifth, column = (place & 1) * 4 + (lane >> 1) * 8, place + (lane >> 1) * 8, lane & 1
    here = lane & 0  # words that all lanes read are read in the lanes' order
    lows, fifths = (at >> 1) * 4 + here, (at >> 3) * 4 + here
    return [
        scale
        * _pair_value(
            table,
            read(planes, 0, first, lows + k // 2, mask) >> low.to(tl.uint32),
            read(planes, 1, first, fifths + k // 2, mask) >> fifth.to(tl.uint32),
            column,
            k % 2,
        )
        for k in slots
    ]


@triton.jit
def _pair_value(table, low, fifth, column, h: tl.constexpr):
    """Two columns have one code."""
    code = (low >> (16 * h) & 15) | (fifth >> (16 * h) & 1) << 4
    return tl.load(table + (code * 2).to(tl.int32) + column).to(tl.float32)
