"""The first row of a screen: its title, and its tabs or steps.

A click on a name is the screen's action `tab(number)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.content import Content
from textual.widget import Widget

from ktchat.widgets.lines import styled


class TabBar(Widget):
    """`Models   installed  catalogue  search  downloads`."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"title", "open", "other", "note"}
    DEFAULT_CSS = """
    TabBar { height: 2; width: 1fr; padding: 0 2; dock: top; }
    TabBar > .title { text-style: bold; }
    TabBar > .open { color: $accent; text-style: bold; }
    TabBar > .note { color: $accent; }
    TabBar > .other { color: $foreground 70%; }
    TabBar:ansi > .other { text-style: dim; }
    """

    def __init__(
        self, title: str, names: Sequence[str], numbered: bool = True, noted: str = ""
    ) -> None:
        """`noted` is the tab behind which a note stands; empty: the last."""
        super().__init__()
        self.auto_links = False
        self._title, self._names, self._numbered = title, tuple(names), numbered
        self._open = 0
        self._note = ""
        self._noted = self._names.index(noted) if noted else len(self._names) - 1

    def show(self, number: int, note: str = "") -> None:
        """Mark a tab as open; `note` stands behind the one that has notes, safe to draw."""
        if (number, note) != (self._open, self._note):
            self._open, self._note = number, note
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
            if self._note and number == self._noted:
                row += styled(f" {self._note}", ".note", ("screen.tab", (number,)))
        return row.truncate(self.content_size.width, ellipsis=True)
