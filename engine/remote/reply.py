"""A reply as a server sends it: chunks of JSON become events, and what it took becomes figures.

Times are measured here. Tokens are the server's where it counts them; else a chunk is a token.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from engine.protocol import Event, Figures, Notice, Reason, Text, Thinking, WasThinking
from engine.text.marks import STYLES
from engine.text.thinking import Splitter

MOST_TOKENS = 1 << 40
SHORTEST_DECODE = 0.02
"""Seconds. What came in less came together, which says nothing of the server's speed."""

_CLOSINGS = frozenset(style.closing for style in STYLES)


class ServerSaysError(Exception):
    """The stream holds an error of the server's: `data` is what it says."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        super().__init__("the server failed")
        self.data = data


class ReplyReader:
    """Feed it the data of each event."""

    def __init__(self, context: int, seed: int, max_tokens: int | None) -> None:
        self.done = False
        """The server said that no more comes."""
        self.finish = ""
        """Why it ended the reply, in its own word; empty: it has not."""
        self._context, self._seed, self._max_tokens = context, seed, max_tokens
        self._splitter = Splitter()
        self._separate = False  # reasoning has a field of its own
        self._plain = self._trim = False  # a lone closing mark came; blanks behind it are left out
        self._spoken = False
        self.empty = True
        """Nothing at all came."""
        self._tokens = self._thought = 0
        self._usage: Mapping[str, Any] = {}
        self._began = time.perf_counter()
        self._first = self._last = 0.0

    def feed(self, data: str) -> Iterator[Event]:
        """The events in one chunk. Raises `ServerSaysError`, and `ValueError` for what is no chunk."""
        if data.strip() == "[DONE]":
            self.done = True
            return
        try:
            chunk = json.loads(data)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if not isinstance(chunk, Mapping):
            raise ValueError("not an object")
        if chunk.get("error") or ("choices" not in chunk and "message" in chunk):
            raise ServerSaysError(chunk)
        self.empty = False
        if isinstance(usage := chunk.get("usage"), Mapping):
            self._usage = usage
        choices = chunk.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else {}
        if not isinstance(first, Mapping):
            return
        delta = first.get("delta") or first.get("message")
        if isinstance(delta, Mapping):
            yield from self._take(delta)
        if isinstance(reason := first.get("finish_reason"), str) and reason:
            self.finish = reason
            if reason in ("content_filter", "safety"):
                yield Notice("The server's filter ended the reply.")

    def flush(self) -> Iterator[Event]:
        """What was held back, at the end."""
        yield from self._splitter.flush()

    def figures(self) -> Figures:
        """The reply in numbers, as far as it is known."""
        prompt, reply = self._used("prompt_tokens"), self._used("completion_tokens") or self._tokens
        details = self._usage.get("completion_tokens_details")
        thought = _number(details, "reasoning_tokens")
        thought = thought or self._thought or self._splitter.thinking_tokens
        cached = _number(self._usage.get("prompt_tokens_details"), "cached_tokens")
        first = max(0.0, self._first - self._began) if self._first else 0.0
        taken = self._last - self._first
        return Figures(
            prompt_tokens=prompt,
            cached_tokens=min(cached, prompt),
            reply_tokens=reply,
            thinking_tokens=min(thought, reply),
            prefill_seconds=first,
            first_token_seconds=first,
            decode_seconds=taken if taken >= SHORTEST_DECODE else 0.0,
            context_used=prompt + reply if prompt else 0,
            context_size=self._context,
            seed=self._seed,
        )

    @property
    def reason(self) -> Reason:
        """Why the reply ended."""
        if self.finish != "length":
            return "stop"
        limit, tokens = self._max_tokens, self._used("completion_tokens")
        return "context" if limit is None or 0 < tokens < limit else "length"

    # Inside.

    def _take(self, delta: Mapping[str, Any]) -> Iterator[Event]:
        content, thinking = _parts(delta.get("content"))
        thinking += next(
            (
                text
                for name in ("reasoning_content", "reasoning")
                if isinstance(text := delta.get(name), str) and text
            ),
            "",
        )
        if thinking:
            self._separate = True
            self._count()
            self._thought += 1
            yield Thinking(thinking)
        if content:
            self._count()
            yield from self._said(content)

    def _said(self, text: str) -> Iterator[Event]:
        """Text of the reply, in which servers that do not know the marks of reasoning leave them."""
        if self._separate or self._plain:
            text = text.lstrip() if self._trim else text
            self._trim = self._trim and not text
            if text:
                yield Text(text)
        elif text.strip() in _CLOSINGS and not self._splitter.thinking_tokens:
            # A whole chunk is a token: the template had opened the reasoning.
            yield from self._splitter.flush()
            if self._spoken:
                self._thought = self._tokens
                yield WasThinking()
            self._plain = self._trim = True
        else:
            self._spoken = self._spoken or bool(text.strip())
            yield from self._splitter.feed(text, 1)

    def _count(self) -> None:
        self._last = time.perf_counter()
        self._first = self._first or self._last
        self._tokens += 1

    def _used(self, name: str) -> int:
        return _number(self._usage, name)


def _parts(content: object) -> tuple[str, str]:
    """Text and reasoning of a message's content: a text, or a list of parts."""
    if isinstance(content, str):
        return content, ""
    text = thinking = ""
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, Mapping):
            continue
        if isinstance(part.get("text"), str):
            text += part["text"]
        elif part.get("type") == "thinking":
            inner = part.get("thinking")
            thinking += inner if isinstance(inner, str) else _parts(inner)[0]
    return text, thinking


def _number(values: object, name: str) -> int:
    value = values.get(name) if isinstance(values, Mapping) else None
    return value if type(value) is int and 0 <= value < MOST_TOKENS else 0
