"""A summary of turns, written by the model itself: what it reasons on the way is left out.

What is too long to be read at once is summed up part by part, each with the summary of those before.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from engine.errors import RequestError
from engine.protocol import Failed, Finished, Message, Text, Thinking, WasThinking
from ktchat.common.text import sanitise
from ktchat.store.conversation import Compaction, Conversation, Turn

if TYPE_CHECKING:
    from ktchat.session.chat import ChatSession

INSTRUCTION = (
    "Summarise our conversation up to here, so that it can go on without it. Keep names, numbers, facts,"
    " decisions, code that still matters, and what is open. Write at most {} words, in the language of the"
    " conversation, and nothing but the summary."
)
WORDS_A_TOKEN = 0.6
SLACK = 16
"""Tokens between what is counted and what is read."""
CUT = "\n[…]\n"


async def summary_of(
    chat: ChatSession,
    conversation: Conversation,
    turns: Sequence[Turn],
    earlier: str,
    limit: int,
) -> AsyncGenerator[str, None]:
    """What there is of a summary of `turns` and of an `earlier` one, safe to draw, of at most `limit` tokens.

    Raises `RequestError` when the model writes nothing, and what the engine raises.
    """
    text = earlier
    for part in await _parts(chat, conversation, turns, earlier, limit):
        messages = _messages(conversation, part, text, limit)
        async with aclosing(_written(chat, messages, limit)) as texts:
            text = ""
            async for text in texts:
                yield text
        if not text.strip():
            raise RequestError(
                "The model wrote no summary", "Its reply is empty", "Write one, or drop the turns"
            )


async def _written(
    chat: ChatSession, messages: Sequence[Message], limit: int
) -> AsyncGenerator[str, None]:
    """The model's words so far; too many of them are cut at a sentence's end."""
    loaded, engine = chat.loaded, chat.engine
    think = "off" if loaded is not None and "off" in loaded.think else chat.offered_think
    await chat.give_way()
    stream = engine.generate(messages, chat.layers.sampling, None, think, None, None, watch=True)
    raw, tokens, thought = "", 0, 0
    try:
        async for event in stream:
            match event:
                case Text(text, count):
                    raw, tokens = raw + text, tokens + count
                    if tokens >= limit:
                        raw = _whole_sentences(raw)
                    yield sanitise(raw).strip()
                    if tokens >= limit:
                        return
                case Thinking(_, count):
                    thought += count
                    if thought >= limit:
                        engine.answer_now()
                case WasThinking():
                    raw, tokens = "", 0
                case Failed(error):
                    raise error
                case Finished():
                    return
    finally:  # leaving it early stops it
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


async def _parts(
    chat: ChatSession, conversation: Conversation, turns: Sequence[Turn], earlier: str, limit: int
) -> list[Sequence[Turn]]:
    """The turns in as few parts as can be read, each with a summary of those before it."""

    async def fits(part: Sequence[Turn], before: int) -> bool:
        messages = _messages(conversation, part, earlier, limit)
        counted = await chat.count(messages)
        room = chat.context_size - limit - before - SLACK
        return counted is None or counted.tokens is None or counted.tokens <= room

    async def split(part: Sequence[Turn]) -> list[Sequence[Turn]]:
        if await fits(part, limit):
            return [part]
        if len(part) > 1:
            half = len(part) // 2
            return [*await split(part[:half]), *await split(part[half:])]
        share = 0.5
        while not await fits([_shortened(part[0], share)], limit) and share > 1e-3:
            share /= 2
        return [[_shortened(part[0], share)]]

    return [turns] if await fits(turns, 0) else await split(turns)


def _messages(
    conversation: Conversation, turns: Sequence[Turn], earlier: str, limit: int
) -> list[Message]:
    said = [dataclasses.replace(turn, compaction=None) for turn in turns]
    words = max(20, round(limit * WORDS_A_TOKEN) // 10 * 10)
    ask = Turn(INSTRUCTION.format(words), compaction=Compaction(0, earlier))
    return Conversation(system=conversation.system, turns=[*said, ask]).messages()


def _shortened(turn: Turn, share: float) -> Turn:
    """A turn too long to be read, without the middle of its texts."""

    def cut(text: str) -> str:
        keep = int(len(text) * share) // 2
        return text[:keep] + CUT + text[len(text) - keep :]

    return dataclasses.replace(
        turn, raw_prompt=cut(turn.message), raw_reply=cut(turn.raw_reply), attachments=()
    )


def _whole_sentences(text: str) -> str:
    """Text up to its last whole sentence, where that is most of it."""
    end = max(text.rfind(mark) for mark in (". ", ".\n", "! ", "? ", "。", "\n"))
    return text[: end + 1].rstrip() if end > len(text) // 2 else text
