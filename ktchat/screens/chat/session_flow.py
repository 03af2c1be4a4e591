"""Sessions on the chat screen: opening, renaming, deleting and bringing back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from engine.errors import KtchatError
from ktchat.attachments.attachment import Draft
from ktchat.common import words

if TYPE_CHECKING:
    from ktchat.screens.chat.activity import Activity
    from ktchat.screens.chat.frame import Frame
    from ktchat.screens.chat.replies import Replies
    from ktchat.screens.chat.session_listing import SessionListing
    from ktchat.session.chat import ChatSession
    from ktchat.store.conversation import Turn

EMPTY = Draft()


class SessionFlow:
    """The session that is open and those in the list."""

    def __init__(
        self, frame: Frame, activity: Activity, listing: SessionListing, replies: Replies
    ) -> None:
        self._frame = frame
        self._activity = activity
        self._context = activity.context
        self._listing = listing
        self._replies = replies
        self._deleted: list[str] = []  # can be brought back, the last deleted at the end
        self._lock = asyncio.Lock()  # one change of session at a time

    def new(self) -> None:
        """Begin a session."""
        self._switch(None)

    async def begin(self) -> None:
        """Begin a session, and return when it is open."""
        chat = self._context.chat
        if chat is not None:
            await self._enter(chat, None, self._put_away(chat))

    def open(self, session: str, turn: str | None = None) -> None:
        """Open a saved session, at a turn if one is named."""
        self._switch(session, turn)

    def branch(self, turn: Turn) -> None:
        """Begin a session with the conversation up to a turn."""
        self._run(self._branch(turn))

    def rename(self, session: str, title: str) -> None:
        """Give a session another title."""
        self._run(self._rename(session, title))

    def delete(self, session: str) -> None:
        """Delete a session; it can be brought back for ten seconds."""
        self._run(self._delete(session))

    def undo_delete(self) -> None:
        """Bring back the session deleted last."""
        if self._deleted:
            self._run(self._undo(self._deleted[-1]))
        else:
            self._frame.status.say("there is nothing to bring back")

    def say_on_disk(self) -> None:
        """Say what the KV cache of all sessions takes on the disk."""
        self._run(self._say_on_disk())

    async def start(self, session: str) -> None:
        """Open the session of the last time, or begin one."""
        chat = self._context.chat
        if chat is None:
            return
        async with self._lock:
            with contextlib.suppress(KtchatError):  # it is gone, or unreadable: begin a new one
                if session:
                    await chat.open(session)
            if chat.conversation.id != session:
                await chat.new()
            await self._show(chat, self._frame.prompt.draft)

    # Inside.

    async def _say_on_disk(self) -> None:
        chat, settings = self._context.chat, self._context.settings.settings
        if chat is not None:
            kv = chat.store.kv
            used = await chat.store.call(kv.used)
            budget = await chat.store.call(kv.budget, settings.cache_budget)
            said = words.on_disk(used, budget if settings.disk_cache else None)
            self._frame.status.say(f"{said} · ktchat sessions cache --clear", seconds=30.0)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._frame.run_worker(work, group="sessions", exit_on_error=False)

    def _switch(self, session: str | None, turn: str | None = None) -> None:
        """Enter a session; from this key on what is typed is its."""
        chat, switching = self._context.chat, self._activity.switching
        if chat is None or (not switching and _is_open(chat, session)):
            self._frame.prompt.focus()
            if chat is not None and turn is not None:
                self._run(self._reveal(chat, turn))
        else:
            draft = EMPTY if switching else self._put_away(chat)
            self._run(self._enter(chat, session, draft, turn))

    async def _reveal(self, chat: ChatSession, turn: str) -> None:
        """Show a turn of the open session, in the version that it belongs to."""
        from ktchat.store import tree

        frame, found = self._frame, tree.find(chat.conversation, turn)
        if found is None:
            frame.status.say("this turn does not exist any more")
            return
        if not any(shown is found for shown in chat.conversation.turns):
            try:
                chat.show_version(found)
            except KtchatError as error:
                frame.status.say(str(error), "warning")
                return
            await frame.transcript.follow()
        await frame.transcript.reveal(found)
        frame.refresh_status()

    async def _enter(
        self, chat: ChatSession, session: str | None, draft: Draft, turn: str | None = None
    ) -> None:
        frame = self._frame
        async with self._lock:
            title, stopped = _short(chat.conversation.shown_title), False
            try:
                if _is_open(chat, session):
                    return
                stopped = await self._replies.come_to_rest()
                await (chat.new() if session is None else chat.open(session))
                await self._show(chat, frame.prompt.draft)
            except KtchatError as error:
                frame.status.say(str(error), "error")
                frame.prompt.put_before(draft)
                await self._listing.refresh()
            finally:
                self._activity.switching = False
                self._activity.changed()
        if stopped:
            frame.status.say(f"the reply was stopped and is kept in “{title}”")
        frame.prompt.focus()
        if turn is not None and session == chat.conversation.id:
            await self._reveal(chat, turn)

    async def _branch(self, turn: Turn) -> None:
        chat, frame = self._context.chat, self._frame
        if chat is None:
            return
        async with self._lock:
            self._put_away(chat)
            try:
                await self._replies.come_to_rest()
                await chat.branch(turn)
                await self._show(chat, frame.prompt.draft)
            except KtchatError as error:
                frame.status.say(str(error), "error")
            finally:
                self._activity.switching = False
                self._activity.changed()
        frame.status.say("a session of its own, with all up to there; the other one stays as it is")
        frame.prompt.focus()

    def _put_away(self, chat: ChatSession) -> Draft:
        """Keep the prompt as the draft of the session that is left: what is typed now is the next one's."""
        self._replies.take_back()
        prompt = self._frame.prompt
        draft = prompt.draft
        chat.keep_draft(draft)
        self._activity.switching = True
        prompt.put_draft(EMPTY)
        return draft

    async def _show(self, chat: ChatSession, typed: Draft = EMPTY) -> None:
        """Show the session that is open now."""
        await self._frame.show_conversation(chat, typed)
        self._activity.switching = False
        chat.keep_draft(self._frame.prompt.draft)  # what was typed meanwhile, too
        self._activity.changed()
        await self._listing.refresh()
        self._context.remember(last_session=chat.conversation.id)

    async def _rename(self, session: str, title: str) -> None:
        chat = self._context.chat
        if chat is None:
            return
        try:
            await chat.rename(session, title)
        except KtchatError as error:
            self._frame.status.say(str(error), "error")
        await self._listing.refresh()

    async def _delete(self, session: str) -> None:
        chat = self._context.chat
        if chat is None:
            return
        async with self._lock:
            was_open = session == chat.conversation.id
            if was_open:
                await self._replies.come_to_rest()
            try:
                await chat.delete(session)
            except KtchatError as error:
                self._frame.status.say(str(error), "error")
                return
            self._mark_deleted(session)
            if was_open:
                await self._show(chat)
            else:
                await self._listing.refresh()

    def _mark_deleted(self, session: str) -> None:
        """Say that a session is deleted, and keep it within reach for a while."""
        from ktchat.store.store import UNDO_SECONDS

        frame = self._frame
        summary = frame.session_list.summary(session)
        title = _short(summary.shown_title) if summary else "the session"
        frame.session_list.mark_deleted(session)
        self._deleted.append(session)
        frame.set_timer(UNDO_SECONDS, lambda: self._gone(session))
        undo = ("undo", "screen.undo_delete")
        frame.status.say(f"“{title}” is deleted", "information", undo, UNDO_SECONDS)

    def _gone(self, session: str) -> None:
        """Ten seconds are over."""
        if session in self._deleted:
            self._deleted.remove(session)
            self._frame.session_list.forget(session)

    async def _undo(self, session: str) -> None:
        frame, chat = self._frame, self._context.chat
        if chat is None:
            return
        try:
            await chat.undo_delete(session)
        except KtchatError as error:
            frame.status.say(str(error), "error")
            return
        self._deleted.remove(session)
        await self._listing.refresh()  # before it is forgotten: its row stays under the cursor
        frame.session_list.forget(session)
        frame.status.say("the session is back")


def _is_open(chat: ChatSession, session: str | None) -> bool:
    return session == chat.conversation.id and not chat.read_only


def _short(title: str) -> str:
    return title if len(title) <= 40 else title[:39].rstrip() + "…"
