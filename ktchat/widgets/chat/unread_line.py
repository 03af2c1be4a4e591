"""The line between the turns that the model reads no more and those that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from ktchat.store.conversation import EVERYTHING, Compaction, Conversation
from ktchat.widgets.chat.message import MessageView, actions
from ktchat.widgets.chat.plain import PlainText
from ktchat.widgets.chat.rows import RowPart
from ktchat.widgets.chat.turn_view import TurnView
from ktchat.widgets.formats import counted
from ktchat.widgets.lines import BLANK, Line, styled


class UnreadLine(MessageView):
    """How many turns are above it, and the summary that is read instead."""

    OWN_KEYS: ClassVar[tuple[str, ...]] = (*"ctjku", "space")
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("u", "bring_back", "Bring back", show=False),
        Binding("t,enter,space", "fold", "Summary", show=False),
    ]

    class BringBack(Message):
        """What is above is to be read again."""

    def __init__(self, compaction: Compaction) -> None:
        super().__init__()
        self.compaction = compaction
        self._text = PlainText(compaction.summary, ".thinking", styled("▏ ", ".dim"))
        self._unfolded = False

    def header(self) -> tuple[Content, Content]:
        number = self.compaction.unread
        words = f"{counted(number, 'turn')} {'is' if number == 1 else 'are'} no longer read"
        if not number:
            words = "this session begins with a summary of another one"
        button = actions(("bring back", "bring_back")) if number else Content("")
        return styled(f"── {words} ──", ".note"), button

    def body(self, width: int) -> Sequence[RowPart]:
        if not self._text:
            return [[BLANK]]
        mark = "▾" if self._unfolded else "▸"
        title = styled(f"{mark} summary", ".note", ("fold", ()))
        text = [self._text] if self._unfolded else []
        return [[Line(title, gutter=len(title))], *text, [BLANK]]

    def copy_text(self) -> str:
        return self.compaction.summary

    def action_bring_back(self) -> None:
        """Ask for it."""
        self.post_message(self.BringBack())

    def action_fold(self) -> None:
        """Fold or unfold the summary."""
        if self._text:
            self._unfolded = not self._unfolded
            self.changed()


def mark_unread(column: Widget, conversation: Conversation, mounted_from: int) -> None:
    """Draw the turns dim that are not read, and put the line behind them, if its place is on the screen."""
    compaction = conversation.compaction
    unread = {id(turn) for turn in conversation.turns[: compaction.unread]}
    views = list(column.query(TurnView))
    for view in views:
        view.mark_unread(id(view.turn) in unread)
    below = next((view for view in views if id(view.turn) not in unread), None)
    wanted = compaction != EVERYTHING and bool(views) and compaction.unread >= mounted_from
    there = False
    for line in column.query(UnreadLine):
        children = list(column.children)
        after = children[children.index(line) + 1 :]
        there = wanted and line.compaction == compaction and next(iter(after), None) is below
        if not there:
            line.remove()
    if wanted and not there:
        column.mount(UnreadLine(compaction), before=below)
