"""The person's message in the transcript."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message

from ktchat.attachments.attachment import Attachment
from ktchat.store.conversation import Turn
from ktchat.store.tree import Part, Place
from ktchat.widgets.chat.chips import facts_of
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
    OWN_KEYS: ClassVar[tuple[str, ...]] = (*TurnView.OWN_KEYS, "o")
    BINDINGS: ClassVar[list[BindingType]] = [Binding("o,enter", "open(0)", "Open", show=False)]

    @dataclass
    class Opened(Message):
        """Show what is attached."""

        attachments: tuple[Attachment, ...]
        at: int

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
        return [[*self._attached(width), *rows, BLANK]]

    def _attached(self, width: int) -> list[Line]:
        """A row for each attachment."""
        lines = []
        for number, item in enumerate(self.turn.attachments):
            facts = styled(f" · {facts_of(item)}", ".dim")
            name = Content(item.name).truncate(max(4, width - facts.cell_length - 2), ellipsis=True)
            row = styled("▪ ", ".dim") + styled(name.plain, ".action", ("open", (number,))) + facts
            lines.append(Line(row, gutter=2))
        return lines

    def action_open(self, number: int) -> None:
        """Ask to see an attachment."""
        if self.turn.attachments:
            self.post_message(self.Opened(self.turn.attachments, number))

    def copy_text(self) -> str:
        return self.turn.prompt
