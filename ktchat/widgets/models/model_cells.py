"""Cells of the model tables: sizes, fit, speeds.

A measured speed stands plain, a predicted one with `~`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from engine.common.units import byte_size
from ktchat.widgets.lines import styled

if TYPE_CHECKING:
    from engine.plan.memory_plan import MemoryPlan
    from ktchat.library.local_models import LocalModel

DIM = "$foreground 70%"


def size_cell(size: int, computed: bool = False) -> Content:
    """`18.6 GB`, with `~` when it is computed."""
    return Content(f"{'~' if computed else ''}{byte_size(size)}" if size else "")


def fit_cell(plan: MemoryPlan | None, rough: str = "") -> Content:
    """`CPU`, `short by 12 GB of RAM`; without a plan the rough words, dim."""
    if plan is None:
        return styled(rough, DIM)
    return Content(plan.fit_words) if plan.fits else styled(plan.fit_words, "$warning")


def speed_cell(plan: MemoryPlan | None) -> Content:
    """`~6 tok/s` or `> 1,000 tok/s`; `6.1 tok/s` when it was measured here."""
    if plan is None or plan.decode_tok_s is None:
        return Content("")
    from engine.common.units import rate

    words = rate(plan.decode_tok_s, plan.measured)
    return Content(words) if plan.measured else styled(words, "$foreground 80%")


def context_cell(plan: MemoryPlan | None) -> Content:
    """The context that a model would be opened with."""
    if plan is None or not plan.fits:
        return Content("")
    from engine.common.units import short_count

    return Content(short_count(plan.context))


def local_cells(local: LocalModel) -> tuple[Content, ...]:
    """A model on this machine: name with the program it belongs to, quantisation, size, fit, speed,
    context."""
    entry, plan = local.entry, local.plan
    owner = styled(f"  {local.program}", DIM) if local.program else Content("")
    return (
        Content(entry.name) + owner,
        Content(entry.quantisation),
        size_cell(entry.size),
        fit_cell(plan),
        speed_cell(plan),
        context_cell(plan),
    )
