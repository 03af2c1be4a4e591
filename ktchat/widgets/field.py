"""A field of one line whose pasted text is made safe to draw."""

from __future__ import annotations

from textual import events
from textual.widgets import Input

from ktchat.common.text import one_line

MAX_PASTE = 4096


class Field(Input):
    """`Input`, for text that may come from anywhere."""

    def _on_paste(self, event: events.Paste) -> None:
        event.stop()
        event.prevent_default()
        text = one_line(event.text, MAX_PASTE)
        if text:
            self.replace(text, *sorted(self.selection))
