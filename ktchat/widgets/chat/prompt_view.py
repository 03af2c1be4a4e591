"""The person's message in the transcript."""

from __future__ import annotations

from textual.content import Content
from textual.message import Message

from ktchat.store.conversation import Turn
from ktchat.widgets.chat.message import MessageView, actions
from ktchat.widgets.chat.plain import PlainText
from ktchat.widgets.formats import clock, counted
from ktchat.widgets.lines import BLANK, Line, styled

MAX_PROMPT_ROWS = 200
"""Rows of a message of the person that are drawn; the rest is there and is copied."""


class PromptView(MessageView):
    """What the person said: plain text, as it was typed."""

    class Edit(Message):
        """Edit the last message."""

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self.turn = turn
        self._text = PlainText(turn.prompt)
        self.last = False
        """Whether this is the last turn: only that one can be edited."""

    def header(self) -> tuple[Content, Content]:
        buttons = [("copy", "copy"), *([("edit", "edit")] if self.last else [])]
        shown = actions(*buttons) if self.active else Content("")
        return styled("You", ".you"), shown + styled(clock(self.turn.created), ".dim")

    def body(self, width: int) -> list[Line]:
        rows = self._text.lines(width, MAX_PROMPT_ROWS)
        if len(rows) > MAX_PROMPT_ROWS:
            size = counted(len(self.turn.raw_prompt), "character")
            rows = [
                *rows[:MAX_PROMPT_ROWS],
                Line(styled(f"the message goes on: {size} in all", ".note")),
            ]
        return [*rows, BLANK]

    def copy_text(self) -> str:
        return self.turn.prompt

    def action_edit(self) -> None:
        """Put this message back into the prompt."""
        if self.last:
            self.post_message(self.Edit())
