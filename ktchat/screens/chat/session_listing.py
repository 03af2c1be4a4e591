"""The session list, which is read again whenever a session has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import KtchatError

if TYPE_CHECKING:
    from ktchat.context import AppContext
    from ktchat.screens.chat.frame import Frame
    from ktchat.store.conversation import Conversation
    from ktchat.store.records import SessionSummary


LISTED = 500
"""Sessions in the list, the last used ones; older ones are found by their words."""


class SessionListing:
    """What the store has, and what so far only memory has."""

    def __init__(self, frame: Frame, context: AppContext) -> None:
        self._frame = frame
        self._context = context
        self._seen: dict[str, Conversation] = {}  # that were open since the start
        self._trouble = ""  # why the list could not be read, as it was said

    def refresh_soon(self) -> None:
        """Read the list again in the background."""
        self._frame.run_worker(self.refresh(), group="sessions", exit_on_error=False)

    def title_soon(self) -> None:
        """Where the person wants that, have the model write the open session's title, in the background."""
        if self._context.settings.settings.model_titles:
            self._frame.run_worker(self._title(), group="title", exit_on_error=False)

    async def _title(self) -> None:
        chat = self._context.chat
        if chat is not None and await chat.write_title():
            await self.refresh()

    async def refresh(self) -> None:
        """Read the list again; sessions that only memory has so far belong to it."""
        chat = self._context.chat
        if chat is None:
            return
        summaries: list[SessionSummary] = []
        trouble = ""
        try:
            summaries = await chat.store.call(chat.store.sessions, LISTED)
        except KtchatError as error:
            trouble = str(error)
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble:
                self._frame.status.say(trouble, "error")
        listed = {summary.id for summary in summaries}
        self._seen[chat.conversation.id] = chat.conversation
        for conversation in self._seen.values():
            if conversation.id not in listed and chat.saver.unsaved(conversation.id) is not None:
                summaries.append(_summary(conversation))
        self._frame.session_list.show(summaries, chat.conversation.id)


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
