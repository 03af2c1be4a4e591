"""A dialog that finds things by words while they are typed: a field, a list, one search at a time.

What was typed meanwhile is looked for next, so that keys never wait.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, Generic, TypeVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from ktchat.screens.once import LeftOnce
from ktchat.widgets.field import Field

Found = TypeVar("Found")


class FindingDialog(LeftOnce["Found | None"], ModalScreen["Found | None"], Generic[Found]):
    """Dismissed with what was chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False),
        Binding("down", "move(1)", "Next", show=False, priority=True),
        Binding("up", "move(-1)", "Before", show=False, priority=True),
        Binding("pagedown", "move(5)", "Page down", show=False, priority=True),
        Binding("pageup", "move(-5)", "Page up", show=False, priority=True),
    ]

    def __init__(self, hint: str, words: str = "") -> None:
        super().__init__()
        self._hint, self._words = hint, words
        self._found: Sequence[Found] = ()
        self._wanted: str | None = None
        self._searching = False

    @abstractmethod
    async def look_for(self, words: str) -> tuple[Sequence[Found], str]:
        """What is found, and what is to be said of it."""

    @abstractmethod
    def options(self, found: Sequence[Found], width: int) -> Iterable[Content]:
        """What was found, as it is drawn in so many cells."""

    def compose(self) -> ComposeResult:
        with Vertical(classes="box search"):
            yield Static(id="finding-title", classes="title")
            yield Field(self._words, placeholder="words", compact=True)
            yield Static(id="finding-words", classes="hint")
            yield OptionList(compact=True, markup=False)
            yield Static(Content(f"{self._hint} · Esc back"), classes="hint")

    def on_mount(self) -> None:
        self.query_one(OptionList).can_focus = False

    def on_input_changed(self, event: Input.Changed) -> None:
        """Look for what is there now."""
        self.search(event.value)

    def on_input_submitted(self) -> None:
        """Answer with what is under the cursor."""
        at = self.query_one(OptionList).highlighted
        if at is not None and at < len(self._found):
            self.dismiss(self._found[at])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Something was clicked."""
        self.dismiss(self._found[event.option_index])

    def action_move(self, step: int) -> None:
        """Another of what was found."""
        listed = self.query_one(OptionList)
        if self._found:
            at = (listed.highlighted or 0) + step
            listed.highlighted = max(0, min(len(self._found) - 1, at))

    def action_leave(self) -> None:
        """Leave without an answer."""
        self.dismiss(None)

    def on_click(self, event: events.Click) -> None:
        if event.widget is self:
            self.dismiss(None)

    def on_resize(self) -> None:
        self._show()

    def search(self, words: str) -> None:
        """Look for `words`, after what is looked for now."""
        self._wanted = words
        if not self._searching:
            self._searching = True
            self.run_worker(self._work(), exit_on_error=False)

    async def _work(self) -> None:
        try:
            while self._wanted is not None:
                words, self._wanted = self._wanted, None
                self._found, said = await self.look_for(words)
                self.query_one("#finding-words", Static).update(Content(said))
                self._show()
        finally:
            self._searching = False

    def _show(self) -> None:
        listed = self.query_one(OptionList)
        width = max(20, listed.size.width - 2)
        listed.set_options(Option(line) for line in self.options(self._found, width))
        listed.highlighted = 0 if self._found else None
