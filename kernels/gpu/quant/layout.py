"""How the bytes of a GGUF matrix lie on a GPU: one plane a field, numbers in the order threads take.

What the bytes mean is for the decoders. Nothing is quantised again: packing moves bits and loses none.
Every row is cut into blocks of 32 columns. A plane holds one field of all blocks of a
matrix, row after row, so that neighbouring threads read neighbouring bytes.

A block's 32 numbers are eight groups of four: group (j, h) holds the columns 16 h + 4 i + j, i = 0 .. 3. Number
i of a group lies in byte i of a 32-bit word, so that one mask leaves a group's four numbers in four bytes,
which is what a product of four bytes at once takes, beside activations in the same groups. A group has one
half h of the block, since some types have a scale for every 16 columns.

- 4 bits: word j has (j, 0) in its low nibbles and (j, 1) in its high ones;
- 2 bits: two words; groups follow each other as 2 j + h, from the lowest bits on;
- 1 bit: one word; group (j, h) at bit 4 (j % 2) + 2 (j // 2) + h, so that those of groups whose 2 bits lie four
  apart do too;
- 8 bits: eight words, 4 h + j: a load has at most 16 bytes;
- 4 bits `by_slot`, for types that look their numbers up: nibble 4 h + i of word j. Four nibbles that follow
  each other choose the bytes of a group (PTX's prmt).

Slot k = 4 h + i of lane j is column 4 k + j: so decoders to float32 count.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels.gpu.sizes import ALIGNMENT

SLOTS = 8
"""Columns of a block that a lane has."""


@dataclass(frozen=True, slots=True)
class Codes:
    """Numbers of `bits` bits in the bytes start .. stop of a file's block.

    As GGUF packs them: of every `run` bytes, the lowest bits of each byte come first, then the next.
    """

    start: int
    stop: int
    bits: int
    run: int
    by_slot: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """They are read as words."""
        return torch.uint32


@dataclass(frozen=True, slots=True)
class Raw:
    """The bytes start .. stop of a file's block as they are, read as `dtype`."""

    start: int
    stop: int
    dtype: torch.dtype = torch.uint8


@dataclass(frozen=True, slots=True)
class RowScale:
    """The scale that a file's row begins with, `stop` bytes read as `dtype`: once for each of the row's blocks."""

    stop: int
    dtype: torch.dtype
    start: int = 0


Plane = Codes | Raw | RowScale


def plane_starts(planes: tuple[Plane, ...], blocks: int) -> tuple[int, ...]:
    """Where each plane of a matrix with so many file blocks begins, then the matrix's size, in bytes."""
    starts = [0]
    for plane in planes:
        end = starts[-1] + blocks * (plane.stop - plane.start)
        starts.append(-(-end // ALIGNMENT) * ALIGNMENT)
    return tuple(starts)
