"""The list above the prompt of what could be meant: commands, files, what to do with a dropped path.

The prompt keeps the focus and hands on its keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from ktchat.common.text import one_line
from ktchat.widgets.lines import styled

LEAST_WORDS = 10
"""Cells that are left for what a row is about."""


@dataclass(frozen=True)
class Suggestion:
    """One row."""

    name: str
    words: str
    """What it is; safe to draw or not."""
    take: Callable[[], object]
    """Enter."""
    complete: Callable[[], object] | None = None
    """Tab; None: as Enter."""


class Suggestions(OptionList, can_focus=False):
    """Open while there is something to choose."""

    class Toggled(Message):
        """The list was opened or closed."""

    def __init__(self) -> None:
        super().__init__(markup=False, compact=True)
        self._items: list[Suggestion] = []
        self._text = ""

    def on_mount(self) -> None:
        self.display = False

    @property
    def is_open(self) -> bool:
        """Whether there is something to choose."""
        return bool(self._items)

    def show(self, items: Sequence[Suggestion], text: str = "") -> None:
        """Offer these while `text` stands in the prompt, the first one chosen; none: close."""
        self._text = text
        at = self.highlighted
        kept = self._items[at].name if self._items and at is not None else ""
        if not items and not self._items:
            return
        if bool(items) != bool(self._items):
            self.post_message(self.Toggled())
        self._items = list(items)
        self.display = bool(items)
        self._fill()
        names = [item.name for item in items]
        if items:
            self.highlighted = names.index(kept) if kept in names and self._moved else 0

    _moved = False  # the person chose; else the best one stays chosen

    def text_changed(self, text: str) -> None:
        """Close what belongs to another text; the news of a change may be older than what is offered."""
        if text != self._text:
            self.close()

    def close(self) -> None:
        """Offer nothing."""
        self._moved = False
        if self._items:
            self.show(())

    def move(self, step: int) -> None:
        """Choose another one."""
        if self._items:
            self._moved = True
            self.highlighted = ((self.highlighted or 0) + step) % len(self._items)

    def take(self, complete: bool = False) -> None:
        """Take the one that is chosen."""
        at = self.highlighted
        if self._items and at is not None:
            item = self._items[at]
            self.close()
            (item.complete or item.take if complete else item.take)()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """A row was clicked."""
        event.stop()
        self.highlighted = event.option_index
        self.take()

    def on_resize(self) -> None:
        at = self.highlighted
        self._fill()
        self.highlighted = at

    def _fill(self) -> None:
        width = max(12, self.scrollable_content_region.width - 2)
        lead = max((cell_len(one_line(item.name, 200)) for item in self._items), default=0)
        lead = min(lead, width - LEAST_WORDS if any(item.words for item in self._items) else width)
        self.set_options([Option(self._row(item, lead, width)) for item in self._items])

    def _row(self, item: Suggestion, lead: int, width: int) -> Content:
        """The name, and behind the longest of them what it is."""
        name = Content(one_line(item.name, 200)).truncate(lead, ellipsis=True)
        words = styled(one_line(item.words, 200), "$foreground 60%")
        row = name + Content(" " * (lead - name.cell_length + 2)) + words
        return row.truncate(width, ellipsis=True)
