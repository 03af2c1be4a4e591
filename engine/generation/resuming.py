"""A reply that goes on from its end: the tokens of what is there already.

Where the cache still holds the very tokens that were sampled, those are taken, and nothing is read again. What
it does not hold (it was evicted, the program ended, the text was changed by hand) is written as the
model's format has it: reasoning between its marks, then the reply.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from engine.protocol import Begun, Text, Thinking, WasThinking
from engine.runtimes.base import Vocabulary
from engine.text.thinking import Splitter
from engine.text.tokenizer import Part


class Resumed(NamedTuple):
    """Where a reply goes on."""

    tokens: list[int]
    """What stands behind the prompt."""
    splitter: Splitter
    """As it is behind them."""


def resume(
    tokenizer: Vocabulary, tail: str, begun: Begun, cached: Sequence[Sequence[int]]
) -> Resumed:
    """The tokens of `begun` behind a prompt that ends with `tail`; `cached` are what was behind it before."""
    kept = max((_kept(tokenizer, tail, begun, tokens) for tokens in cached), key=len, default=[])
    replay = _Replay(tokenizer, tail)
    replay.feed(kept)
    thinking, reply = _rest(tokenizer, tail, begun, kept)
    parts: list[Part] = []
    if thinking:
        if not kept:
            parts.append(Part(replay.splitter.opening, True))
        parts.append(Part(thinking, False))
    rest = tokenizer.encode_more(parts)
    replay.feed(rest)
    if reply:
        begins = "" if replay.reply else replay.splitter.answer
        more = tokenizer.encode_more([Part(begins, True), Part(reply, False)])
        replay.feed(more)
        rest += more
    return Resumed([*kept, *rest], replay.splitter)


class _Replay:
    """Tokens read as the decode loop reads them."""

    def __init__(self, tokenizer: Vocabulary, tail: str) -> None:
        self.splitter = Splitter(tail, tokenizer.marks)
        self.thinking = self.reply = ""
        self._tokenizer, self._pieces = tokenizer, tokenizer.decoder()

    def feed(self, tokens: Sequence[int]) -> None:
        """Take more tokens."""
        for token in tokens:
            if mark := self._tokenizer.mark(token):
                self._take(self._pieces.flush(), control=False)
                self._take(mark, control=True)
            else:
                self._take(self._pieces.feed(token), control=False)

    def flush(self) -> tuple[str, str]:
        """Reasoning and reply, with what was held back; nothing may be fed afterwards."""
        self._take(self._pieces.flush(), control=False)
        self._note(list(self.splitter.flush()))
        return self.thinking, self.reply

    def _take(self, text: str, control: bool) -> None:
        self._note(list(self.splitter.feed(text, control=control)))

    def _note(self, events: Sequence[Thinking | Text | WasThinking]) -> None:
        for event in events:
            if isinstance(event, WasThinking):
                said = "\n\n".join(filter(None, (self.thinking, self.reply.strip())))
                self.thinking, self.reply = said, ""
            elif isinstance(event, Thinking):
                self.thinking += event.text
            else:
                self.reply += event.text


def _kept(tokenizer: Vocabulary, tail: str, begun: Begun, tokens: Sequence[int]) -> Sequence[int]:
    """As many of the `tokens` as say nothing but what is there."""
    replay, certain = _Replay(tokenizer, tail), 0
    for number, token in enumerate(tokens, 1):
        if tokenizer.is_end(token):
            break
        replay.feed([token])
        if not _begins(begun, replay.thinking, replay.reply):
            break
        certain = number
    while certain:
        whole = _Replay(tokenizer, tail)
        whole.feed(tokens[:certain])
        if _begins(begun, *whole.flush()):
            break
        certain -= 1
    return tokens[:certain]


def _begins(begun: Begun, thinking: str, reply: str) -> bool:
    """Whether this is a beginning of what is there: of the reply, once all of the reasoning is."""
    if reply:
        return thinking == begun.thinking and begun.reply.startswith(reply)
    return begun.thinking.startswith(thinking)


def _rest(tokenizer: Vocabulary, tail: str, begun: Begun, kept: Sequence[int]) -> tuple[str, str]:
    """What of reasoning and reply is not in the `kept` tokens."""
    replay = _Replay(tokenizer, tail)
    replay.feed(kept)
    thinking, reply = replay.flush()
    return begun.thinking[len(thinking) :], begun.reply[len(reply) :]
