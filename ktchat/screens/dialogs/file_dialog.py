"""The dialog that asks for a file: one to be read, or one to be written that is not there yet."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from ktchat.common.text import one_line
from ktchat.screens.dialogs.path_dialog import PathSuggester
from ktchat.screens.once import LeftOnce
from ktchat.widgets.field import Field
from ktchat.widgets.lines import styled


class FileDialog(LeftOnce["Path | None"], ModalScreen["Path | None"]):
    """Dismissed with an absolute path."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False),
        Binding("tab", "complete", "Complete", show=False, priority=True),
    ]

    def __init__(self, title: str, path: str, suffix: str, *, new: bool, note: str = "") -> None:
        """`suffix`: of the files that are offered. `new`: it must not be there yet."""
        super().__init__()
        self._title, self._path, self._suffix, self._new = title, path, suffix, new
        self._note = note

    def compose(self) -> ComposeResult:
        with Vertical(classes="box wide"):
            yield Static(Content(self._title), classes="title")
            yield Field(
                self._path,
                suggester=PathSuggester(self._suffix),
                select_on_focus=False,
                compact=True,
            )
            yield Static(Content(one_line(self._note, 200)), id="path-words", classes="hint")
            yield Static(Content("Enter do it · Tab complete · Esc back"), classes="hint")

    def on_input_submitted(self) -> None:
        """Answer, if that can be."""
        text = self.query_one(Field).value.strip()
        try:
            path = Path(text).expanduser()
            if not text:
                self._say("type a path")
            elif path.is_dir():
                self._say("that is a folder: name a file in it")
            elif self._new and path.exists():
                self._say("this file is there already: choose another name")
            elif self._new and not path.parent.is_dir():
                self._say("there is no such folder")
            elif not self._new and not path.exists():
                self._say("there is no such file")
            else:
                self.dismiss(path.absolute())
        except (OSError, RuntimeError, ValueError):
            self._say("that is not a path")

    def action_complete(self) -> None:
        """Take the completion."""
        field = self.query_one(Field)
        if field.cursor_at_end and field._suggestion:
            field.action_cursor_right()

    def action_leave(self) -> None:
        """Leave without an answer."""
        self.dismiss(None)

    def on_click(self, event: events.Click) -> None:
        if event.widget is self:
            self.dismiss(None)

    def _say(self, words: str) -> None:
        self.query_one("#path-words", Static).update(styled(words, "$warning"))
