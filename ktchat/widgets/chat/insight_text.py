"""How a reply was computed, as lines of a width: where the time goes, how fast it was, which experts worked."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from textual.content import Content

from engine.common.insight import HOPS, ExpertCounts, Hop, Insight
from engine.common.units import byte_size, count, gb_s, rate
from ktchat.widgets.chat.heat_map import SHADES, half_by, heat_map, joined, sparkline
from ktchat.widgets.lines import styled, wrap

LEAST_MAP, HEAD = 6, 3
"""Rows that a heat map has at least, where there are as many layers, and rows above it."""
WIDEST_CELL = 3
"""Characters of an expert's cell where there is room."""

DENSE = "This model has no experts: every token uses all of its weights."
UNTOLD = "llama.cpp computes this model. It does not tell which experts it uses."
NOTHING = "Nothing yet. It shows while a reply is written, and stays for the last one of a session."
FORGOTTEN = (
    "How this reply was computed is not known any more: it is kept for the last reply of a session,"
    " while ktchat runs."
)
LEGEND = (
    f"{SHADES[1]} less often than the average expert, {SHADES[2]} about as often,"
    f" {SHADES[3]} more often, {SHADES[4]} twice and more; empty: never"
)
_HOP_WORDS: dict[Hop, str] = {
    "RAM": "reading RAM",
    "VRAM": "reading VRAM",
    "PCIe": "hand-overs between GPU and CPU",
    "arithmetic": "arithmetic and all else",
}


def lines(insight: Insight, width: int, height: int) -> list[Content]:
    """All there is to say, in `width` cells a line. The heat map fills what is left of `height`."""
    out: list[Content] = []
    for part in (*_speed(insight, width), *_reading(insight)):
        out += [line.content for line in wrap(part, width)]
    if insight.experts is None:
        words = UNTOLD if insight.no_experts == "untold" else DENSE
        return [*out, Content(""), *(line.content for line in wrap(Content(words), width))]
    out.append(Content(""))
    layers = _Layers.of(insight.experts)
    for part in _experts(insight, insight.experts, layers):
        out += [line.content for line in wrap(part, width)]
    legend = [line.content for line in wrap(styled(LEGEND, ".dim"), width)]
    room = max(height - len(out) - len(legend) - HEAD, min(LEAST_MAP, insight.experts.layers))
    return [*out, Content(""), *_map(insight.experts, layers, width, room), *legend]


def _speed(insight: Insight, width: int) -> list[Content]:
    out = []
    if insight.token_seconds > 0:
        out.append(Content(f"{rate(1 / insight.token_seconds, True)} over this reply"))
    rates = speeds(insight)
    if len(rates) > 1:
        most = f" to {rate(max(rates), True)}"
        bars = styled(sparkline(rates, max(8, width - len(most))), ".heat")
        out.append(bars + styled(most, ".dim"))
    return out


def speeds(insight: Insight) -> list[float]:
    """Tokens a second in each slice of time; what the last one lacks of a whole slice is not there."""
    whole = list(insight.slices)
    if not whole or insight.slice_seconds <= 0:
        return []
    seconds = insight.token_seconds * (sum(whole) - 1)
    left = seconds - (len(whole) - 1) * insight.slice_seconds
    out = [tokens / insight.slice_seconds for tokens in whole[:-1]]
    if left >= insight.slice_seconds / 2 or not out:
        out.append(whole[-1] / max(left, insight.slice_seconds / 2))
    return out


def _reading(insight: Insight) -> list[Content]:
    read = [
        f"{byte_size(amount)} of {name}"
        for amount, name in ((insight.ram_bytes, "RAM"), (insight.vram_bytes, "VRAM"))
        if amount
    ]
    words = "a token reads " + " and ".join(read)
    if insight.token_seconds > 0:
        each = (insight.ram_bytes + insight.vram_bytes) / insight.token_seconds / 1e9
        words += f": {gb_s(each)}"
    can = [
        f"{name} {gb_s(speed)}"
        for speed, name in ((insight.ram_gb_s, "RAM"), (insight.vram_gb_s, "VRAM"))
        if speed
    ]
    if can:
        words += f" (at most {' and '.join(can)})"
    out = [Content(words)] if read else []
    if insight.passes and insight.tokens > insight.passes:
        out.append(
            Content(f"{insight.tokens / insight.passes:.2f} tokens a pass, by prompt lookup")
        )
    if insight.hop is None:
        if insight.token_seconds > 0:
            words = "what limits is not known: ktchat doctor measures the memory's speed"
            out.append(styled(words, ".dim"))
        return out
    total = sum(insight.hop_seconds)
    parts = [
        f"{name} {seconds / total:.0%}"
        for name, seconds in zip(HOPS, insight.hop_seconds, strict=False)
        if seconds >= total / 200
    ]
    limit = styled(f"limited by {_HOP_WORDS[insight.hop]}", ".strong")
    return [*out, limit + styled(f" · {' · '.join(parts)} of a token's time", ".dim")]


class _Layers(NamedTuple):
    """What is known of each layer."""

    rows: list[Sequence[int]]
    uses: list[int]
    halves: list[int]
    """Experts that did half of the work."""
    on_gpu: list[int]
    """Uses; empty where no GPU takes part."""

    @classmethod
    def of(cls, experts: ExpertCounts) -> _Layers:
        rows = experts.rows()
        there = [sum(row) for row in experts.rows_on_gpu()]
        return cls(rows, [sum(row) for row in rows], [half_by(row) for row in rows], there)


def _experts(insight: Insight, experts: ExpertCounts, layers: _Layers) -> list[Content]:
    words = f"{count(insight.tokens)} token{'s' * (insight.tokens != 1)} of this reply counted, the prompt is not"
    out = [
        styled(
            f"{experts.top_k} of {experts.experts} experts in {experts.layers} layers", ".strong"
        ),
        styled(words, ".dim"),
    ]
    if any(layers.halves):
        typical = statistics.median_low(half for half in layers.halves if half)
        out.append(Content(f"half of a layer's work by {typical} of {experts.experts} experts"))
    if layers.on_gpu:
        share = sum(layers.on_gpu) / max(1, sum(layers.uses))
        out.append(Content(f"{share:.0%} of their work on the GPU, {1 - share:.0%} in RAM"))
    return out


def _map(experts: ExpertCounts, layers: _Layers, width: int, height: int) -> list[Content]:
    """A head, then a row for each layer (or some together): its number, its cells, and at the right how many experts
    did half of the work, and how much of it the GPU did. `height`: rows of layers."""
    there = bool(layers.on_gpu)
    last = experts.first_layer + experts.layers - 1
    label = len(str(last)) + 1
    tail = 5 + 5 * there
    room = max(8, width - label - tail)
    many = joined(experts.layers, experts.experts, room, height)
    cells = -(-experts.experts // many.experts)
    wide = max(1, min(WIDEST_CELL, room // cells))
    head = " " * label + "half".rjust(wide * cells + 5) + (" GPU".rjust(5) if there else "")
    out = [styled(_said(many), ".dim")] if many != (1, 1) else []
    out.append(styled(head, ".dim"))
    for row in heat_map(layers.rows, room, height):
        group = slice(row.first, row.last + 1)
        half = round(sum(layers.halves[group]) / (row.last + 1 - row.first))
        line = styled(str(experts.first_layer + row.first).rjust(label - 1) + " ", ".dim")
        line += styled("".join(cell * wide for cell in row.cells), ".heat")
        line += styled(str(half).rjust(5), ".dim")
        if there:
            uses, on = (sum(part[group]) for part in (layers.uses, layers.on_gpu))
            line += styled((f"{on / uses:.0%}" if uses else "-").rjust(5), ".dim")
        out.append(line)
    return out


def _said(many: tuple[int, int]) -> str:
    layers, experts = many
    words = [
        f"{number} {noun}s"
        for number, noun in ((layers, "layer"), (experts, "expert"))
        if number > 1
    ]
    return f"a cell is {' of '.join(reversed(words))}"
