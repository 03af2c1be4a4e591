"""The person's message in the transcript."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.content import Content

from ktchat.store.conversation import Turn
from ktchat.store.tree import Part, Place
from ktchat.widgets.chat.message import actions
from ktchat.widgets.chat.plain import PlainText
from ktchat.widgets.chat.rows import RowPart
from ktchat.widgets.chat.turn_view import ALONE, TurnView
from ktchat.widgets.formats import clock, counted
from ktchat.widgets.lines import BLANK, Line, styled

MAX_PROMPT_ROWS = 200
"""Rows of a message of the person that are drawn; the rest is there and is copied."""


class PromptView(TurnView):
    """What the person said: plain text, as it was typed."""

    part: ClassVar[Part] = "prompt"

    def __init__(self, turn: Turn, place: Place = ALONE) -> None:
        super().__init__(turn, place)
        self._text = PlainText(turn.prompt)

    def header(self) -> tuple[Content, Content]:
        buttons = ("copy", "copy"), ("edit", "edit"), ("branch", "branch")
        shown = actions(*buttons) if self.active else Content("")
        return styled("You", ".you") + self.versions(), shown + styled(
            clock(self.turn.created), ".dim"
        )

    def body(self, width: int) -> Sequence[RowPart]:
        rows = self._text.beginning(width, MAX_PROMPT_ROWS)
        if len(rows) > MAX_PROMPT_ROWS:
            size = counted(len(self.turn.raw_prompt), "character")
            rows[MAX_PROMPT_ROWS:] = [Line(styled(f"the message goes on: {size} in all", ".note"))]
        return [[*rows, BLANK]]

    def copy_text(self) -> str:
        return self.turn.prompt
