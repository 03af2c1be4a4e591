"""The open session's system message on the chat screen: said, and chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import KtchatError

if TYPE_CHECKING:
    from ktchat.screens.chat.activity import Activity
    from ktchat.screens.chat.frame import Frame

SECONDS = 30.0


class SystemFlow:
    """What the model is told before everything else."""

    def __init__(self, frame: Frame, activity: Activity) -> None:
        self._frame, self._context = frame, activity.context

    def say(self) -> None:
        """Say what it is."""
        chat = self._context.chat
        if chat is not None:
            known = chat.conversation.system.strip()
            words = f"system: {known}" if known else "there is no system message"
            self._frame.status.say(f"{words} · /system TEXT changes it", seconds=SECONDS)

    def choose(self, text: str) -> None:
        """Another one, from the next message on; the old one is recalled with Up."""
        chat, frame = self._context.chat, self._frame
        if chat is None:
            return
        before = chat.conversation.system.strip()
        try:
            chat.choose(system=text)
        except KtchatError as error:
            frame.status.say(str(error), "error")
            return
        if before and before != text:
            frame.prompt.remember(f"/system {before}")
            frame.prompt.remember(f"/system {text}")
        again = " · the conversation is read again" if chat.conversation.turns else ""
        frame.status.say(f"the system message holds from the next message on{again}")
        frame.count_draft()
