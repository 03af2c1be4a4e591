"""The first row of a screen: its title, and its tabs or steps.

Knows their names and which one is open. A click on a name is the screen's action `tab(number)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.content import Content
from textual.widget import Widget

from ktchat.widgets.lines import ends, styled


class TabBar(Widget):
    """`Models   installed  catalogue  search  downloads`."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"title", "open", "other"}
    DEFAULT_CSS = """
    TabBar { height: 2; width: 1fr; padding: 0 2; dock: top; }
    TabBar > .title { text-style: bold; }
    TabBar > .open { color: $accent; text-style: bold; }
    TabBar > .other { color: $foreground 55%; }
    TabBar:ansi > .other { text-style: dim; }
    """

    def __init__(self, title: str, names: Sequence[str], numbered: bool = True) -> None:
        super().__init__()
        self.auto_links = False
        self._title, self._names, self._numbered = title, tuple(names), numbered
        self._open = 0
        self._end = ""

    def show(self, number: int, end: str = "") -> None:
        """Mark a tab as open; `end` stands at the right end, safe to draw."""
        self._open, self._end = number, end
        self.refresh()

    def render(self) -> Content:
        row = styled(self._title, ".title")
        narrow = self.content_size.width < 60
        for number, name in enumerate(self._names):
            style = ".open" if number == self._open else ".other"
            gap = "   " if not narrow or number == 0 else " "
            words = f"{number + 1} {name}" if self._numbered and not narrow else name
            tab = styled(words, style, ("screen.tab", (number,)))
            row += Content(gap) + tab
        return ends(row, styled(self._end, ".other"), self.content_size.width)
