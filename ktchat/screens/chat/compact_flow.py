"""Compacting a conversation before it has to be: a summary in the place of all turns but the last."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import KtchatError
from ktchat.attachments.attachment import Draft
from ktchat.screens.chat.overflow_flow import SECONDS, UNDO, OverflowFlow
from ktchat.store.conversation import Compaction

if TYPE_CHECKING:
    from ktchat.screens.chat.activity import Activity
    from ktchat.screens.chat.frame import Frame
    from ktchat.session.chat import ChatSession


class CompactFlow:
    """Makes room because the person asked for it."""

    def __init__(self, frame: Frame, activity: Activity, overflow: OverflowFlow) -> None:
        self._frame, self._activity, self._overflow = frame, activity, overflow
        self._context = activity.context

    def compact(self) -> None:
        """Have the model summarise all turns but the last, as the person asked for."""
        chat, activity = self._context.chat, self._activity
        if chat is None or not chat.conversation.turns:
            self._frame.status.say("there is nothing to summarise yet")
        elif not activity.ready or activity.editing or chat.read_only:
            self._frame.status.say("not yet: something is still going on", "warning")
        else:
            activity.making_room = "counting tokens"
            self._frame.run_worker(self._compact(chat), group="room", exit_on_error=False)

    async def _compact(self, chat: ChatSession) -> None:
        from ktchat.session.compaction import Compactor, unsent

        activity, status = self._activity, self._frame.status
        try:
            room = await Compactor(chat).everything(chat.conversation)
            if room is None:
                status.say("there is nothing to summarise: the last turn is read as it is")
                return
            activity.making_room = "writing a summary"
            self._frame.refresh_status()
            written = await self._overflow.written(
                chat, unsent(chat.conversation, Draft(".")), room
            )
            if written is not None:
                self._overflow.choose(chat, Compaction(room.compaction.unread, written), room)
                status.say(self._overflow.news, "information", UNDO, SECONDS)
        except KtchatError as error:
            status.say(str(error), "error")
        finally:
            activity.making_room = ""
            self._frame.refresh_status()
            activity.changed()
