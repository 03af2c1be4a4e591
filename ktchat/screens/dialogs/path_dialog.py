"""Questions of the model screens: the path of a file, and yes or no.

Knows paths and their completion. What is done with an answer is up to the screen that asked.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.suggester import Suggester
from textual.widget import Widget
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ktchat.common.text import one_line
from ktchat.screens.dialogs.dialogs import Dialog
from ktchat.widgets.field import Field
from ktchat.widgets.lines import indent, styled, wrap

_MAX_ENTRIES = 2000

Way = Literal["open", "link", "move"]
WAYS: tuple[tuple[Way, str], ...] = (
    ("open", "Open it where it is"),
    ("link", "Link it into the models folder"),
    ("move", "Move it into the models folder"),
)


class PathDialog(ModalScreen[tuple[Way, Path] | None]):
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
            yield OptionList(*(Option(Content(words), id=way) for way, words in WAYS), compact=True)
            yield Static(Content("Enter do it · Tab complete, next · Esc back"), classes="hint")

    def on_mount(self) -> None:
        self.query_one(OptionList).highlighted = 0

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter in the path does what the list below says."""
        ways = self.query_one(OptionList)
        self._answer(WAYS[ways.highlighted or 0][0])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """A way was chosen."""
        self._answer(next(way for way, _ in WAYS if way == event.option_id))

    def _answer(self, way: Way) -> None:
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
                self.dismiss((way, path.absolute()))
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
    """Completes folders and GGUF files."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        """The typed path with the first name that continues it."""
        return await asyncio.to_thread(_completed, value)


def _completed(value: str) -> str | None:
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
                and (entry.is_dir() or entry.name.endswith(".gguf"))
                and entry.name.isprintable()
            )
    except (OSError, RuntimeError, ValueError):
        return None
    return value[: len(value) - len(start)] + names[0] if names else None


class Question(Dialog):
    """Ask before something is done. Answered with `yes`, or with None."""

    AUTO_FOCUS = "OptionList"

    def __init__(self, question: str, yes: str, no: str = "Leave it") -> None:
        super().__init__()
        self._question, self._yes, self._no = one_line(question, 600), yes, no

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(Content(self._question), classes="title")
            yield OptionList(
                Option(Content(self._no), id="no"), Option(Content(self._yes), id="yes"),
                compact=True,
            )  # fmt: skip
            yield Static(Content("Enter answer · Esc back"), classes="hint")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """The answer."""
        self.dismiss("yes" if event.option_id == "yes" else None)


class Details(Dialog):
    """Everything about one model, to read."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("i,q", "leave", "Leave", show=False)]

    def __init__(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._title, self._rows = one_line(title, 100), rows

    def compose(self) -> ComposeResult:
        with Vertical(classes="box wide"):
            yield Static(Content(self._title), classes="title")
            with VerticalScroll(can_focus=True):
                yield NamedTexts(self._rows)
            yield Static(Content("Esc back"), classes="hint")


class NamedTexts(Widget):
    """Names at the left, texts at the right, wrapped beside them."""

    DEFAULT_CSS = "NamedTexts { height: auto; width: 1fr; }"

    def __init__(self, rows: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._rows = rows

    def render(self) -> Content:
        lead = max((len(name) for name, _ in self._rows), default=0) + 2
        width = max(20, self.content_size.width - lead)
        lines = [
            line.content
            for name, text in self._rows
            for line in indent(
                wrap(Content(one_line(text, 1000)), width),
                styled(name.ljust(lead), "$foreground 55%"),
            )
        ]
        return Content("\n").join(lines)
