"""The dialog that finds an earlier prompt, of any session, by the words in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static

from engine.errors import KtchatError
from ktchat.common.text import one_line
from ktchat.screens.dialogs.finding_dialog import FindingDialog
from ktchat.widgets.formats import counted

Find = Callable[[str], Awaitable[Sequence[str]]]
"""From words to the prompts that have them all, the newest first."""


class HistoryDialog(FindingDialog[str]):
    """Dismissed with a prompt."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "move(1)", "Older", show=False, priority=True)
    ]

    def __init__(self, find: Find, words: str = "") -> None:
        hint = "Enter put it in the prompt · Up Down choose"
        super().__init__(hint, one_line(words, 60) if "\n" not in words else "")
        self._find = find

    def on_mount(self) -> None:
        self.query_one("#finding-title", Static).update("Earlier prompts of all sessions")
        self.search(self._words)

    async def look_for(self, words: str) -> tuple[Sequence[str], str]:
        """The prompts that have the words."""
        try:
            prompts = await self._find(words)
        except KtchatError as error:
            return (), one_line(str(error))
        found = len(prompts)
        return prompts, counted(found, "prompt") if found else "no prompt has these words"

    def options(self, found: Sequence[str], width: int) -> Iterable[Content]:
        """A line each."""
        return (Content(one_line(text, 400)).truncate(width, ellipsis=True) for text in found)
