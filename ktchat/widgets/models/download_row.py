"""A download as a row of the table: its bar, how far it is, and what it is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from engine.common.units import byte_size
from engine.downloads.stage import Stage
from ktchat.library.downloads import percent, stage_words, title
from ktchat.widgets.lines import styled
from ktchat.widgets.models.model_table import Column, Row

if TYPE_CHECKING:
    from engine.downloads.download import DownloadProgress

COLUMNS = (
    Column("model"),
    Column("progress", rank=2),
    Column("", "right", least=5),
    Column("size", "right", rank=3, least=18),
    Column("speed", rank=1, least=26),
)
BAR = 16
SHORT = 34
"""Longest words that stand in the row; longer ones go below it."""


def download_row(progress: DownloadProgress) -> Row:
    """The row of one download."""
    words = stage_words(progress)
    style = {"failed": "$error", "waiting": "$warning", "done": "$success"}.get(
        progress.stage, "$foreground 70%"
    )
    amount = f"{byte_size(progress.done)} of {byte_size(progress.total)}"
    short = len(words) <= SHORT
    return Row(
        key=progress.key,
        cells=(
            Content(title(progress.key)),
            bar(progress, BAR),
            Content(percent(progress)),
            styled(amount, "$foreground 70%"),
            styled(words if short else progress.stage, style),
        ),
        below=None if short else styled(words, style),
    )


def bar(progress: DownloadProgress, cells: int) -> Content:
    """How far a download is: `━━━━╸───`."""
    halves = min(2 * cells, 2 * cells * progress.done // max(1, progress.total))
    full, half = divmod(halves, 2)
    done = "━" * full + "╸" * half
    style = "$accent" if progress.stage is not Stage.FAILED else "$foreground 70%"
    return styled(done, style) + styled("─" * (cells - len(done)), "$foreground 25%")
