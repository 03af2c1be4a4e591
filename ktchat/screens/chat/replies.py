"""Replies on the chat screen: sending, stopping, and the message that waits to be sent."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from engine.common.threads import ask
from engine.errors import KtchatError
from engine.protocol import (
    Failed,
    Figures,
    Finished,
    Insight,
    Loaded,
    Prefilled,
    Quiet,
    Text,
    Thinking,
    WasThinking,
)
from ktchat.attachments.attachment import Draft

if TYPE_CHECKING:
    from ktchat.screens.chat.activity import Activity, Guard
    from ktchat.screens.chat.frame import Frame
    from ktchat.screens.chat.session_listing import SessionListing
    from ktchat.session.chat import ChatSession, Update
    from ktchat.store.conversation import Turn
    from ktchat.store.saver import Severity
    from ktchat.store.tree import Part

Answer = Callable[[Draft], "AsyncGenerator[Update, None]"]

_HEADER_SECONDS = 0.25
NOTHING = Draft()


class Replies:
    """What is being said, and what will be said next."""

    def __init__(self, frame: Frame, activity: Activity, listing: SessionListing) -> None:
        self._frame, self._activity, self._listing = frame, activity, listing
        self._context = activity.context
        self.insight: Callable[[ChatSession, Insight], None] = lambda chat, insight: None
        self._tokens = 0
        self._header_at = 0.0
        self.overflow: Guard | None = None
        """Stands before every reply."""

    # What the person does.

    def send(self, draft: Draft) -> None:
        """Send a message, now or as soon as that is possible."""
        chat, activity = self._context.chat, self._activity
        if chat is None or not activity.ready:
            if activity.queued is not None:
                self._refuse(draft, "one message is waiting already")
            elif activity.editing:
                self._refuse(draft, "not yet: something is still going on")
            else:
                self._queue(draft)
        elif chat.loaded is None and not activity.wanted:
            self._refuse(draft, "no model is loaded: choose one with Ctrl+O")
        elif activity.edited is None:
            self._begin(chat, lambda new: chat.send(new.text, new.attachments), draft)
        else:
            turn = activity.edited[0]
            self._begin(chat, lambda new: chat.edit(new.text, turn, new.attachments), draft, turn)

    def regenerate(self, turn: Turn | None = None) -> None:
        """Write another reply to a turn (default: the last)."""
        chat, status, prompt = self._context.chat, self._frame.status, self._frame.prompt
        if chat is None or chat.conversation.last is None:
            status.say("there is no reply to regenerate")
        elif self._activity.busy:
            status.say("a reply is being written: Esc stops it")
        else:
            if prompt.draft == chat.conversation.last.draft:
                prompt.put_draft(NOTHING)  # it came back with the failure that is tried again
            replaced = turn or chat.conversation.last
            self._begin(chat, lambda _: chat.regenerate(turn), NOTHING, replaced)

    def go_on(self, turn: Turn | None = None) -> None:
        """Let a reply (default: the last) go on from its end."""
        chat, status = self._context.chat, self._frame.status
        if chat is None or chat.conversation.last is None:
            status.say("there is no reply to go on with")
        elif self._activity.busy:
            status.say("a reply is being written: Esc stops it")
        else:
            begun = turn or chat.conversation.last
            self._begin(chat, lambda _: chat.go_on(turn), NOTHING, begun, goes_on=True)

    def edit(self, turn: Turn | None = None, part: Part = "prompt") -> None:
        """Put a message (default: the last) or a reply into the prompt; sending replaces it."""
        frame, chat = self._frame, self._context.chat
        if chat is None or chat.conversation.last is None:
            frame.status.say("there is no message to edit")
        elif self._activity.replying:
            frame.status.say("a reply is being written: Esc stops it")
        elif not self._activity.editing:
            turn = turn or chat.conversation.last
            self._activity.put_aside, self._activity.edited = frame.prompt.draft, (turn, part)
            frame.prompt.put_draft(turn.draft if part == "prompt" else Draft(turn.raw_reply))
            frame.prompt.focus()
            frame.refresh_status()

    def stop(self) -> bool:
        """Stop the reply, or take back what waits, or leave editing; False: nothing to do."""
        chat = self._context.chat
        took_back = self._take_back()
        if self.overflow is not None and self.overflow.stop():
            return True
        if chat is not None and self._activity.replying:
            chat.stop()
            return True
        if self._activity.editing:
            self.leave_editing()
            return True
        if took_back:
            self._frame.refresh_status()
        return took_back

    def leave_editing(self) -> None:
        """The prompt gets back what stood in it before."""
        if self._activity.put_aside is not None:
            self._frame.prompt.put_draft(self._activity.put_aside)
            self._activity.put_aside = self._activity.edited = None
            self._frame.refresh_status()

    async def come_to_rest(self) -> bool:
        """Stop the reply and wait until it is settled; True if there was one."""
        chat, workers = self._context.chat, self._frame.workers
        self.take_back()
        if self.overflow is not None and self.overflow.stop():
            rooms = [worker for worker in workers if worker.group == "room"]
            await workers.wait_for_complete(rooms)
        if chat is None or not self._activity.replying:
            return False
        chat.stop()
        await workers.wait_for_complete([worker for worker in workers if worker.group == "reply"])
        return True

    def take_back(self) -> None:
        """The prompt gets back the message that waits, and the draft that an edit replaced."""
        self._take_back()
        self.leave_editing()

    # What happens.

    def _queue(self, draft: Draft) -> None:
        """Keep a message, and send it when that is possible."""
        self._activity.queued = draft
        self._frame.run_worker(
            self._send_queued(), group="queued", exclusive=True, exit_on_error=False
        )
        self._frame.refresh_status()

    async def _send_queued(self) -> None:
        activity = self._activity
        await activity.until(lambda: activity.ready or activity.queued is None)
        chat, draft = self._context.chat, activity.queued
        if chat is None or draft is None:
            return
        if chat.loaded is None:
            self._take_back()
            self._frame.refresh_status()
            return
        activity.queued = None
        self._begin(chat, lambda new: chat.send(new.text, new.attachments), draft)

    def _begin(
        self,
        chat: ChatSession,
        answer: Answer,
        draft: Draft,
        turn: Turn | None = None,
        goes_on: bool = False,
    ) -> None:
        """Start a reply where there is room for it, which is made else; `draft` is what the person wrote for it, `turn`
        the one that it replaces, or whose reply goes on."""
        from ktchat.session.compaction import going_on, unsent

        if self.overflow is not None and not (turn and goes_on and not turn.can_go_on):
            if turn is not None and goes_on:
                conversation = going_on(chat.conversation, turn)
            else:
                asked = draft or (turn.draft if turn else draft)
                conversation = unsent(chat.conversation, asked, turn or chat.retried(asked))
            if not self.overflow.guard(
                chat, conversation, draft, lambda: self._start(chat, answer, draft)
            ):
                return
        self._start(chat, answer, draft)

    def _start(self, chat: ChatSession, answer: Answer, draft: Draft) -> None:
        activity, frame = self._activity, self._frame
        try:
            updates = answer(draft)
        except KtchatError as error:  # nothing was changed
            self._refuse(draft, str(error), "error")
            return
        activity.replying, activity.refused, activity.price = True, "", ""
        activity.put_aside = activity.edited = None
        if draft.text.strip():
            frame.prompt.remember(draft.text)
        self._tokens = 0
        frame.status.hush()
        frame.run_worker(
            self._follow(chat, updates), group="reply", exit_on_error=False, name="reply"
        )

    async def _follow(self, chat: ChatSession, updates: AsyncGenerator[Update, None]) -> None:
        """Take the updates of one reply to its end."""
        frame = self._frame
        try:
            async with aclosing(updates) as stream:
                async for update in stream:
                    await self._take(chat, update)
        finally:
            self._activity.replying = self._activity.thinking = self._activity.quiet = False
            await frame.transcript.settle()
            if chat.loaded is not None:  # an engine that died has loaded it again, maybe elsewhere
                frame.show_model(chat)
            frame.header.show_context(chat.context_used or self._tokens, chat.context_size)
            frame.refresh_status()
            self._listing.refresh_soon()
            self._listing.title_soon()
            self._activity.changed()

    async def _take(self, chat: ChatSession, update: Update) -> None:
        frame = self._frame
        from ktchat.session.chat import Started

        if isinstance(update, Started):
            await frame.transcript.begin(update.turn, update.replaced)
            frame.refresh_status()
            self._listing.refresh_soon()
            return
        if isinstance(update, Quiet):
            frame.show_quiet(update.quiet)
            return
        if isinstance(update, Insight):
            self.insight(chat, update)
            return
        frame.transcript.feed(update)
        if isinstance(update, Text | Thinking | WasThinking):
            self._note_thinking(isinstance(update, Thinking))
        if isinstance(update, Prefilled):
            self._tokens = update.tokens
        elif isinstance(update, Text | Thinking):
            self._tokens += update.tokens
        elif isinstance(update, Finished):
            self._tokens = update.figures.context_used or self._tokens
            if chat.loaded is not None and not chat.loaded.origin:
                self._note_speed(chat.loaded, update.figures)
        elif isinstance(update, Failed):
            last = chat.conversation.last
            if last is not None and str(last.error or "") != str(update.error):
                frame.status.say(str(update.error), "error")  # the reply before is shown again
            if last is not None and last.without_reply and not frame.prompt.draft:
                frame.prompt.put_draft(last.draft)
        now = time.monotonic()
        if now - self._header_at > _HEADER_SECONDS:
            self._header_at = now
            frame.header.show_context(self._tokens, chat.context_size)

    def _note_thinking(self, thinking: bool) -> None:
        """A key ends the thinking: it is shown as long as there is something to end."""
        if thinking != self._activity.thinking:
            self._activity.thinking = thinking
            self._frame.refresh_status()

    def _note_speed(self, loaded: Loaded, figures: Figures) -> None:
        """Keep how fast a reply came: it replaces the prediction for this model."""

        async def note() -> None:
            from engine.plan.speed import record_run

            await ask(record_run, Path(loaded.path), figures, loaded.device)

        self._frame.run_worker(note(), group="speed", exit_on_error=False)

    def _refuse(self, draft: Draft, words: str, severity: Severity = "warning") -> None:
        """Say why a message was not sent; it stands in the prompt again."""
        self._frame.status.say(words, severity)
        self._frame.prompt.put_before(draft)

    def _take_back(self) -> bool:
        draft, self._activity.queued = self._activity.queued, None
        if draft is not None:
            self._frame.prompt.put_before(draft)
        return draft is not None
