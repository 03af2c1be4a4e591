"""The kernel that moves a file's bits into a weight's planes, in the order of `layout`.

One launch a plane, for any number of matrices; needs no memory of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor as Buffer

from kernels.gpu.quant.layout import Codes, Plane, RowScale

_TILE = 1 << 16 if triton.knobs.runtime.interpret else 1024
"""Most bytes a program; in the interpreter it is programs that take time."""


@dataclass(frozen=True, slots=True)
class FileRows:
    """The same rows of some matrices as a file has them: `data` is (matrices, bytes), contiguous.

    A row is `prefix` bytes, then `per_row` blocks of `block` bytes.
    """

    data: Buffer
    block: int
    prefix: int = 0
    per_row: int = 1


def pack(plane: Plane, file: FileRows, target: Buffer) -> None:
    """Write one plane of a file's rows into `target`, (matrices, blocks * bytes of a block in the plane), whose
    rows are whole matrices apart.
    """
    matrices, size = file.data.shape
    width = plane.stop - plane.start
    count = size // (file.prefix + file.per_row * file.block) * file.per_row
    assert file.data.is_contiguous() and target.shape == (matrices, count * width)
    assert target.stride(1) == 1 and size < 1 << 31
    tile = min(_TILE, triton.next_power_of_2(count * width))
    bits, run, by_slot = (
        (plane.bits, plane.run, plane.by_slot) if isinstance(plane, Codes) else (0, 0, False)
    )
    _pack[(triton.cdiv(count * width, tile), matrices)](
        target,
        file.data,
        count,
        size,
        target.stride(0),
        file.per_row,
        PREFIX=file.prefix,
        OF_ROWS=isinstance(plane, RowScale),
        BLOCK=file.block,
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
    file,
    count,
    size,
    target_stride,
    per_row,
    PREFIX: tl.constexpr,
    OF_ROWS: tl.constexpr,
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
    block = at // WIDTH
    source = file + matrix * size + START
    if OF_ROWS:
        source += block // per_row * (per_row * BLOCK + PREFIX)
    elif PREFIX > 0:
        source += block * BLOCK + (block // per_row + 1) * PREFIX
    else:
        source += block * BLOCK
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
