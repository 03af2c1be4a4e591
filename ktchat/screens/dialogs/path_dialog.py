"""The dialog that asks for a model file, and whether to open, link or move it.

It completes the names of folders and GGUF files.
"""

from __future__ import annotations

import asyncio
import os
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.suggester import Suggester
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ktchat.screens.once import LeftOnce
from ktchat.widgets.field import Field
from ktchat.widgets.lines import styled

_MAX_ENTRIES = 2000


class ImportMode(StrEnum):
    """What is to be done with a file that the person named."""

    OPEN = "open"
    LINK = "link"
    MOVE = "move"


MODES = (
    (ImportMode.OPEN, "Open it where it is"),
    (ImportMode.LINK, "Link it into the models folder"),
    (ImportMode.MOVE, "Move it into the models folder"),
)


class PathDialog(
    LeftOnce[tuple[ImportMode, Path] | None], ModalScreen[tuple[ImportMode, Path] | None]
):
    """Ask for a GGUF file and what to do with it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False),
        Binding("tab", "complete", "Complete", show=False, priority=True),
    ]

    def __init__(self, path: str = "") -> None:
        super().__init__()
        self._path = path

    def compose(self) -> ComposeResult:
        with Vertical(classes="box wide"):
            yield Static(Content("A model file on this machine"), classes="title")
            yield Field(
                self._path, placeholder="~/models/…", suggester=PathSuggester(), compact=True
            )
            yield Static(id="path-words", classes="hint")
            yield OptionList(
                *(Option(Content(words), id=mode) for mode, words in MODES), compact=True
            )
            yield Static(Content("Enter do it · Tab complete, next · Esc back"), classes="hint")

    def on_mount(self) -> None:
        self.query_one(OptionList).highlighted = 0

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter in the path does what the list below says."""
        modes = self.query_one(OptionList)
        self._answer(MODES[modes.highlighted or 0][0])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """A mode was chosen."""
        self._answer(ImportMode(event.option_id or ImportMode.OPEN))

    def _answer(self, mode: ImportMode) -> None:
        text = self.query_one(Field).value.strip()
        try:
            path = Path(text).expanduser()
            if not text:
                self._say("type the path of a .gguf file")
            elif path.is_dir():
                self._say("that is a folder: name a file in it")
            elif not path.exists():
                self._say("there is no such file")
            else:
                self.dismiss((mode, path.absolute()))
        except (OSError, RuntimeError, ValueError):
            self._say("that is not a path")

    def _say(self, words: str) -> None:
        self.query_one("#path-words", Static).update(styled(words, "$warning"))

    def on_input_changed(self) -> None:
        """What was said of the old path is over."""
        self.query_one("#path-words", Static).update("")

    def action_complete(self) -> None:
        """In the path: take the completion. Else: go to the other field."""
        field = self.query_one(Field)
        if field.has_focus and field.cursor_at_end and field._suggestion:
            field.action_cursor_right()
        else:
            self.focus_next()

    def action_leave(self) -> None:
        """Leave without an answer."""
        self.dismiss(None)

    def on_click(self, event: events.Click) -> None:
        if event.widget is self:
            self.dismiss(None)


class PathSuggester(Suggester):
    """Completes folders, and files with a suffix."""

    def __init__(self, suffix: str = ".gguf") -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self._suffix = suffix

    async def get_suggestion(self, value: str) -> str | None:
        """The typed path with the first name that continues it."""
        return await asyncio.to_thread(_completed, value, self._suffix)


def _completed(value: str, suffix: str = ".gguf") -> str | None:
    folder, _, start = value.rpartition("/")
    if not start and not folder:
        return None
    try:
        with os.scandir(
            Path(f"{folder}/" if folder or value.startswith("/") else ".").expanduser()
        ) as found:
            names = sorted(
                entry.name + ("/" if entry.is_dir() else "")
                for entry, _ in zip(found, range(_MAX_ENTRIES), strict=False)
                if entry.name.startswith(start)
                and (start.startswith(".") or not entry.name.startswith("."))
                and (entry.is_dir() or entry.name.endswith(suffix))
                and entry.name.isprintable()
            )
    except (OSError, RuntimeError, ValueError):
        return None
    return value[: len(value) - len(start)] + names[0] if names else None
