"""The dialog that finds an earlier prompt, of any session, by the words in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from engine.errors import KtchatError
from ktchat.common.text import one_line
from ktchat.screens.once import LeftOnce
from ktchat.widgets.field import Field
from ktchat.widgets.formats import counted

Find = Callable[[str], Awaitable[Sequence[str]]]
"""From words to the prompts that have them all, the newest first."""


class HistoryDialog(LeftOnce["str | None"], ModalScreen["str | None"]):
    """Dismissed with a prompt."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave", show=False),
        Binding("down", "move(1)", "Older", show=False, priority=True),
        Binding("up", "move(-1)", "Newer", show=False, priority=True),
        Binding("ctrl+s", "move(1)", "Older", show=False, priority=True),
        Binding("pagedown", "move(5)", "Page down", show=False, priority=True),
        Binding("pageup", "move(-5)", "Page up", show=False, priority=True),
    ]

    def __init__(self, find: Find, words: str = "") -> None:
        super().__init__()
        self._find = find
        self._words = one_line(words, 60) if "\n" not in words else ""
        self._prompts: Sequence[str] = ()
        self._wanted: str | None = None
        self._searching = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="box search"):
            yield Static(Content("Earlier prompts of all sessions"), classes="title")
            yield Field(self._words, placeholder="words", compact=True)
            yield Static(id="history-words", classes="hint")
            yield OptionList(compact=True, markup=False)
            yield Static(
                Content("Enter put it in the prompt · Up Down choose · Esc back"), classes="hint"
            )

    def on_mount(self) -> None:
        self.query_one(OptionList).can_focus = False
        self._search(self._words)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Look for what is there now."""
        self._search(event.value)

    def on_input_submitted(self) -> None:
        """Answer with the prompt under the cursor."""
        at = self.query_one(OptionList).highlighted
        if at is not None and at < len(self._prompts):
            self.dismiss(self._prompts[at])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """A prompt was clicked."""
        self.dismiss(self._prompts[event.option_index])

    def action_move(self, step: int) -> None:
        """Another prompt."""
        listed = self.query_one(OptionList)
        if self._prompts:
            at = (listed.highlighted or 0) + step
            listed.highlighted = max(0, min(len(self._prompts) - 1, at))

    def action_leave(self) -> None:
        """Leave without an answer."""
        self.dismiss(None)

    def on_click(self, event: events.Click) -> None:
        if event.widget is self:
            self.dismiss(None)

    def on_resize(self) -> None:
        self._show()

    # Inside.

    def _search(self, words: str) -> None:
        self._wanted = words
        if not self._searching:
            self._searching = True
            self.run_worker(self._work(), exit_on_error=False)

    async def _work(self) -> None:
        try:
            while self._wanted is not None:
                words, self._wanted = self._wanted, None
                try:
                    self._prompts = await self._find(words)
                    found = len(self._prompts)
                    said = counted(found, "prompt") if found else "no prompt has these words"
                except KtchatError as error:
                    self._prompts, said = (), str(error)
                self.query_one("#history-words", Static).update(Content(one_line(said)))
                self._show()
        finally:
            self._searching = False

    def _show(self) -> None:
        listed = self.query_one(OptionList)
        width = max(20, listed.size.width - 2)
        listed.set_options(
            Option(Content(one_line(text, 400)).truncate(width, ellipsis=True))
            for text in self._prompts
        )
        listed.highlighted = 0 if self._prompts else None
