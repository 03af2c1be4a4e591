"""Words of four bytes: loads of several at once, products of four bytes, bytes that choose bytes.

Each is one instruction of PTX, which Triton has no name for. In the interpreter each is the same numbers in
plain arithmetic.
"""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def load_four(pointer):
    """Four words that follow each other, from a multiple of 16 bytes; nobody may be writing them."""
    if INTERPRETED:
        return (
            tl.load(pointer).to(tl.int32, bitcast=True),
            tl.load(pointer + 1).to(tl.int32, bitcast=True),
            tl.load(pointer + 2).to(tl.int32, bitcast=True),
            tl.load(pointer + 3).to(tl.int32, bitcast=True),
        )
    return tl.inline_asm_elementwise(
        "ld.global.nc.v4.b32 {$0, $1, $2, $3}, [$4];",
        "=r,=r,=r,=r,l",
        [pointer],
        dtype=(tl.int32, tl.int32, tl.int32, tl.int32),
        is_pure=True,
        pack=1,
    )


@triton.jit
def read_four(pointer):
    """The same of words that a kernel before this one has written."""
    if INTERPRETED:
        return load_four(pointer)
    return tl.inline_asm_elementwise(
        "ld.global.v4.b32 {$0, $1, $2, $3}, [$4];",
        "=r,=r,=r,=r,l",
        [pointer],
        dtype=(tl.int32, tl.int32, tl.int32, tl.int32),
        is_pure=True,
        pack=1,
    )


@triton.jit
def load_two(pointer):
    """Two words that follow each other, from a multiple of 8 bytes; nobody may be writing them."""
    if INTERPRETED:
        return (
            tl.load(pointer).to(tl.int32, bitcast=True),
            tl.load(pointer + 1).to(tl.int32, bitcast=True),
        )
    return tl.inline_asm_elementwise(
        "ld.global.nc.v2.b32 {$0, $1}, [$2];",
        "=r,=r,l",
        [pointer],
        dtype=(tl.int32, tl.int32),
        is_pure=True,
        pack=1,
    )


@triton.jit
def load_word(pointer):
    """One word; nobody may be writing it. Triton's own loads would have each thread read neighbours, and so
    give the whole product that order."""
    if INTERPRETED:
        return tl.load(pointer).to(tl.int32, bitcast=True)
    return tl.inline_asm_elementwise(
        "ld.global.nc.b32 $0, [$1];", "=r,l", [pointer], dtype=tl.int32, is_pure=True, pack=1
    )


@triton.jit
def read_word(pointer):
    """The same of a word that a kernel before this one has written."""
    if INTERPRETED:
        return tl.load(pointer).to(tl.int32, bitcast=True)
    return tl.inline_asm_elementwise(
        "ld.global.b32 $0, [$1];", "=r,l", [pointer], dtype=tl.int32, is_pure=True, pack=1
    )


@triton.jit
def load_short(pointer):
    """16 bits, unsigned, in the same way."""
    if INTERPRETED:
        return tl.load(pointer).to(tl.uint16, bitcast=True).to(tl.int32)
    return tl.inline_asm_elementwise(
        "{ .reg .b16 short; ld.global.nc.b16 short, [$1]; cvt.u32.u16 $0, short; }",
        "=r,l",
        [pointer],
        dtype=tl.int32,
        is_pure=True,
        pack=1,
    )


@triton.jit
def load_byte(pointer):
    """8 bits, unsigned, in the same way."""
    if INTERPRETED:
        return tl.load(pointer).to(tl.int32)
    return tl.inline_asm_elementwise(
        "ld.global.nc.u8 $0, [$1];", "=r,l", [pointer], dtype=tl.int32, is_pure=True, pack=1
    )


@triton.jit
def load_half(pointer):
    """A float16, as float32, in the same way."""
    if INTERPRETED:
        return tl.load(pointer).to(tl.float32)
    return tl.inline_asm_elementwise(
        "{ .reg .b16 half; ld.global.nc.b16 half, [$1]; cvt.f32.f16 $0, half; }",
        "=f,l",
        [pointer],
        dtype=tl.float32,
        is_pure=True,
        pack=1,
    )


@triton.jit
def add_products(a, b, total):
    """total + the sum of the products of four signed bytes each."""
    if INTERPRETED:
        total += (a << 24 >> 24) * (b << 24 >> 24)
        total += (a << 16 >> 24) * (b << 16 >> 24)
        total += (a << 8 >> 24) * (b << 8 >> 24)
        return total + (a >> 24) * (b >> 24)
    return tl.inline_asm_elementwise(
        "dp4a.s32.s32 $0, $1, $2, $3;",
        "=r,r,r,r",
        [a, b, total],
        dtype=tl.int32,
        is_pure=True,
        pack=1,
    )


@triton.jit
def wide_product(a, b):
    """a * b in 64 bits, both at least 0: one instruction, where sums of 64 bits would take four."""
    if INTERPRETED:
        return a.to(tl.int64) * b
    return tl.inline_asm_elementwise(
        "mul.wide.u32 $0, $1, $2;", "=l,r,r", [a, b], dtype=tl.int64, is_pure=True, pack=1
    )


@triton.jit
def choose_bytes(low, high, selector):
    """Byte i is the byte of (low, high) that the lower three bits of nibble i of the selector's lower half say;
    where the nibble's fourth bit is set, it is all ones or all zeros, as that byte's sign is."""
    if INTERPRETED:
        chosen = selector * 0
        for i in tl.static_range(4):
            nibble = selector >> (4 * i) & 15
            word = tl.where((nibble & 4) == 0, low, high)
            byte = word >> ((nibble & 3) * 8) & 255
            byte = tl.where((nibble & 8) == 0, byte, (byte >> 7) * 255)
            chosen |= byte << (8 * i)
        return chosen
    return tl.inline_asm_elementwise(
        "prmt.b32 $0, $1, $2, $3;",
        "=r,r,r,r",
        [low, high, selector],
        dtype=tl.int32,
        is_pure=True,
        pack=1,
    )


@triton.jit
def two_floats(word):
    """The float16 numbers in a word's lower and upper half, as float32."""
    if INTERPRETED:
        low = (word & 0xFFFF).to(tl.uint16).to(tl.float16, bitcast=True)
        high = (word >> 16 & 0xFFFF).to(tl.uint16).to(tl.float16, bitcast=True)
        return low.to(tl.float32), high.to(tl.float32)
    return tl.inline_asm_elementwise(
        """{
            .reg .b16 low, high;
            mov.b32 {low, high}, $2;
            cvt.f32.f16 $0, low;
            cvt.f32.f16 $1, high;
        }""",
        "=f,=f,r",
        [word],
        dtype=(tl.float32, tl.float32),
        is_pure=True,
        pack=1,
    )
