"""The one line that is left when the window is too small for anything else."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget


class TooSmall(Widget):
    """Says that the window is too small, in as many words as fit."""

    def render(self) -> Content:
        width, height = self.app.size
        for words in (
            f"Window too small ({width}×{height}): make it at least 36×9",
            "Window too small: enlarge it",
            "Window too small",
            "Too small",
        ):
            if len(words) <= width:
                return Content(words)
        return Content("")
