"""Splits a model's text into reasoning and reply, by the tags that models put around their reasoning.

A reply may open with reasoning, once; after that, tags are text like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from engine.protocol import Text, Thinking


@dataclass(frozen=True, slots=True)
class Tags:
    """What stands before and after reasoning."""

    opening: str
    closing: str


STYLES: tuple[Tags, ...] = (
    Tags("<think>", "</think>"),
    Tags("<thinking>", "</thinking>"),
    Tags("[THINK]", "[/THINK]"),
    Tags("<seed:think>", "</seed:think>"),
    Tags("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
)
"""Qwen3, DeepSeek, GLM, MiniMax, Kimi; older prompts; Magistral; Seed-OSS; gpt-oss."""

SILENT = ("<|channel|>final<|message|>",)
"""Openings of a reply without reasoning that are no text."""


@dataclass(slots=True)
class Splitter:
    """Feed it text and tokens as they come; it gives events, holding back what may be a tag.

    `prompt` is the end of the rendered prompt: a template may itself open the reasoning.
    `thinking_tokens` counts those of the reasoning, its tags included.
    """

    prompt: str = ""
    thinking_tokens: int = 0
    _tags: Tags | None = None
    _state: Literal["start", "thinking", "reply"] = "start"
    _held: str = ""
    _tokens: int = 0
    _trim: bool = False

    def __post_init__(self) -> None:
        end = self.prompt.rstrip()
        for tags in STYLES:
            if end.endswith(tags.opening):
                self._think(tags)

    def feed(self, text: str, tokens: int = 1) -> Iterator[Thinking | Text]:
        """The events that `text`, sampled as `tokens` tokens, completes."""
        self._held += text
        self._tokens += tokens
        if self._state == "start":
            self._decide()
            tokens = self._tokens
        if self._state == "thinking":
            self.thinking_tokens += tokens
            yield from self._thinking()
        if self._state == "reply":
            yield from self._reply()

    def flush(self) -> Iterator[Thinking | Text]:
        """What was held back, at the end of the reply."""
        if self._state == "thinking":
            yield from self._event(self._held.rstrip(), thinking=True)
        else:
            yield from self._event(self._held.lstrip() if self._trim else self._held)
        self._held = ""

    def _decide(self) -> None:
        """Leave "start" once the text is long enough to tell whether it opens reasoning."""
        text = self._held.lstrip()
        openings = [*(tags.opening for tags in STYLES), *SILENT]
        if any(opening.startswith(text) and opening != text for opening in openings):
            return
        for tags in STYLES:
            if text.startswith(tags.opening):
                self._held = text[len(tags.opening) :]
                self._think(tags)
                return
        self._state = "reply"
        for opening in SILENT:
            if text.startswith(opening):
                self._held = text[len(opening) :]

    def _think(self, tags: Tags) -> None:
        self._tags = tags
        self._state = "thinking"
        self._trim = True

    def _thinking(self) -> Iterator[Thinking | Text]:
        assert self._tags is not None
        if self._trim:
            self._held = self._held.lstrip()
            self._trim = not self._held
        inside, closing, after = self._held.partition(self._tags.closing)
        if closing:
            self._held = after
            self._state = "reply"
            self._trim = True
            yield from self._event(inside.rstrip(), thinking=True)
            return
        ready = len(inside) - _overlap(inside, self._tags.closing)
        ready = len(inside[:ready].rstrip())
        self._held = inside[ready:]
        yield from self._event(inside[:ready], thinking=True)

    def _reply(self) -> Iterator[Thinking | Text]:
        if self._trim:
            self._held = self._held.lstrip()
            self._trim = not self._held
        text, self._held = self._held, ""
        yield from self._event(text)

    def _event(self, text: str, thinking: bool = False) -> Iterator[Thinking | Text]:
        if not text:
            return
        tokens, self._tokens = self._tokens, 0
        yield Thinking(text, tokens) if thinking else Text(text, tokens)


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that begins `tag`."""
    for length in range(min(len(text), len(tag) - 1), 0, -1):
        if text.endswith(tag[:length]):
            return length
    return 0
