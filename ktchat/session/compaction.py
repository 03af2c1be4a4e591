"""Making room in the context: which of the oldest turns could go unread, and a summary in their place.

Nothing is changed here: what is found is a `Compaction`, which the conversation may choose. Tokens are
those of the model's own tokenizer and template.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.common.units import count
from engine.protocol import Counted
from ktchat.attachments.attachment import Draft
from ktchat.session.summary import summary_of
from ktchat.store.conversation import Compaction, Conversation, Turn

if TYPE_CHECKING:
    from ktchat.session.chat import ChatSession

REPLY_TOKENS = 256
"""Room that a reply should have ..."""
REPLY_SHARE = 8
"""... or an eighth of the context, where that is less."""
ROOMY_SHARE = 4
"""Where turns go unread, so many that a quarter of the context is free: else the next message overflows again."""
SUMMARY_TOKENS = (32, 1024)
"""Least and most tokens of a summary; in between an eighth of the context."""
OVERHEAD = 2048, 64
"""Tokens that a template adds at most, and those around each message: no bound, but what is sent is counted anyway."""


@dataclass(frozen=True, slots=True)
class Overflow:
    """A message, or a reply that is to go on, for which the context has too little room."""

    conversation: Conversation
    """As it would be sent: the last turn is the one to be answered."""
    tokens: int
    context: int
    reply: int
    """Tokens that the reply should have."""

    @property
    def left(self) -> int:
        """Tokens for the reply, were it sent as it is; less than 1: that is not possible."""
        return self.context - self.tokens


@dataclass(frozen=True, slots=True)
class Room:
    """One way to make room, and what it costs. All numbers are tokens."""

    compaction: Compaction
    """Its summary may be still to be written."""
    turns: tuple[Turn, ...]
    """Those that go unread."""
    tokens: int
    """Of the prompt then, the longest summary included."""
    freed: int
    read: int
    """That must be read again."""
    summary: int = 0
    """Of a summary at most; 0: there is none to write."""

    @property
    def oldest(self) -> str:
        """The turns that go unread in words: `the oldest turn`, `the 6 oldest turns`."""
        number = len(self.turns)
        return "the oldest turn" if number == 1 else f"the {count(number)} oldest turns"


def unsent(conversation: Conversation, draft: Draft, replaced: Turn | None = None) -> Conversation:
    """A conversation with a message that is not sent yet, in the place of `replaced` where that is given."""
    turns = conversation.turns
    at = next((i for i, turn in enumerate(turns) if turn is replaced), len(turns))
    chosen = conversation.next_compaction or (replaced.compaction if replaced else None)
    return _view(
        conversation,
        [*turns[:at], Turn(draft.text, compaction=chosen, attachments=draft.attachments)],
    )


def going_on(conversation: Conversation, turn: Turn) -> Conversation:
    """A conversation whose last reply, that of `turn`, is to go on."""
    at = next(i for i, shown in enumerate(conversation.turns) if shown is turn)
    chosen = conversation.next_compaction or turn.compaction
    last = dataclasses.replace(turn, compaction=chosen)
    return _view(conversation, [*conversation.turns[:at], last])


class Compactor:
    """Makes room for the chat that is open."""

    def __init__(self, chat: ChatSession) -> None:
        self._chat = chat

    # Whether there is room.

    def surely_fits(self, conversation: Conversation) -> bool:
        """Whether the mere number of bytes says so: no tokenizer makes more tokens of a text than it has bytes."""
        loaded = self._chat.loaded
        if loaded is None or not loaded.context:
            return True  # nothing can be said; the reply itself will say it
        messages = conversation.messages()
        size = sum(len(message.content.encode("utf-8", "replace")) for message in messages)
        fixed, each = OVERHEAD
        return size + fixed + each * len(messages) < loaded.context - self._reply(loaded.context)

    async def overflow(self, conversation: Conversation) -> Overflow | None:
        """Whether the context has too little room; None: there is enough, or it is not known."""
        loaded = self._chat.loaded
        if loaded is None or self.surely_fits(conversation):
            return None
        counted = await self._count(conversation)
        if counted is None or counted.tokens is None:
            return None
        found = Overflow(conversation, counted.tokens, loaded.context, self._reply(loaded.context))
        return found if found.left < found.reply else None

    # Ways to make room.

    async def drop(self, overflow: Overflow) -> Room | None:
        """The fewest of the oldest turns without which there is room; None: the rest alone is too long."""
        kept = overflow.conversation.compaction.summary
        for summary in dict.fromkeys((kept, "")):
            if (room := await self._room(overflow, summary, 0)) is not None:
                return room
        return None

    async def summarise(self, overflow: Overflow) -> Room | None:
        """The fewest of the oldest turns in whose place a summary leaves room; None: there are none."""
        return await self._room(overflow, ".", self.summary_tokens)

    async def begin_anew(self, overflow: Overflow) -> Room | None:
        """A summary of everything, for a session that begins with it; None: there is nothing to sum up."""
        turns = overflow.conversation.turns[:-1]
        room = await self._tokens(overflow, Compaction(len(turns), "."))
        limit = self.summary_tokens
        if (
            not turns
            or room is None
            or room.tokens is None
            or room.tokens + limit >= overflow.context
        ):
            return None
        return self._priced(overflow, Compaction(len(turns)), room, limit)

    async def everything(self, conversation: Conversation) -> Room | None:
        """A summary in the place of all turns but the last; None: there are none, or the model is not there."""
        turns, loaded = conversation.turns, self._chat.loaded
        chosen = Compaction(len(turns) - 1)
        if loaded is None or chosen.unread <= conversation.compaction.unread:
            return None
        asked = unsent(conversation, Draft("."))
        before = await self._count(asked)
        if before is None or before.tokens is None:
            return None
        overflow = Overflow(asked, before.tokens, loaded.context, self._reply(loaded.context))
        after = await self._tokens(overflow, Compaction(chosen.unread, "."))
        if after is None or after.tokens is None:
            return None
        return self._priced(overflow, chosen, after, self.summary_tokens)

    @property
    def summary_tokens(self) -> int:
        """Of a summary at most."""
        least, most = SUMMARY_TOKENS
        return max(least, min(most, self._chat.context_size // 8))

    async def write(self, room: Room, conversation: Conversation) -> AsyncGenerator[str, None]:
        """Have the model write the summary: what there is of it, safe to draw, again and again.

        Raises `RequestError` while a reply is being written or when nothing comes, and what the engine raises.
        """
        before = conversation.compaction
        turns = conversation.turns[before.unread : room.compaction.unread]
        writing = summary_of(self._chat, conversation, turns, before.summary, room.summary)
        await self._chat.give_way()
        with self._chat.occupied():
            async with aclosing(writing) as texts:
                async for text in texts:
                    yield text

    # Inside.

    def _reply(self, context: int) -> int:
        wanted = min(REPLY_TOKENS, context // REPLY_SHARE)
        return max(1, min(wanted, self._chat.layers.token_limit or wanted))

    async def _room(self, overflow: Overflow, summary: str, more: int) -> Room | None:
        """The fewest turns without which, but with a summary and `more` tokens, there is room."""
        context, known = overflow.context, dict[int, Counted]()
        first, last = (
            overflow.conversation.compaction.unread + 1,
            len(overflow.conversation.turns) - 1,
        )

        async def fits(unread: int, free: int) -> bool:
            counted = await self._tokens(overflow, Compaction(unread, summary))
            if counted is None or counted.tokens is None:
                return False
            known[unread] = counted
            return counted.tokens + more + free <= context

        roomy = max(overflow.reply, context // ROOMY_SHARE)
        for free in (roomy, overflow.reply, 1):
            low, high = first, last
            if low > high or not await fits(high, free):
                continue
            while low < high:
                middle = (low + high) // 2
                if await fits(middle, free):
                    high = middle
                else:
                    low = middle + 1
            chosen = Compaction(low, "" if more else summary)
            return self._priced(overflow, chosen, known[low], more)
        return None

    def _priced(self, overflow: Overflow, chosen: Compaction, counted: Counted, more: int) -> Room:
        tokens = (counted.tokens or 0) + more
        first = overflow.conversation.compaction.unread
        return Room(
            compaction=chosen,
            turns=tuple(overflow.conversation.turns[first : chosen.unread]),
            tokens=tokens,
            freed=max(0, overflow.tokens - tokens),
            read=max(0, tokens - counted.cached),
            summary=more,
        )

    async def _tokens(self, overflow: Overflow, compaction: Compaction) -> Counted | None:
        *before, last = overflow.conversation.turns
        turns = [*before, dataclasses.replace(last, compaction=compaction)]
        return await self._count(_view(overflow.conversation, turns))

    async def _count(self, conversation: Conversation) -> Counted | None:
        return await self._chat.count(conversation.messages())


def speeds(conversation: Conversation) -> tuple[float, float]:
    """Tokens a second of reading and of writing, as the newest replies show them; 0: they do not."""
    figures = [turn.figures for turn in reversed(conversation.turns) if turn.figures is not None]
    read = (f.prefill_tok_s for f in figures if f.prompt_tokens - f.cached_tokens >= 64)
    written = (f.decode_tok_s for f in figures if f.reply_tokens >= 8)
    return next(read, 0.0), next(written, 0.0)


def _view(conversation: Conversation, turns: Sequence[Turn]) -> Conversation:
    """The same session with other turns, to be read and never kept."""
    return Conversation(system=conversation.system, think=conversation.think, turns=list(turns))
