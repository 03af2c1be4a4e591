"""The transcript: the turns of a conversation, the newest at the end.

Only the last turns are on the screen; older ones join when the reader scrolls up. The view follows
the end only while the reader is there.
"""

from __future__ import annotations

import time

from textual import events
from textual.message import Message

from engine.protocol import Event
from ktchat.store.conversation import Conversation, Turn
from ktchat.store.tree import Part
from ktchat.widgets.chat.message import MessageView
from ktchat.widgets.chat.reply_view import ReplyView
from ktchat.widgets.chat.turn_column import WINDOW, TurnColumn

FRAME_SECONDS = 0.04
"""Least time between two drawings of a reply while it streams (25 a second)."""

MAX_LOAD = 0.25
"""Share of the time that drawing a stream may take; it slows down rather than block the keys."""


class Transcript(TurnColumn, can_focus=False):
    """The turns that are shown."""

    class Followed(Message):
        """The reader left the end while a reply is written, or came back to it."""

    def __init__(self) -> None:
        super().__init__()
        self._live: ReplyView | None = None
        self._frame_due = False
        self._was_at_end = True

    def on_mount(self) -> None:
        self.anchor()

    # Conversations.

    async def show(self, conversation: Conversation, *, unfolded: bool) -> None:
        """Show a conversation from its end."""
        self._conversation = conversation
        self._turns = list(conversation.turns)
        self._unfolded = unfolded
        self._live = None
        self._mounted_from = max(0, len(self._turns) - WINDOW)
        with self.app.batch_update():
            await self.query(MessageView).remove()
            await self._column.mount_all(self._views(self._turns[self._mounted_from :]))
            self._mark_last()
        last = self.last_reply()
        self._live = last if last is not None and last.streaming else None
        self.anchor()

    async def begin(self, turn: Turn, replaced: Turn | None) -> None:
        """A turn began; it may take the place of another, and of all that followed that."""
        with self.app.batch_update():
            at = next((i for i, shown in enumerate(self._turns) if shown is replaced), None)
            if at is not None:
                await self._cut(at)
            self._turns.append(turn)
            views = self._views([turn])
            await self._column.mount_all(views)
            self._show_places()
            await self._prune()
            self._mark_last()
        self._live = views[-1] if isinstance(views[-1], ReplyView) else None
        self.anchor()

    def feed(self, event: Event) -> None:
        """An event of the reply that is being written; drawn with the next frame."""
        if self._live is not None and self._live.feed(event) and not self._frame_due:
            self._frame_due = True
            self.set_timer(FRAME_SECONDS, self._draw)

    async def settle(self) -> None:
        """The reply ended; the conversation may be as it was before it began."""
        if self._live is not None:
            self._live.settle()
            self._live = None
        await self.follow()

    async def follow(self, changed: Turn | None = None) -> None:
        """Show the conversation's path as it is now; what is above the first other turn stays in its place.

        `changed`: this turn is another one in the same place.
        """
        turns = self._conversation.turns
        pairs = enumerate(zip(turns, self._turns, strict=False))
        differs = (i for i, (new, old) in pairs if new is not old or new is changed)
        at = next(differs, min(len(turns), len(self._turns)))
        if at == len(turns) == len(self._turns):
            self._show_places()
        elif at < self._mounted_from or at == 0:
            await self.show(self._conversation, unfolded=self._unfolded)
        else:
            place = self.scroll_y
            with self.app.batch_update():
                await self._cut(at)
                self._turns = list(turns)
                await self._column.mount_all(self._views(turns[at:]))
                self._mark_last()
                self._show_places()
            self.release_anchor()
            self.call_after_refresh(self.scroll_to, y=place, animate=False, immediate=True)

    async def reveal(self, turn: Turn, part: Part = "prompt") -> None:
        """Bring a turn of the path to the upper part of the view, with the focus on its message, or its reply."""
        at = next(i for i, shown in enumerate(self._turns) if shown is turn)
        if at < self._mounted_from:
            views = self._views(self._turns[at : self._mounted_from])
            with self.app.batch_update():
                first = next(iter(self.query(MessageView)), None)
                await self._column.mount_all(views, before=first)
                self._mounted_from = at
                self._mark_last()
        self.release_anchor()
        message, focused = self.view_of(turn, "prompt"), self.view_of(turn, part)
        if message is not None and focused is not None:
            focused.focus(scroll_visible=False)
            self.call_after_refresh(self.scroll_to_widget, message, animate=False, top=True)

    # The thinking, and single turns.

    def fold_thinking(self, unfolded: bool) -> None:
        """Fold or unfold all thinking."""
        self._unfolded = unfolded
        for view in self.query(ReplyView):
            if view.unfolded != unfolded:
                view.unfolded = unfolded
                view.changed()

    def last_reply(self) -> ReplyView | None:
        """The view of the last reply."""
        views = list(self.query(ReplyView))
        return views[-1] if views else None

    def last_code(self) -> str | None:
        """The text of the last code block in the conversation."""
        for view in reversed(list(self.query(ReplyView))):
            if (code := view.document.last_code) is not None:
                return code.text
        return None

    def to_end(self) -> None:
        """Go to the end and stay there."""
        self.anchor()

    # Inside.

    def _draw(self) -> None:
        self._frame_due = False
        if self._live is None:
            return
        start = time.perf_counter()
        self._live.draw()
        took = time.perf_counter() - start
        if took > FRAME_SECONDS * MAX_LOAD:  # a heavy frame: rest in proportion
            self._frame_due = True
            self.set_timer(took / MAX_LOAD, self._draw)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if self._live is not None and self.at_end != self._was_at_end:
            self._was_at_end = self.at_end
            self.post_message(self.Followed())
        if new_value < old_value and new_value <= 2 and self._mounted_from and not self._adding:
            self._adding = True
            self.call_later(self._add_older)

    def on_message_view_moved(self, message: MessageView.Moved) -> None:
        """What is read stays in its place."""
        message.stop()
        if message.rows and not self.at_end:
            place = self.scroll_y + message.rows
            self.call_after_refresh(self.scroll_to, y=place, animate=False, immediate=True)

    def on_message_view_walk(self, message: MessageView.Walk) -> None:
        """Move the focus from a message to its neighbour; below the last one is the prompt."""
        message.stop()
        views = list(self.query(MessageView))
        at = views.index(message.view) + message.step
        if 0 <= at < len(views):
            views[at].focus(scroll_visible=False)
            self.scroll_to_widget(views[at], animate=False)
        elif at >= len(views):
            self.post_message(self.Left())

    class Left(Message):
        """The focus walked out below the last message."""

    def on_resize(self, event: events.Resize) -> None:
        if self.at_end:
            self.call_after_refresh(self.anchor)
