"""Writes the grids that IQ1, IQ2 and IQ3 index: `python -m tests.kernels.write_grids`.

The formats define them as lists of points; gguf's Python package, which is ggml's own, has them. A point becomes
a word of 16 bits, its coordinates in the order that tile16_lattice.inc.h takes them apart in.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf import quants

HEADER = Path(__file__).parents[2] / "kernels" / "cpu" / "src" / "tile16_grids.h"

_PAIRS = (0, 1, 4, 5, 2, 3, 6, 7)
"""Coordinate of a point of 8 in bits 2i, 2i + 1 of its word."""

_COMMENT = """\
// The points of the grids that IQ1, IQ2 and IQ3 index, as the formats define them; written by
// tests/kernels/write_grids.py. Points of 8 are codes of 2 bits: of the coordinates 0, 1, 4, 5 in
// the low byte, 2, 3, 6, 7 in the high one. Points of 4 are codes of 4 bits in their order.
#pragma once

#include <cstdint>

namespace ktchat {
"""


def points(kind: type[quants.IQ1_S]) -> npt.NDArray[np.int64]:
    """The grid of a type: (points, coordinates)."""
    kind.init_grid()
    return np.asarray(kind.grid).reshape(kind.grid_shape).astype(np.int64)


def pairs(grid: npt.NDArray[np.int64], values: tuple[int, ...]) -> npt.NDArray[np.int64]:
    """Words of points of 8, whose coordinates are among `values`."""
    codes = np.searchsorted(values, grid)
    return sum(codes[:, coordinate] << 2 * at for at, coordinate in enumerate(_PAIRS))


def nibbles(
    grid: npt.NDArray[np.int64], values: tuple[int, ...], base: int
) -> npt.NDArray[np.int64]:
    """Words of points of 4; code `base` is the first of `values`."""
    codes = np.searchsorted(values, grid) + base
    return sum(codes[:, coordinate] << 4 * coordinate for coordinate in range(4))


def header() -> str:
    """The header's text."""
    three, eight = (8, 25, 43), (4, 12, 20, 28, 36, 44, 52, 62)
    tables = {
        "kGridIQ1": pairs(points(quants.IQ1_S), (-1, 0, 1)),
        "kGridIQ2_XXS": pairs(points(quants.IQ2_XXS), three),
        "kGridIQ2_XS": pairs(points(quants.IQ2_XS), three),
        "kGridIQ2_S": pairs(points(quants.IQ2_S), three),
        "kGridIQ3_XXS": nibbles(points(quants.IQ3_XXS), eight, 0),
        "kGridIQ3_S": nibbles(points(quants.IQ3_S), tuple(range(1, 16, 2)), 8),
    }
    text = _COMMENT
    for name, words in tables.items():
        text += f"\nalignas(64) constexpr uint16_t {name}[{len(words)}] = {{\n"
        for first in range(0, len(words), 12):
            text += "    " + " ".join(f"0x{word:04x}," for word in words[first : first + 12]) + "\n"
        text += "};\n"
    return text + "\n}  // namespace ktchat\n"


if __name__ == "__main__":
    HEADER.write_text(header())
