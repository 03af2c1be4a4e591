"""The turns that are on the screen: mounted from the newest on, older ones above them as they are wanted.

Which they are is the conversation's path; `transcript` says when that changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from ktchat.store import tree
from ktchat.store.conversation import Conversation, Turn
from ktchat.widgets.chat.message import MessageView
from ktchat.widgets.chat.palette import Palette
from ktchat.widgets.chat.prompt_view import PromptView
from ktchat.widgets.chat.reply_view import ReplyView
from ktchat.widgets.chat.turn_view import TurnView
from ktchat.widgets.chat.unread_line import mark_unread
from ktchat.widgets.formats import counted

WINDOW = 20
"""Turns that are on the screen when a conversation is opened, and that join at a time."""


class _Column(Vertical):
    BLANK = True  # nothing of its own to draw


class TurnColumn(Palette, can_focus=False):
    """A column of turns, of which only the last ones are mounted."""

    BLANK = True

    def __init__(self) -> None:
        super().__init__()
        self._conversation = Conversation()
        self._turns: list[Turn] = []
        self._mounted_from = 0  # turns before this one are not on the screen
        self._unfolded = False
        self._adding = False
        self._older = Static(id="older")
        self._column = _Column(self._older, id="turns")  # at least as high as the view

    def compose(self) -> ComposeResult:
        yield self._column

    @property
    def at_end(self) -> bool:
        """Whether the reader sees the end."""
        return self.scroll_y >= self.max_scroll_y - 1

    def view_of(self, turn: Turn, part: tree.Part) -> TurnView | None:
        """The view of a turn's half, where it is on the screen."""
        views = (v for v in self.query(TurnView) if v.turn is turn and v.part == part)
        return next(views, None)

    # Inside.

    def _views(self, turns: Sequence[Turn]) -> list[MessageView]:
        views: list[MessageView] = []
        for turn in turns:
            prompt = tree.place(self._conversation, turn, "prompt")
            reply = tree.place(self._conversation, turn, "reply")
            views += [PromptView(turn, prompt), ReplyView(turn, reply, unfolded=self._unfolded)]
        return views

    def _mark_last(self) -> None:
        views = list(self.query(MessageView))
        last = self._turns[-1] if self._turns else None
        for view in views:
            if isinstance(view, ReplyView) and view.turn is not last:
                view.release()
            if isinstance(view, TurnView) and view.last != (view.turn is last):
                view.last = view.turn is last
                view.changed()
        self.mark_unread()
        hidden = self._mounted_from
        self._older.display = hidden > 0
        self._older.update(Content(f"{counted(hidden, 'older turn')} above"))

    def mark_unread(self) -> None:
        """Draw dim what the model reads no more, behind a line that says so."""
        mark_unread(self._column, self._conversation, self._mounted_from)

    def _show_places(self) -> None:
        """Which version of each turn is shown, of how many."""
        for view in self.query(TurnView):
            place = tree.place(self._conversation, view.turn, view.part)
            if place != view.place:
                view.place = place
                view.header_changed()

    async def _cut(self, at: int) -> None:
        """Take the turns from number `at` on off the screen."""
        gone = set(map(id, self._turns[at:]))
        del self._turns[at:]
        self._mounted_from = min(self._mounted_from, at)
        for view in [view for view in self.query(TurnView) if id(view.turn) in gone]:
            await view.remove()

    async def _prune(self) -> None:
        """Take old turns off the screen when many have come."""
        if len(self._turns) - self._mounted_from <= 2 * WINDOW or not self.at_end:
            return
        self._mounted_from = len(self._turns) - WINDOW
        kept = set(map(id, self._turns[self._mounted_from :]))
        for view in self.query(TurnView):
            if id(view.turn) not in kept:
                await view.remove()

    async def _add_older(self) -> None:
        """Put older turns above; the text that is being read stays where it is."""
        start = max(0, self._mounted_from - WINDOW)
        views = self._views(self._turns[start : self._mounted_from])
        first = self.query(MessageView).first()
        width = first.size.width or self.size.width
        added = sum(len(view.rows(width)) for view in views)
        at = self.scroll_y
        with self.app.batch_update():
            await self._column.mount_all(views, before=first)
            self._mounted_from = start
            self._mark_last()
        self.call_after_refresh(self._keep_place, at + added)

    def _keep_place(self, y: float) -> None:
        self.scroll_to(y=y, animate=False, immediate=True)
        self._adding = False
