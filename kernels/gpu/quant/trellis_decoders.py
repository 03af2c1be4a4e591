"""Decoders in Triton for the trellis types of ik_llama.cpp; `kernels.ik_types` says what their bits mean.

Arguments and results are those of `decoders`. Values are computed, so that there is no table but that of scales.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.quant.decoders import read

_P1 = tl.constexpr(0xCBAC1FED)
_P2 = tl.constexpr(_P1.value**2 & 0xFFFFFFFF)
_P3 = tl.constexpr(_P1.value**3 & 0xFFFFFFFF)
_P4 = tl.constexpr(_P1.value**4 & 0xFFFFFFFF)


@triton.jit
def _value(start, lane, k: tl.constexpr):
    """Column 4 k + lane behind `start`: k is 0 or 1."""
    power = tl.where(lane == 0, _P1, tl.where(lane == 1, _P2, tl.where(lane == 2, _P3, _P4)))
    number = (start + 4096).to(tl.uint32) * power.to(tl.uint32)
    if k == 1:
        number = number * tl.cast(_P4, tl.uint32)
    number = number & 0x3F3F3F3F
    sums = (number & 255) + (number >> 8 & 255) + (number >> 16 & 255) + (number >> 24)
    return sums.to(tl.int32).to(tl.float32) - 126.0


@triton.jit
def _nibble_scale(planes, plane: tl.constexpr, first, at, mask):
    """One of eight in four bytes."""
    both = read(planes, plane, first, (at >> 3) * 4 + (at & 3), mask).to(tl.int32)
    return both >> ((at >> 2 & 1) * 4).to(tl.int32) & 15


@triton.jit
def iq1_kt(planes, table, first, at, lane, mask, slots):
    head = read(planes, 2, first, at, mask).to(tl.int32)
    d = read(planes, 3, first, at >> 3, mask)
    scale = d * tl.load(table + (head & 15)).to(tl.float32)
    return [
        scale * _value(_iq1_start(planes, first, at, mask, head, k // 2), lane, k % 2)
        for k in slots
    ]


@triton.jit
def _iq1_start(planes, first, at, mask, head, g: tl.constexpr):
    low = read(planes, 0, first, at * 4 + g, mask).to(tl.int32)
    both = read(planes, 1, first, (at >> 3) * 16 + (at & 3) * 4 + g, mask).to(tl.int32)
    high = both >> ((at >> 2 & 1) * 4).to(tl.int32) & 15
    return low | high << 8 | (head >> (4 + g) & 1) << 12


@triton.jit
def iq2_kt(planes, table, first, at, lane, mask, slots):
    code = _nibble_scale(planes, 1, first, at, mask)
    scale = read(planes, 2, first, at >> 3, mask) * tl.load(table + code).to(tl.float32)
    return [
        scale * _value(read(planes, 0, first, at * 4 + k // 2, mask).to(tl.int32), lane, k % 2)
        for k in slots
    ]


@triton.jit
def iq3_kt(planes, table, first, at, lane, mask, slots):
    code = _nibble_scale(planes, 2, first, at, mask)
    scale = read(planes, 3, first, at >> 3, mask) * code.to(tl.float32)
    return [scale * _iq3_slot(planes, first, at, lane, mask, k) for k in slots]


@triton.jit
def _iq3_slot(planes, first, at, lane, mask, k: tl.constexpr):
    start = read(planes, 0, first, at * 4 + k // 2, mask).to(tl.int32)
    signs = read(planes, 1, first, (at >> 3) * 32 + 4 * k + lane, mask).to(tl.int32)
    size = tl.abs(_value(start, lane, k % 2))
    return tl.where((signs >> (at & 7).to(tl.int32) & 1) != 0, -size, size)


@triton.jit
def iq4_kt(planes, table, first, at, lane, mask, slots):
    head = read(planes, 2, first, at, mask).to(tl.int32, bitcast=True)
    scale = read(planes, 3, first, at >> 3, mask) * ((head >> 1 & 127) - 64).to(tl.float32)
    return [scale * _value(_iq4_start(planes, first, at, mask, head, k), lane, 0) for k in slots]


@triton.jit
def _iq4_start(planes, first, at, mask, head, k: tl.constexpr):
    low = read(planes, 0, first, at * 8 + k, mask).to(tl.int32)
    both = read(planes, 1, first, (at >> 3) * 32 + (at & 3) * 8 + k, mask).to(tl.int32)
    high = both >> ((at >> 2 & 1) * 4).to(tl.int32) & 15
    return (low | high << 8 | (head >> (8 + 3 * k) & 7) << 12) + (head & 1) * 32768
