"""What is going on in the chat: loading, replying, switching sessions, editing, a queued message.

`replies`, `session_flow` and `model_flow` change it and the frame shows it. `until` waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ktchat.attachments.attachment import Draft
    from ktchat.context import AppContext
    from ktchat.session.chat import ChatSession
    from ktchat.store.conversation import Conversation, Turn
    from ktchat.store.tree import Part


class Guard(Protocol):
    """Sees to it that there is room in the context for a reply."""

    def guard(
        self, chat: ChatSession, unsent: Conversation, draft: Draft, begin: Callable[[], None], /
    ) -> bool:
        """Whether a reply may begin at once; else `begin` is called later, or `draft` is in the prompt."""
        ...

    def stop(self) -> bool:
        """Leave all as it was; False: nothing goes on."""
        ...


class Activity:
    """Shared by the parts of the chat screen. Who ends something calls `changed`."""

    def __init__(self, context: AppContext) -> None:
        self.context = context
        self.replying = False
        """A reply is being written, or is about to be."""
        self.thinking = False
        """The reply that is being written is thinking."""
        self.quiet = False
        """The engine has work and gives no sign of life."""
        self.switching = True
        """What stands in the prompt is not (yet) the open session's."""
        self.loading = ""
        """Path of the model that is being loaded."""
        self.wanted = ""
        """Path of the model that was asked for last and not refused."""
        self.next_model = ""
        """Path of the model that is loaded when the reply ends."""
        self.refused = ""
        """Path of the model whose loading failed last, until the conversation goes on without it."""
        self.making_room = ""
        """What is being done so that a message fits into the context, in words; empty: nothing."""
        self.queued: Draft | None = None
        """The message that waits for the model or for the end of a reply."""
        self.put_aside: Draft | None = None
        """The draft that an edit replaced in the prompt; None: nothing is being edited."""
        self.edited: tuple[Turn, Part] | None = None
        """What is being edited: a turn's message, or its reply."""
        self.price = ""
        """What the change that can be made now costs; empty: nothing worth saying, or unknown."""
        self._change = asyncio.Event()

    @property
    def editing(self) -> bool:
        """Whether the prompt holds a message, or a reply, to be replaced."""
        return self.put_aside is not None

    @property
    def busy(self) -> bool:
        """Whether a reply is being written, a model loaded, or room made for a message."""
        return self.replying or bool(self.loading or self.making_room)

    @property
    def ready(self) -> bool:
        """Whether a message could be sent now."""
        return self.context.chat is not None and not (
            self.busy or self.switching or self.next_model
        )

    def changed(self) -> None:
        """Have everything that waits look again."""
        self._change.set()
        self._change = asyncio.Event()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        while not holds():
            await self._change.wait()
