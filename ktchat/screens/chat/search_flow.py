"""Searching from the chat screen: words in this conversation or in all sessions, and the way there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.common.units import count
from engine.errors import KtchatError

if TYPE_CHECKING:
    from ktchat.context import AppContext
    from ktchat.screens.chat.frame import Frame
    from ktchat.screens.chat.session_flow import SessionFlow
    from ktchat.store.search import Hit


class SearchFlow:
    """Opens the search and goes where it leads."""

    def __init__(self, frame: Frame, context: AppContext, sessions: SessionFlow) -> None:
        self._frame, self._context, self._sessions = frame, context, sessions

    def open(self, here: bool) -> None:
        """Search in the open conversation (`here`), or everywhere."""
        from ktchat.screens.dialogs.search_dialog import SearchDialog

        chat = self._context.chat
        if chat is not None:
            empty = not chat.conversation.turns
            self._frame.app.push_screen(SearchDialog(self._find, here, empty), self._go)

    async def _find(self, text: str, here: bool) -> tuple[Sequence[Hit], str]:
        from ktchat.store.search import find_in

        chat = self._context.chat
        if chat is None or not text.strip():
            return (), ""
        if here:
            return find_in(chat.conversation, text), ""
        try:
            hits = await chat.store.call(chat.store.search.find, text)
            behind = await chat.store.call(chat.store.search.behind)
        except KtchatError as error:
            return (), str(error)
        said = f"{count(behind)} older turns are not in the index yet" if behind else ""
        return hits, said

    def _go(self, hit: Hit | None) -> None:
        if hit is not None:
            self._frame.hide_overlay()
            self._sessions.open(hit.session, hit.turn)
