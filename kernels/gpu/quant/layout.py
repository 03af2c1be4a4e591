"""How the bytes of a GGUF matrix lie on a GPU: one plane a field, numbers in the order threads take.

What the bytes mean is for the decoders. Nothing is quantised again: packing moves bits and loses none.
Every row is cut into blocks of 32 columns. A plane holds one field of all blocks of a
matrix, row after row, so that neighbouring threads read neighbouring bytes.

The numbers of a block are packed as four words, one a lane: slot k of lane j is column 4 k + j. A
thread so loads its four words at once (16 bytes of 4-bit numbers) and finds slot k of each with the
same shift, beside four activations that are neighbours too. Numbers of 8 bits take four words for
slots 0 to 3, then four more: a load has at most 16 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels.gpu.sizes import ALIGNMENT

SLOTS = 8
"""Columns of a block that a lane has."""
_WORD = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint32}


@dataclass(frozen=True, slots=True)
class Codes:
    """Numbers of `bits` bits in the bytes start .. stop of a file's block.

    As GGUF packs them: of every `run` bytes, the lowest bits of each byte come first, then the next.
    """

    start: int
    stop: int
    bits: int
    run: int

    @property
    def dtype(self) -> torch.dtype:
        """A word: eight numbers, or four of 8 bits."""
        return _WORD[self.bits]


@dataclass(frozen=True, slots=True)
class Raw:
    """The bytes start .. stop of a file's block as they are, read as `dtype`."""

    start: int
    stop: int
    dtype: torch.dtype = torch.uint8


Plane = Codes | Raw


def plane_starts(planes: tuple[Plane, ...], blocks: int) -> tuple[int, ...]:
    """Where each plane of a matrix with so many file blocks begins, then the matrix's size, in bytes."""
    starts = [0]
    for plane in planes:
        end = starts[-1] + blocks * (plane.stop - plane.start)
        starts.append(-(-end // ALIGNMENT) * ALIGNMENT)
    return tuple(starts)
