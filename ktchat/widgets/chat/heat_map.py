"""Counts as pictures of characters, which any terminal shows: a heat map of experts by layer, and a sparkline.

What does not fit is joined: a cell stands for neighbouring layers and experts, and shows their average.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

SHADES = " ░▒▓█"
"""Never used, seldom, about as often as if all were alike, more often, and far more often."""
STEPS = (0.75, 1.25, 2.0)
"""Times the average use from which on the next shade begins."""
BARS = "▁▂▃▄▅▆▇█"


class HeatRow(NamedTuple):
    """One row of a heat map: layers `first` to `last`, counted from 0 among the rows of the counts."""

    first: int
    last: int
    cells: str


class Joined(NamedTuple):
    """How many layers and experts one cell stands for."""

    layers: int
    experts: int


def joined(layers: int, experts: int, width: int, height: int) -> Joined:
    """The fewest that fit into so many cells."""
    return Joined(-(-layers // max(1, height)), -(-experts // max(1, width)))


def heat_map(counts: Sequence[Sequence[int]], width: int, height: int) -> list[HeatRow]:
    """A row for each layer of `counts` (layers, experts), or for as many together as fit into the height."""
    experts = len(counts[0]) if counts else 0
    many = joined(len(counts), experts, width, height)
    rows = []
    for first in range(0, len(counts), many.layers):
        group = counts[first : first + many.layers]
        sums = group[0]
        for row in group[1:]:
            sums = list(map(operator.add, sums, row))
        average = sum(sums) / experts
        cells = (sums[at : at + many.experts] for at in range(0, experts, many.experts))
        shades = "".join(shade(sum(cell) / len(cell), average) for cell in cells)
        rows.append(HeatRow(first, first + len(group) - 1, shades))
    return rows


def shade(uses: float, average: float) -> str:
    """The shade of an expert that was used so often where the average is another."""
    if not uses or not average:
        return SHADES[0]
    return SHADES[1 + sum(uses >= step * average for step in STEPS)]


def half_by(uses: Sequence[int]) -> int:
    """The fewest experts that had half of the uses; 0: there are none."""
    total, so_far, number = sum(uses), 0, 0
    for value, experts in sorted(Counter(uses).items(), reverse=True):
        wanted = -(-(total - 2 * so_far) // (2 * value)) if value else 0
        if wanted <= experts:
            return number + wanted
        so_far, number = so_far + value * experts, number + experts
    return number


def sparkline(values: Sequence[float], width: int) -> str:
    """Values from 0 to the highest, the average of neighbours where there are more than cells."""
    if not values or max(values) <= 0:
        return ""
    many = -(-len(values) // max(1, width))
    groups = (values[at : at + many] for at in range(0, len(values), many))
    means = [sum(group) / len(group) for group in groups]
    top = max(means)
    return "".join(BARS[min(len(BARS) - 1, int(mean / top * len(BARS)))] for mean in means)
