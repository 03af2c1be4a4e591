"""The turns of the open session on the chat screen: versions, branches, replies changed by hand, and what it costs."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from engine.errors import KtchatError
from ktchat.common import words
from ktchat.store import tree
from ktchat.store.conversation import Turn

if TYPE_CHECKING:
    from ktchat.screens.chat.activity import Activity
    from ktchat.screens.chat.frame import Frame
    from ktchat.screens.chat.session_flow import SessionFlow
    from ktchat.screens.chat.session_listing import SessionListing
    from ktchat.session.chat import ChatSession
    from ktchat.store.tree import Part

WORTH_SAYING = 16
"""Tokens from which it is said that they are read again."""


class BranchFlow:
    """The tree that the open session is."""

    def __init__(
        self, frame: Frame, activity: Activity, listing: SessionListing, sessions: SessionFlow
    ) -> None:
        self._frame, self._activity = frame, activity
        self._context = activity.context
        self._listing, self._sessions = listing, sessions

    def walk(self, turn: Turn, part: Part, step: int) -> None:
        """Show another version of a turn."""
        chat = self._idle()
        if chat is None:
            return
        version = tree.neighbour(chat.conversation, turn, part, step)
        if version is None:
            self._frame.status.say("there is no version further on")
        else:
            self._run(self._show(chat, version, part))

    def walk_last(self, step: int) -> None:
        """Show another version of the last turn that has any, of its reply before its message."""
        chat = self._context.chat
        turns = chat.conversation.turns if chat is not None else []
        for turn in reversed(turns):
            for part in ("reply", "prompt"):
                if chat is not None and tree.place(chat.conversation, turn, part).of > 1:
                    self.walk(turn, part, step)
                    return
        self._frame.status.say("there is one version of every turn")

    def branch(self, turn: Turn | None) -> None:
        """Begin a session with the conversation up to a turn (None: the last)."""
        chat = self._idle()
        turn = turn or (chat.conversation.last if chat is not None else None)
        if chat is None:
            return
        if turn is None:
            self._frame.status.say("there is nothing to branch from")
        else:
            self._sessions.branch(turn)

    def keep_reply(self, turn: Turn, text: str) -> None:
        """Put what was typed in the place of a reply."""
        chat = self._idle()
        if chat is None:
            return
        try:
            chat.edit_reply(turn, text)
        except KtchatError as error:
            self._frame.status.say(str(error), "error")
            self._frame.prompt.put(text)
            return
        self._run(self._shown_again(chat, turn))

    def price(self, turn: Turn | None, part: Part | None) -> None:
        """Find out what regenerating a turn, or editing its `part`, will have the model read again; then say it."""
        self._activity.price = ""
        chat = self._context.chat
        if turn is None or chat is None or chat.busy:
            self._frame.workers.cancel_group(self._frame, "price")
            return
        self._frame.run_worker(
            self._price(chat, turn, part), group="price", exclusive=True, exit_on_error=False
        )

    # Inside.

    def _idle(self) -> ChatSession | None:
        if self._activity.busy:
            self._frame.status.say("a reply is being written: Esc stops it")
            return None
        return self._context.chat

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._frame.run_worker(work, group="branches", exit_on_error=False)

    async def _show(self, chat: ChatSession, turn: Turn, part: Part) -> None:
        try:
            chat.show_version(turn)
        except KtchatError as error:
            self._frame.status.say(str(error), "warning")
            return
        await self._shown_again(chat, None)
        view = self._frame.transcript.view_of(turn, part)
        if view is None:  # more came behind it than is mounted at once
            await self._frame.transcript.reveal(turn, part)
        else:
            view.focus(scroll_visible=False)

    async def _shown_again(self, chat: ChatSession, changed: Turn | None) -> None:
        frame = self._frame
        await frame.transcript.follow(changed)
        frame.header.show_context(chat.context_used, chat.context_size)
        frame.refresh_status()
        self._listing.refresh_soon()

    async def _price(self, chat: ChatSession, turn: Turn, part: Part | None) -> None:
        tokens = await chat.read_again(turn, part)
        if tokens is not None and tokens >= WORTH_SAYING:
            self._activity.price = words.read_again(tokens, chat.prompt_speed)
            self._frame.refresh_status()
