"""The kernel that moves a file's bits into a weight's planes, in the order of `layout`.

One launch a plane, for any number of matrices; needs no memory of its own.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor as Buffer

from kernels.gpu.quant.layout import Codes, Plane

_TILE = 1 << 16 if triton.knobs.runtime.interpret else 1024
"""Most bytes a program; in the interpreter it is programs that take time."""


def pack(plane: Plane, blocks: Buffer, target: Buffer) -> None:
    """Write one plane of the same blocks of some matrices.

    `blocks` is (matrices, count, bytes of a block), contiguous, as the file has them; `target` is
    (matrices, count * bytes of a block in the plane), its rows whole matrices apart.
    """
    matrices, count, size = blocks.shape
    width = plane.stop - plane.start
    assert blocks.is_contiguous() and target.shape == (matrices, count * width)
    assert target.stride(1) == 1 and count * size < 1 << 31
    tile = min(_TILE, triton.next_power_of_2(count * width))
    bits, run, by_slot = (
        (plane.bits, plane.run, plane.by_slot) if isinstance(plane, Codes) else (0, 0, False)
    )
    _pack[(triton.cdiv(count * width, tile), matrices)](
        target,
        blocks,
        count,
        target.stride(0),
        BLOCK=size,
        START=plane.start,
        WIDTH=width,
        BITS=bits,
        RUN=run,
        BY_SLOT=by_slot,
        TILE=tile,
    )


@triton.jit
def _pack(
    target,
    blocks,
    count,
    target_stride,
    BLOCK: tl.constexpr,
    START: tl.constexpr,
    WIDTH: tl.constexpr,
    BITS: tl.constexpr,
    RUN: tl.constexpr,
    BY_SLOT: tl.constexpr,
    TILE: tl.constexpr,
):
    """Byte by byte of the plane; a byte of numbers gathers its 8 / BITS numbers from as many bytes."""
    matrix = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = at < count * WIDTH
    byte = at % WIDTH
    source = blocks + matrix * count * BLOCK + at // WIDTH * BLOCK + START
    if BITS == 0:
        packed = tl.load(source + byte, mask=inside, other=0)
    else:
        PARTS: tl.constexpr = 8 // BITS
        within = byte % (4 * BITS)
        word, i = within // 4, within % 4
        first = byte // (4 * BITS) * 32
        packed = tl.zeros([TILE], tl.uint32)
        for part in tl.static_range(PARTS):
            if BY_SLOT:
                local = 4 * (2 * i + part) + word
            elif BITS == 8:
                local = word // 4 * 16 + 4 * i + word % 4
            else:
                if BITS == 1:
                    group = part // 2 % 2 * 4 + part // 4 * 2 + part % 2
                else:
                    group = word * PARTS + part
                local = group % 2 * 16 + 4 * i + group // 2
            column = first + local
            index = column // (RUN * PARTS) * RUN + column % RUN
            code = tl.load(source + index, mask=inside, other=0).to(tl.uint32)
            code = code >> (column // RUN % PARTS * BITS).to(tl.uint32)
            packed |= (code & ((1 << BITS) - 1)) << (part * BITS)
    tl.store(target + matrix * target_stride + at, packed.to(tl.uint8), mask=inside)
