"""A memory plan as bars: where every gigabyte of a device goes, and in words how it will run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from textual.content import Content
from textual.widget import Widget

from engine.plan import report
from ktchat.common.text import one_line
from ktchat.widgets.lines import styled, wrap

if TYPE_CHECKING:
    from engine.plan.memory_plan import DevicePlan, MemoryPlan

FULL, FREE = "▇", "╌"
PARTS = ("experts", "attention", "other", "cache", "states", "work", "reserve")
"""Styles of a bar's parts, in their order."""
_PART_OF = {
    "routed experts": "experts",
    "attention": "attention",
    "KV cache": "cache",
    "sliding windows": "cache",
    "recurrent states": "states",
    "workspace": "work",
    "reserve": "reserve",
}
_NAMES = {
    "experts": "experts",
    "attention": "attention",
    "other": "other weights",
    "cache": "KV cache",
    "states": "recurrent states",
    "work": "work space",
    "reserve": "reserve",
}
WORDS_WIDTH = 96


class PlanBars(Widget):
    """The plan of the model under the cursor, or words where there is none."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *PARTS, "free", "short", "strong", "dim",
    }  # fmt: skip
    DEFAULT_CSS = """
    PlanBars { height: auto; width: 1fr; padding: 0 2; }
    PlanBars > .experts { color: $accent; }
    PlanBars > .attention { color: $accent 72%; }
    PlanBars > .other { color: $accent 48%; }
    PlanBars > .cache { color: $foreground 75%; }
    PlanBars > .states { color: $foreground 70%; }
    PlanBars > .work { color: $foreground 70%; }
    PlanBars > .reserve { color: $foreground 30%; }
    PlanBars > .free { color: $foreground 18%; }
    PlanBars > .short { color: $warning; }
    PlanBars > .strong { text-style: bold; }
    PlanBars > .dim { color: $foreground 70%; }
    PlanBars:ansi > .dim, PlanBars:ansi > .free { text-style: dim; }
    """

    def __init__(self) -> None:
        super().__init__()
        self.plan: MemoryPlan | None = None
        self._notes: tuple[str, ...] = ()

    def show(self, plan: MemoryPlan | None, *notes: str) -> None:
        """Show a plan and lines under it, which are made safe to draw."""
        if plan is not self.plan or notes != self._notes:
            self.plan, self._notes = plan, notes
            self.refresh(layout=True)

    def render(self) -> Content:
        width = self.content_size.width or 40
        lines = plan_lines(self.plan, width) if self.plan is not None else []
        for note in self._notes:
            if note:
                lines += [row.content for row in wrap(styled(one_line(note, 600), ".dim"), width)]
        return Content("\n").join(lines)


def plan_lines(plan: MemoryPlan, width: int) -> list[Content]:
    """A headline, a bar a device with its legend, and the plan's words."""
    words = [one_line(text, 300) for text in report.words(plan)]
    headline = styled(words[0], ".strong" if plan.fits else ".short")
    lines = [row.content for row in wrap(headline, width)]
    for device in plan.devices:
        lines += device_lines(device, width)
    for text in words[1:]:
        lines += [row.content for row in wrap(styled(text, ".dim"), min(width, WORDS_WIDTH))]
    return lines


def device_lines(device: DevicePlan, width: int) -> list[Content]:
    """A device's bar, as long as its free memory; what is missing goes beyond, in amber."""
    from engine.common.units import byte_size

    name = one_line(device.kind if device.kind == "RAM" else device.name, 20)
    if device.short:
        end = styled(f"short by {byte_size(device.short)}", ".short")
    else:
        left = byte_size(max(0, device.total - device.used))
        end = styled(f"{left} left of {byte_size(device.total)}" if device.total else "", ".dim")
    room = max(8, width - len(name) - end.cell_length - 4)
    bar = _bar(device, room)
    lines = [Content(f"{name}  ") + bar + Content("  ") + end]
    legend: list[Content] = []
    for part, count in _parts(device):
        if count * 200 >= max(1, device.used):
            label = styled(f" {_NAMES[part]} {byte_size(count)}", ".dim")
            legend.append(styled(FULL, f".{part}") + label)
    return [*lines, *_flow(legend, width, len(name) + 2)]


def _parts(device: DevicePlan) -> list[tuple[str, int]]:
    sums = dict.fromkeys(PARTS, 0)
    for segment in device.segments:
        sums[_PART_OF.get(segment.label, "other")] += segment.bytes
    return [(part, count) for part, count in sums.items() if count]


def _bar(device: DevicePlan, cells: int) -> Content:
    scale = max(device.total, device.used, 1)
    limit = round(cells * device.total / scale) if device.short else cells
    bar, done, drawn = Content(""), 0, 0
    for part, count in _parts(device):
        done += count
        upto = round(cells * done / scale)
        inside = max(0, min(upto, limit) - drawn)
        bar += styled(FULL * inside, f".{part}")
        bar += styled(FULL * max(0, upto - drawn - inside), ".short")
        drawn = max(drawn, upto)
    return bar + styled(FREE * (cells - drawn), ".free")


def _flow(items: Sequence[Content], width: int, lead: int) -> list[Content]:
    """Items one after the other, as many in a row as fit."""
    rows: list[Content] = []
    row = Content(" " * lead)
    for item in items:
        if row.cell_length > lead and row.cell_length + 2 + item.cell_length > width:
            rows.append(row)
            row = Content(" " * lead)
        row += (Content("  ") if row.cell_length > lead else Content("")) + item
    return [*rows, row] if row.cell_length > lead else rows
