"""A summary while the model writes it, and then to be changed by the person."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from engine.errors import KtchatError
from ktchat.common.text import one_line
from ktchat.screens.once import LeftOnce
from ktchat.widgets.chat.prompt import Prompt
from ktchat.widgets.lines import styled

HINT = "Enter take it · Ctrl+J line · Esc leave all as it was"


class _Box(Prompt):
    """Takes nothing before the model is done, and keeps what it sends."""

    def action_send(self) -> None:
        if not self.read_only and self.text.strip():
            self.post_message(self.Sent(self.draft))


class SummarySheet(LeftOnce[str | None], ModalScreen[str | None]):
    """Answers with the summary, or with None: all stays as it was."""

    AUTO_FOCUS = "Prompt"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave", show=False)]

    def __init__(self, title: str, texts: AsyncGenerator[str, None]) -> None:
        """`texts` is what there is of the summary, again and again."""
        super().__init__()
        self._title, self._texts = title, texts

    def compose(self) -> ComposeResult:
        with Vertical(classes="box wide"):
            yield Static(Content(self._title), classes="title")
            box = _Box("What is to be remembered")
            box.read_only = True
            yield box
            yield Static(Content("the model writes · Esc leave all as it was"), classes="hint")

    def on_mount(self) -> None:
        self.run_worker(self._follow(), exit_on_error=False)

    async def _follow(self) -> None:
        box, hint = self.query_one(Prompt), self.query_one(".hint", Static)
        words: Content = Content(HINT)
        try:
            async with aclosing(self._texts) as texts:
                async for text in texts:
                    box.load_text(text)
                    box.move_cursor(box.document.end)
        except KtchatError as error:
            words = styled(f"{one_line(str(error), 300)}\n", "$warning") + words
        box.read_only = False
        hint.update(words)

    def on_prompt_sent(self, message: Prompt.Sent) -> None:
        """Take the summary as it stands."""
        message.stop()
        self.dismiss(message.draft.text.strip())

    def on_prompt_page(self, message: Prompt.Page) -> None:
        """There is nothing else to scroll."""
        message.stop()

    def action_leave(self) -> None:
        """Leave all as it was."""
        self.dismiss(None)
