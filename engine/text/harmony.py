"""Reads what gpt-oss says: messages, each with a header that names its channel.

`<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…`: the last message of
channel `final` is the reply, everything else is reasoning. Source: OpenAI, "Harmony response format".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from engine.protocol import Thinking, WasThinking
from engine.text.marks import (
    CALL,
    CHANNEL,
    CONSTRAIN,
    END,
    MESSAGE,
    RETURN,
    START,
    Alphabet,
    overlap,
)
from engine.text.reader import Reader, Said

MAX_HEADER = 200
"""Characters after which what should be a header is none."""
_ANSWER = f"{END}{START}assistant{CHANNEL}final{MESSAGE}"
_TO = re.compile(r" ?(t(o(=.*)?)?)?", re.DOTALL)
"""Whom a message is for, as far as it came; a header may begin with it."""


def open_header(prompt: str) -> str | None:
    """The header with which a prompt ends and the model goes on; None: it has another format."""
    header = prompt.rpartition(START)[2]
    is_header = START in prompt and header.startswith("assistant") and END not in header
    return header.removeprefix("assistant") if is_header else None


class HarmonyReader(Reader):
    """The messages of one reply. One without a channel counts as `final`."""

    def __init__(self, alphabet: Alphabet, header: str) -> None:
        """`header` is what the template wrote of the first message's."""
        super().__init__(alphabet)
        coded = alphabet.coded
        self._channel, self._message = coded(CHANNEL), coded(MESSAGE)
        self._starts = [coded(mark) for mark in (START, CHANNEL, CONSTRAIN, MESSAGE)]
        self._stops = [coded(mark) for mark in (END, RETURN, CALL)]
        self._ends = [*self._stops, coded(START), self._channel]
        self._state: Literal["header", "thinking", "reply"] = "header"
        self._headed = 0  # tokens of a header
        self._replied = 0  # tokens of the reply
        self._has_reply = self._has_thoughts = self._next_thought = False
        self.held = coded(header)
        list(self._read_header())  # it says nothing yet

    @property
    def closing(self) -> str:
        return _ANSWER if self._state == "thinking" else ""

    @property
    def opening(self) -> str:
        return self._header("analysis")

    @property
    def answer(self) -> str:
        return self.closing or self._header("final")

    def _header(self, channel: str) -> str:
        """What completes a header that only begins a message; empty: the message has begun."""
        if self._state != "header":
            return ""
        begun = self._channel in self.held
        return MESSAGE if begun else f"{CHANNEL}{channel}{MESSAGE}"

    def read(self, tokens: int) -> Iterator[Said]:
        self._headed += tokens
        while True:
            if self._state == "header":
                yield from self._read_header()
            self._count()
            if self._state == "header":
                return
            yield from self._think() if self._state == "thinking" else self._reply()
            if not self._ended():
                return

    def flush(self) -> Iterator[Said]:
        held, self.held = self.held, ""
        if self._state == "thinking":
            yield from self._thoughts(self.event(held.rstrip(), thinking=True))
        elif self._state == "reply":
            yield from self.event(held)
        elif self._has_thoughts:
            self.thinking_tokens += self._headed

    def _count(self) -> None:
        """Whose the tokens are that came since: a header belongs to the reasoning, if there was any."""
        if self._state == "thinking":
            self.thinking_tokens += self._headed
        elif self._state == "reply":
            self._replied += self._headed
        if self._state != "header":
            self._headed = 0

    def _read_header(self) -> Iterator[Said]:
        """Begin a message, once its header is whole."""
        header, message, text = self.held.partition(self._message)
        if not self._could_be_header(header + message):
            self._state = "reply"
            self._drop_mark(self._starts)
            return
        if not message:
            return
        self.held, self.trim = text, True
        channel = re.match(r"\s*(\w*)", header.partition(self._channel)[2])
        if channel is not None and channel[1] not in ("", "final"):
            self._state, self._next_thought = "thinking", self._has_thoughts
        else:
            yield from self._begin_reply()

    def _begin_reply(self) -> Iterator[Said]:
        self._state = "reply"
        if self._has_reply:
            self.thinking_tokens += self._replied
            self._replied, self._tokens = 0, 0
            self._has_reply, self._has_thoughts = False, True
            yield WasThinking()
        if self._has_thoughts:
            self.thinking_tokens += self._headed
            self._headed = 0

    def _could_be_header(self, text: str) -> bool:
        places = [at for mark in self._starts if (at := text.find(mark)) >= 0]
        begun = max(overlap(text, mark) for mark in self._starts)
        before = text[: min(places, default=len(text) - begun)]
        return len(text) <= MAX_HEADER and _TO.fullmatch(before) is not None

    def _think(self) -> Iterator[Said]:
        return self._thoughts(self.thinking(self._ends))

    def _thoughts(self, events: Iterator[Said]) -> Iterator[Said]:
        """Reasoning, with a blank line between messages."""
        for event in events:
            if self._next_thought and isinstance(event, Thinking):
                event = replace(event, text=f"\n\n{event.text}")
            self._has_thoughts, self._next_thought = True, False
            yield event

    def _reply(self) -> Iterator[Said]:
        self.skip_blanks()
        found = [at for end in self._ends if (at := self.held.find(end)) >= 0]
        ready = min(found, default=len(self.held) - max(overlap(self.held, e) for e in self._ends))
        text, self.held = self.held[:ready], self.held[ready:]
        self._has_reply = self._has_reply or bool(self.alphabet.plain(text).strip())
        yield from self.event(text)

    def _ended(self) -> bool:
        """Whether the message has ended; its end is taken away, the beginning of another is not."""
        if not any(map(self.held.startswith, self._ends)):
            return False
        self._state = "header"
        self._drop_mark(self._stops)
        return True

    def _drop_mark(self, marks: list[str]) -> None:
        for mark in marks:
            if self.held.startswith(mark):
                self.held = self.held[len(mark) :]
                return
