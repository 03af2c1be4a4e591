"""Decoders in Triton for the types whose numbers are indices into a codebook (`codebooks`).

Arguments and results are those of `decoders`. An index is cut to the codebook's size by its bits, so that no
file can make one read beside it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.quant.decoders import bits, half, low_half, read


@triton.jit
def _look_up(table, index):
    return tl.load(table + index).to(tl.float32)


@triton.jit
def iq4_nl(planes, table, first, at, lane, mask, slots):
    words = read(planes, 0, first, at * 4 + lane, mask)
    scale = read(planes, 1, first, at, mask).to(tl.float32)
    return [scale * _look_up(table, bits(words, 4, k)) for k in slots]


@triton.jit
def iq4_xs(planes, table, first, at, lane, mask, slots):
    words = read(planes, 0, first, at * 4 + lane, mask)
    start = (at >> 3) * 2
    d = low_half(read(planes, 1, first, start, mask))
    pairs = (read(planes, 1, first, start, mask) >> 16).to(tl.int32)
    nibbles = read(planes, 1, first, start + 1, mask).to(tl.int32)
    group = (at & 7).to(tl.int32)
    six = (nibbles >> group * 4 & 15) | (pairs >> group * 2 & 3) << 4
    scale = d * (six - 32).to(tl.float32)
    return [scale * _look_up(table, bits(words, 4, k)) for k in slots]


@triton.jit
def mxfp4(planes, table, first, at, lane, mask, slots):
    words = read(planes, 0, first, at * 4 + lane, mask)
    exponent = read(planes, 1, first, at, mask).to(tl.uint32)
    # 2^(e - 128): the table holds doubled values. The two smallest are below float32's normal ones.
    pattern = tl.where(exponent < 2, 0x00200000 << (exponent & 1), (exponent - 1) << 23)
    scale = pattern.to(tl.uint32).to(tl.float32, bitcast=True)
    return [scale * _look_up(table, bits(words, 4, k)) for k in slots]


@triton.jit
def _ue4m3(code):
    """Half an unsigned float of 4 exponent and 3 mantissa bits; the pattern of NaN stands for zero."""
    code = code.to(tl.uint32)
    exponent, mantissa = code >> 3 & 15, code & 7
    normal = (exponent + 119 << 23 | mantissa << 20).to(tl.float32, bitcast=True)
    small = mantissa.to(tl.float32) * 0.0009765625  # 2^-10
    return tl.where(code == 127, 0.0, tl.where(exponent == 0, small, normal))


@triton.jit
def nvfp4(planes, table, first, at, lane, mask, slots):
    words = read(planes, 0, first, at * 4 + lane, mask)
    scale0 = _ue4m3(read(planes, 1, first, at * 2, mask))
    scale1 = _ue4m3(read(planes, 1, first, at * 2 + 1, mask))
    return [half(k, scale0, scale1) * _look_up(table, bits(words, 4, k)) for k in slots]


# ---- grids: a index stands for the magnitudes of 8 columns (two slots) or of 4 (one) --------------


@triton.jit
def _signed(values, signs, k: tl.constexpr, lane):
    """`signs` has a bit for each of 8 columns, of which slot k holds the first or second four."""
    return tl.where((signs >> (k % 2 * 4 + lane) & 1) != 0, -values, values)


@triton.jit
def _all_signs(seven):
    """Eight signs from seven: their number is even."""
    parity = seven ^ seven >> 4
    parity = parity ^ parity >> 2
    parity = parity ^ parity >> 1
    return seven | (parity & 1) << 7


@triton.jit
def _eight(table, index, k: tl.constexpr, lane):
    return _look_up(table, index * 8 + k % 2 * 4 + lane)


@triton.jit
def iq2_xxs(planes, table, first, at, lane, mask, slots):
    d = read(planes, 1, first, at >> 3, mask).to(tl.float32)
    indices = read(planes, 0, first, at * 2, mask)
    rest = read(planes, 0, first, at * 2 + 1, mask)
    scale = d * (0.5 + (rest >> 28).to(tl.float32)) * 0.25
    return [
        scale
        * _signed(
            _eight(table, bits(indices, 8, k // 2), k, lane),
            _all_signs(bits(rest, 7, k // 2)),
            k,
            lane,
        )
        for k in slots
    ]


@triton.jit
def _iq2_xs_slot(planes, table, first, at, lane, mask, k: tl.constexpr):
    word = read(planes, 0, first, at * 4 + k // 2, mask).to(tl.uint32)
    return _signed(_eight(table, word & 511, k, lane), _all_signs(word >> 9), k, lane)


@triton.jit
def _iq2_scale(planes, plane: tl.constexpr, first, at, mask, h: tl.constexpr):
    """Scale of 16 columns, half h of a block: a nibble, then the float16 in the next plane."""
    nibble = bits(read(planes, plane, first, at, mask), 4, h)
    d = read(planes, plane + 1, first, at >> 3, mask).to(tl.float32)
    return d * (0.5 + nibble.to(tl.float32)) * 0.25


@triton.jit
def iq2_xs(planes, table, first, at, lane, mask, slots):
    scale0 = _iq2_scale(planes, 1, first, at, mask, 0)
    scale1 = _iq2_scale(planes, 1, first, at, mask, 1)
    return [
        half(k, scale0, scale1) * _iq2_xs_slot(planes, table, first, at, lane, mask, k)
        for k in slots
    ]


@triton.jit
def _iq2_s_slot(planes, table, first, at, lane, mask, k: tl.constexpr):
    low = read(planes, 0, first, at * 4 + k // 2, mask).to(tl.uint32)
    high = bits(read(planes, 2, first, at, mask), 2, k // 2)
    signs = read(planes, 1, first, at * 4 + k // 2, mask).to(tl.uint32)
    return _signed(_eight(table, low | high << 8, k, lane), signs, k, lane)


@triton.jit
def iq2_s(planes, table, first, at, lane, mask, slots):
    scale0 = _iq2_scale(planes, 3, first, at, mask, 0)
    scale1 = _iq2_scale(planes, 3, first, at, mask, 1)
    return [
        half(k, scale0, scale1) * _iq2_s_slot(planes, table, first, at, lane, mask, k)
        for k in slots
    ]


@triton.jit
def _iq3_xxs_slot(planes, table, first, at, lane, mask, rest, k: tl.constexpr):
    index = read(planes, 0, first, at * 8 + k, mask).to(tl.uint32)
    return _signed(_look_up(table, index * 4 + lane), _all_signs(bits(rest, 7, k // 2)), k, lane)


@triton.jit
def iq3_xxs(planes, table, first, at, lane, mask, slots):
    d = read(planes, 2, first, at >> 3, mask).to(tl.float32)
    rest = read(planes, 1, first, at, mask)
    scale = d * (0.5 + (rest >> 28).to(tl.float32)) * 0.5
    return [scale * _iq3_xxs_slot(planes, table, first, at, lane, mask, rest, k) for k in slots]


@triton.jit
def _iq3_s_slot(planes, table, first, at, lane, mask, k: tl.constexpr):
    low = read(planes, 0, first, at * 8 + k, mask).to(tl.uint32)
    high = bits(read(planes, 1, first, at, mask), 1, k)
    signs = read(planes, 2, first, at * 4 + k // 2, mask).to(tl.uint32)
    return _signed(_look_up(table, (low | high << 8) * 4 + lane), signs, k, lane)


@triton.jit
def iq3_s(planes, table, first, at, lane, mask, slots):
    d = read(planes, 4, first, at >> 3, mask).to(tl.float32)
    nibble = read(planes, 3, first, at >> 1, mask).to(tl.int32) >> (at & 1).to(tl.int32) * 4 & 15
    scale = d * (1 + 2 * nibble).to(tl.float32)
    return [scale * _iq3_s_slot(planes, table, first, at, lane, mask, k) for k in slots]


@triton.jit
def _iq1_slot(planes, table, first, at, lane, mask, high, k: tl.constexpr):
    """Slot k of IQ1: `high` has three bits of the index, then the sign of the shift of 1/8."""
    low = read(planes, 0, first, at * 4 + k // 2, mask).to(tl.uint32)
    shift = tl.where((high & 8) != 0, -0.125, 0.125)
    return _eight(table, low | (high & 7) << 8, k, lane) + shift


@triton.jit
def _iq1_s_high(word, k: tl.constexpr):
    return bits(word, 3, k // 2) | (word >> 15).to(tl.uint32) << 3


@triton.jit
def iq1_s(planes, table, first, at, lane, mask, slots):
    d = read(planes, 2, first, at >> 3, mask).to(tl.float32)
    word = read(planes, 1, first, at, mask)
    scale = d * (2 * bits(word, 3, 4) + 1).to(tl.float32)
    return [
        scale * _iq1_slot(planes, table, first, at, lane, mask, _iq1_s_high(word, k), k)
        for k in slots
    ]


@triton.jit
def _iq1_m_scale(planes, first, at, mask, h: tl.constexpr):
    """Scale of half h of a block: 3 bits, four to a word whose top nibble is a part of the float16."""
    group = ((at & 7) * 2 + h).to(tl.int32)
    word = read(planes, 2, first, (at >> 3) * 4 + (group >> 2), mask).to(tl.int32)
    return (2 * (word >> (group & 3) * 3 & 7) + 1).to(tl.float32)


@triton.jit
def _iq1_m_d(planes, first, at, mask):
    start = (at >> 3) * 4
    part0 = read(planes, 2, first, start, mask) >> 12
    part1 = read(planes, 2, first, start + 1, mask) >> 12
    part2 = read(planes, 2, first, start + 2, mask) >> 12
    part3 = read(planes, 2, first, start + 3, mask) >> 12
    joined = part0 | part1 << 4 | part2 << 8 | part3 << 12
    return joined.to(tl.uint16).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def iq1_m(planes, table, first, at, lane, mask, slots):
    d = _iq1_m_d(planes, first, at, mask)
    nibbles = read(planes, 1, first, at, mask)
    scale0 = d * _iq1_m_scale(planes, first, at, mask, 0)
    scale1 = d * _iq1_m_scale(planes, first, at, mask, 1)
    return [
        half(k, scale0, scale1)
        * _iq1_slot(planes, table, first, at, lane, mask, bits(nibbles, 4, k // 2), k)
        for k in slots
    ]
