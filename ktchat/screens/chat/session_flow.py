"""Sessions on the chat screen: opening, renaming, deleting and bringing back.

Knows the order of things between the store, the session list and the transcript.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from engine.errors import KtchatError

if TYPE_CHECKING:
    from ktchat.screens.chat.chat import ChatScreen
    from ktchat.session.chat import ChatSession
    from ktchat.store.conversation import Conversation
    from ktchat.store.records import SessionSummary


class SessionFlow:
    """The session that is open and those in the list."""

    def __init__(self, screen: ChatScreen) -> None:
        self._screen = screen
        self._deleted: list[str] = []  # can be brought back, the last deleted at the end
        self._seen: dict[str, Conversation] = {}  # that were open since the start
        self._trouble = ""  # why the list could not be read, as it was said
        self._lock = asyncio.Lock()  # one change of session at a time
        self.switching = True
        """What stands in the prompt is not (yet) the open session's."""

    def refresh(self) -> None:
        """Read the list again, soon."""
        self._run(self._refresh())

    def new(self) -> None:
        """Begin a session."""
        self._run(self._enter(None))

    def open(self, session: str) -> None:
        """Open a saved session."""
        self._run(self._enter(session))

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
            self._screen.status.say("there is nothing to bring back")

    async def start(self, session: str) -> None:
        """Open the session of the last time, or begin one."""
        chat = self._screen.chat
        if chat is None:
            return
        async with self._lock:
            with contextlib.suppress(KtchatError):  # it is gone, or unreadable: begin a new one
                if session:
                    await chat.open(session)
            if chat.conversation.id != session:
                await chat.new()
            await self._show(chat, self._screen.prompt.text)

    # Inside.

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._screen.run_worker(work, group="sessions", exit_on_error=False)

    async def _refresh(self) -> None:
        """Read the list again; sessions that only memory has so far belong to it."""
        chat = self._screen.chat
        if chat is None:
            return
        summaries: list[SessionSummary] = []
        trouble = ""
        try:
            summaries = await chat.store.call(chat.store.sessions)
        except KtchatError as error:
            trouble = str(error)
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble:
                self._screen.status.say(trouble, "error")
        listed = {summary.id for summary in summaries}
        self._seen[chat.conversation.id] = chat.conversation
        for conversation in self._seen.values():
            if conversation.id not in listed and chat.saver.unsaved(conversation.id) is not None:
                summaries.append(_summary(conversation))
        self._screen.session_list.show(summaries, chat.conversation.id)

    async def _enter(self, session: str | None) -> None:
        screen, chat = self._screen, self._screen.chat
        if chat is None or (session == chat.conversation.id and not chat.read_only):
            screen.prompt.focus()
            return
        async with self._lock:
            title = _short(chat.conversation.shown_title)
            stopped = await screen.replies.come_to_rest()
            self.switching = True
            try:
                await (chat.new() if session is None else chat.open(session))
                await self._show(chat)
            except KtchatError as error:
                screen.status.say(str(error), "error")
                await self._refresh()
            finally:
                self.switching = False
        if stopped:
            screen.status.say(f"the reply was stopped and is kept in “{title}”")
        screen.prompt.focus()

    async def _show(self, chat: ChatSession, typed: str = "") -> None:
        """Show the session that is open now."""
        screen = self._screen
        await screen.show_conversation(chat, typed)
        self.switching = False
        screen.replies.send_waiting()
        await self._refresh()
        screen.remember(last_session=chat.conversation.id)

    async def _rename(self, session: str, title: str) -> None:
        chat = self._screen.chat
        if chat is None:
            return
        try:
            await chat.rename(session, title)
        except KtchatError as error:
            self._screen.status.say(str(error), "error")
        await self._refresh()

    async def _delete(self, session: str) -> None:
        screen, chat = self._screen, self._screen.chat
        if chat is None:
            return
        async with self._lock:
            was_open = session == chat.conversation.id
            if was_open:
                await screen.replies.come_to_rest()
            try:
                await chat.delete(session)
            except KtchatError as error:
                screen.status.say(str(error), "error")
                return
            self._mark_deleted(session)
            if was_open:
                await self._show(chat)
            else:
                await self._refresh()

    def _mark_deleted(self, session: str) -> None:
        """Say that a session is deleted, and keep it within reach for a while."""
        from ktchat.store.store import UNDO_SECONDS

        screen = self._screen
        summary = screen.session_list.summary(session)
        title = _short(summary.shown_title) if summary else "the session"
        screen.session_list.mark_deleted(session)
        self._deleted.append(session)
        screen.set_timer(UNDO_SECONDS, lambda: self._gone(session))
        undo = ("undo", "screen.undo_delete")
        screen.status.say(f"“{title}” is deleted", "information", undo, UNDO_SECONDS)

    def _gone(self, session: str) -> None:
        """Ten seconds are over."""
        if session in self._deleted:
            self._deleted.remove(session)
            self._screen.session_list.forget(session)

    async def _undo(self, session: str) -> None:
        screen, chat = self._screen, self._screen.chat
        if chat is None:
            return
        try:
            await chat.undo_delete(session)
        except KtchatError as error:
            screen.status.say(str(error), "error")
            return
        self._deleted.remove(session)
        screen.session_list.forget(session)
        screen.status.say("the session is back")
        await self._refresh()


def _summary(conversation: Conversation) -> SessionSummary:
    from ktchat.store.records import SessionSummary

    return SessionSummary(
        id=conversation.id,
        title=conversation.title,
        created=conversation.created,
        updated=conversation.updated,
        model_name=conversation.model_name,
        turns=len(conversation.turns),
    )


def _short(title: str) -> str:
    return title if len(title) <= 40 else title[:39].rstrip() + "…"
