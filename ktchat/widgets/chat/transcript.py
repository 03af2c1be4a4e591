"""The transcript: the turns of a conversation, the newest at the end.

Only the last turns are on the screen; older ones join when the reader scrolls up. The view follows
the end only while the reader is there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from textual import events
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from engine.protocol import Event
from ktchat.store import tree
from ktchat.store.conversation import Conversation, Turn
from ktchat.widgets.chat.message import MessageView
from ktchat.widgets.chat.palette import Palette
from ktchat.widgets.chat.prompt_view import PromptView
from ktchat.widgets.chat.reply_view import ReplyView
from ktchat.widgets.chat.turn_view import TurnView
from ktchat.widgets.formats import counted

WINDOW = 20
"""Turns that are on the screen when a conversation is opened, and that join at a time."""

FRAME_SECONDS = 0.04
"""Least time between two drawings of a reply while it streams (25 a second)."""

MAX_LOAD = 0.25
"""Share of the time that drawing a stream may take; it slows down rather than block the keys."""


class _Column(Vertical):
    BLANK = True  # nothing of its own to draw


class Transcript(Palette, can_focus=False):
    """The turns that are shown."""

    BLANK = True

    class Followed(Message):
        """The reader left the end while a reply is written, or came back to it."""

    def __init__(self) -> None:
        super().__init__()
        self._conversation = Conversation()
        self._turns: list[Turn] = []
        self._mounted_from = 0  # turns before this one are not on the screen
        self._unfolded = False
        self._live: ReplyView | None = None
        self._frame_due = False
        self._adding = False
        self._was_at_end = True
        self._older = Static(id="older")
        self._column = _Column(self._older, id="turns")  # at least as high as the view

    def compose(self) -> ComposeResult:
        yield self._column

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

    def view_of(self, turn: Turn, part: tree.Part) -> TurnView | None:
        """The view of a turn's half, where it is on the screen."""
        views = (v for v in self.query(TurnView) if v.turn is turn and v.part == part)
        return next(views, None)

    async def reveal(self, turn: Turn) -> None:
        """Bring a turn of the path to the upper part of the view, with the focus on its message."""
        at = next(i for i, shown in enumerate(self._turns) if shown is turn)
        if at < self._mounted_from:
            views = self._views(self._turns[at : self._mounted_from])
            with self.app.batch_update():
                first = next(iter(self.query(MessageView)), None)
                await self._column.mount_all(views, before=first)
                self._mounted_from = at
                self._mark_last()
        self.release_anchor()
        view = self.view_of(turn, "prompt")
        if view is not None:
            view.focus(scroll_visible=False)
            self.call_after_refresh(self.scroll_to_widget, view, animate=False, top=True)

    async def _cut(self, at: int) -> None:
        """Take the turns from number `at` on off the screen."""
        gone = set(map(id, self._turns[at:]))
        del self._turns[at:]
        self._mounted_from = min(self._mounted_from, at)
        for view in [view for view in self.query(TurnView) if id(view.turn) in gone]:
            await view.remove()

    def _show_places(self) -> None:
        """Which version of each turn is shown, of how many."""
        for view in self.query(TurnView):
            place = tree.place(self._conversation, view.turn, view.part)
            if place != view.place:
                view.place = place
                view.header_changed()

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
            if codes := view.document.codes:
                return codes[-1].text
        return None

    @property
    def at_end(self) -> bool:
        """Whether the reader sees the end."""
        return self.scroll_y >= self.max_scroll_y - 1

    def to_end(self) -> None:
        """Go to the end and stay there."""
        self.anchor()

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
        hidden = self._mounted_from
        self._older.display = hidden > 0
        self._older.update(Content(f"{counted(hidden, 'older turn')} above"))

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

    async def _prune(self) -> None:
        """Take old turns off the screen when many have come."""
        if len(self._turns) - self._mounted_from <= 2 * WINDOW or not self.at_end:
            return
        self._mounted_from = len(self._turns) - WINDOW
        kept = set(map(id, self._turns[self._mounted_from :]))
        for view in self.query(MessageView):
            if id(_turn_of(view)) not in kept:
                await view.remove()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if self._live is not None and self.at_end != self._was_at_end:
            self._was_at_end = self.at_end
            self.post_message(self.Followed())
        if new_value < old_value and new_value <= 2 and self._mounted_from and not self._adding:
            self._adding = True
            self.call_later(self._add_older)

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


def _turn_of(view: MessageView) -> Turn | None:
    return view.turn if isinstance(view, TurnView) else None
