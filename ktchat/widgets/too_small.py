"""The one line that is left when the window is too small for anything else."""

from __future__ import annotations

from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget

LEAST = (36, 9)
"""Columns and rows below which only a line says that the window is too small."""


def is_too_small(window: Size) -> bool:
    """Whether nothing but that line fits."""
    return window.width < LEAST[0] or window.height < LEAST[1]


class TooSmall(Widget):
    """Says that the window is too small, in as many words as fit."""

    def render(self) -> Content:
        width, height = self.app.size
        least = f"{LEAST[0]}×{LEAST[1]}"
        for words in (
            f"Window too small ({width}×{height}): make it at least {least}",
            "Window too small: enlarge it",
            "Window too small",
            "Too small",
        ):
            if len(words) <= width:
                return Content(words)
        return Content("")
