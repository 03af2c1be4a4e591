"""A session's title written by the model, in the background after the first reply.

It gives way to everything else: the engine does one thing at a time, and a message goes before a title.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from engine.errors import KtchatError
from engine.protocol import Event, Failed, Load, Message, Sampling, Text
from ktchat.common.text import one_line
from ktchat.session.model_session import ModelSession
from ktchat.store.conversation import TITLE_LENGTH, Conversation, TurnState, title_of_draft

ASK = (
    "Write a title for this conversation, of at most seven words, in the language of the conversation."
    " Answer with the title alone."
)
MAX_TOKENS = 32
LEAST = 3
"""Characters of a title that is one."""

_LABEL = re.compile(r"^(title|titel)\s*[:：]\s*", re.IGNORECASE)
_AROUND = " \t*_#\"'“”„«»`.。"


class TitledSession(ModelSession):
    """The session whose title the model may write."""

    _titling: asyncio.Task[None] | None = None

    @property
    def wants_title(self) -> bool:
        """Whether the first reply is there, and the title is still what was made of the first message."""
        turns = self.conversation.turns
        return (
            len(turns) == 1
            and turns[0].state == TurnState.COMPLETE
            and bool(turns[0].raw_reply)
            and self.conversation.title == title_of_draft(turns[0].draft)
            and not (self.busy or self.read_only)
            and self.store.keeps
            and self.loaded is not None
        )

    async def write_title(self) -> bool:
        """Have the model write the title, if one is wanted; whether there is a new one."""
        if not self.wants_title or self._titling is not None:
            return False
        before = self.conversation.title
        self._titling = asyncio.get_running_loop().create_task(self._title(self.conversation))
        try:
            await asyncio.wait({self._titling})
        finally:
            self._titling = None
        return self.conversation.title != before

    async def give_way(self) -> None:
        """Leave the title that is being written."""
        task = self._titling
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def load(self, command: Load) -> AsyncGenerator[Event, None]:
        """Load a model; the last event is `Loaded` or `Failed`."""
        await self.give_way()
        async for event in super().load(command):
            yield event

    async def _title(self, conversation: Conversation) -> None:
        before, said = conversation.title, ""
        off = self.loaded is not None and "off" in self.loaded.think
        stream = self.engine.generate(
            [*conversation.messages(), Message("user", ASK)],
            replace(Sampling(), temperature=0.0),
            MAX_TOKENS,
            "off" if off else None,
            None,
        )
        try:
            async with aclosing(stream) as events:  # type: ignore[type-var]
                async for event in events:
                    if isinstance(event, Failed):
                        return
                    said += event.text if isinstance(event, Text) else ""
        except KtchatError:
            return
        title = as_title(said)
        if title and conversation is self.conversation and conversation.title == before:
            conversation.title = title
            self.saver.touch(conversation)


def as_title(said: str) -> str:
    """The title in what the model said, safe to draw; empty: there is none."""
    for line in said.strip().splitlines():
        words = _LABEL.sub("", one_line(line, 2 * TITLE_LENGTH).strip(_AROUND)).strip(_AROUND)
        if words:
            return words if LEAST <= len(words) <= TITLE_LENGTH else ""
    return ""
