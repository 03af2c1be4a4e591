"""The model screen: models on this machine, and a path to type.

Knows how models are listed and paths completed. Loading is the chat screen's: this one is dismissed
with the path that was chosen.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
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

from ktchat.models import ModelEntry, list_models
from ktchat.paths import models_folder
from ktchat.text import one_line
from ktchat.widgets.field import Field
from ktchat.widgets.lines import ends, styled, wrap
from ktchat.words import file_size

_MAX_ENTRIES = 2000


class ModelScreen(ModalScreen[str | None]):
    """Choose a model. Dismissed with its path, or with None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+o", "leave", "Leave", show=False),
        Binding("tab", "complete", "Complete", show=False, priority=True),
    ]

    def __init__(self, current: str, recent: Sequence[str]) -> None:
        super().__init__()
        self._current = current
        self._recent = recent
        self._entries: list[ModelEntry] | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="box wide"):
            yield Static(Content("Models on this machine"), classes="title")
            yield OptionList(id="models", compact=True)
            yield Static(Content("Or the path of a GGUF file"), classes="title second")
            yield Field(placeholder="~/models/…", suggester=PathSuggester(), compact=True)
            yield Static(id="path-words", classes="hint")
            yield Static(
                Content("Enter load · Tab complete or change field · Esc back"), classes="hint"
            )

    def on_mount(self) -> None:
        """List what there is; reading headers takes a moment."""
        self.query_one("#models", OptionList).add_option(Option(_dim("reading …"), disabled=True))
        self.run_worker(self._list(), exit_on_error=False)

    async def _list(self) -> None:
        self._entries = await asyncio.to_thread(list_models, self._recent)
        self._show()

    def on_resize(self, event: events.Resize) -> None:
        self.call_after_refresh(self._show)

    def _show(self) -> None:
        models = self.query_one("#models", OptionList)
        if self._entries is None:
            return
        width = max(20, models.content_size.width - 2)
        at = models.highlighted or 0
        models.set_options(
            Option(self._row(entry, width), id=str(number), disabled=bool(entry.error))
            for number, entry in enumerate(self._entries)
        )
        if not self._entries:
            where = one_line(str(models_folder()), 200)
            models.add_option(Option(_dim(f"none yet: put GGUF files into {where}"), disabled=True))
        elif at < models.option_count:
            models.highlighted = at

    def _row(self, entry: ModelEntry, width: int) -> Content:
        if entry.error:
            name = styled(f"  {entry.name}", "$foreground 55%")
            why = [line.content for line in wrap(styled(entry.error, "$warning"), width - 4)]
            return Content("\n").join([name, *(Content("    ") + line for line in why)])
        loaded = os.path.realpath(entry.path) == os.path.realpath(self._current or os.devnull)
        mark = styled("▌ ", "$accent") if loaded else Content("  ")
        how = "our engine" if entry.runtime == "hybrid" else entry.runtime
        about = f"{entry.architecture}  {entry.quantisation}  {file_size(entry.size)}  {how}"
        return ends(mark + styled(entry.name, "bold"), _dim(about), width)

    # Choosing.

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """A model of the list."""
        if event.option_id is not None and self._entries:
            self.dismiss(self._entries[int(event.option_id)].path)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """A typed path."""
        text = event.value.strip()
        path = Path(text).expanduser()
        if not text:
            return
        if path.is_dir():
            self._say("that is a folder: name a file in it")
        elif not path.exists():
            self._say("there is no such file")
        else:
            self.dismiss(str(path.absolute()))

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
        """Keep the model that is loaded."""
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
    except (OSError, RuntimeError):
        return None
    return value[: len(value) - len(start)] + names[0] if names else None


def _dim(text: str) -> Content:
    return styled(text, "$foreground 55%")
