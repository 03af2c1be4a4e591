"""Splits what a model says into reasoning and reply, by the marks that models put around them.

`Splitter` chooses the reader: here the one for marks around one stretch of reasoning, in `harmony` the
one for gpt-oss. Marks are in `marks`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from engine.protocol import WasThinking
from engine.text.harmony import HarmonyReader, open_header
from engine.text.marks import STYLES, Alphabet, Marks, overlap
from engine.text.reader import Reader, Said

_QUOTES = "`'\"“‘«"
"""Directly behind one of these, a mark in a reply is mentioned, not used."""


class TagReader(Reader):
    """Marks around reasoning at the beginning; after it, marks are text like any other.

    A closing mark that no opening one came before makes all that was said reasoning, if it is a token;
    any other that is not mentioned is dropped.
    """

    def __init__(self, alphabet: Alphabet, prompt: str) -> None:
        """`prompt` is the end of the rendered prompt: a template may open the reasoning, or close it."""
        super().__init__(alphabet)
        self._style: Marks | None = None
        self._state: Literal["start", "thinking", "reply"] = "start"
        self._lined = False  # marks stand on lines of their own
        self._lone = True  # a closing mark could be one without an opening
        self._said = 0  # tokens of the reply so far
        self._last, self._spoken = "", False
        self._opens = False  # the reply has mentioned an opening mark
        coded = alphabet.coded
        self._openings = {coded(style.opening): style for style in STYLES}
        self._closings = {code for s in STYLES if len(code := coded(s.closing)) == 1}
        self._silent = [
            code
            for style in STYLES
            for mark in (style.answer, *style.silent)
            if mark and (code := coded(mark)) != mark
        ]
        self._begin(prompt)
        self._notable = _any(
            [*self._silent, *(c for c in self._openings if len(c) == 1), *self._closings]
        )

    def _begin(self, prompt: str) -> None:
        end = prompt.rstrip()
        for style in STYLES:
            if end.endswith(style.opening):
                self._think(style)
                self._lined = "\n" in prompt[len(end) :]
            elif end.endswith(style.closing) or (style.answer and end.endswith(style.answer)):
                self._lone = False

    @property
    def closing(self) -> str:
        style = self._style
        if style is None or self._state != "thinking":
            return ""
        before, after = ("\n", style.gap) if self._lined else ("", "")
        return before + style.closing + after + style.answer

    @property
    def opening(self) -> str:
        if self._state != "start":
            return ""
        known = (s for s in STYLES if self.alphabet.coded(s.opening) != s.opening)
        style = next(known, STYLES[0])
        return style.opening + ("\n" if style.gap else "")

    @property
    def answer(self) -> str:
        return self.closing

    def read(self, tokens: int) -> Iterator[Said]:
        if self._state == "start":
            self._decide()
            tokens = self._tokens
        if self._state == "thinking":
            self.thinking_tokens += tokens
            tokens = 0
            yield from self._think_on()
        if self._state == "reply":
            self._said += tokens
            yield from self._reply()

    def flush(self) -> Iterator[Said]:
        held, self.held = self.held, ""
        if self._state == "thinking":
            yield from self.event(held.rstrip(), thinking=True)
        else:
            yield from self.event(held.lstrip() if self.trim else held)

    def _decide(self) -> None:
        """Leave "start" once the text is long enough to tell whether it opens reasoning."""
        text = self.held.lstrip()
        marks = [*self._openings, *self._closings, *self._silent]
        if any(mark.startswith(text) and mark != text for mark in marks):
            return
        for opening, style in self._openings.items():
            if text.startswith(opening):
                self.held = text[len(opening) :]
                self._think(style)
                return
        self._state = "reply"
        for mark in (*self._closings, *self._silent):
            if text.startswith(mark):  # the end of nothing, or the beginning of the reply
                self.held, self.trim = text[len(mark) :], True

    def _think(self, style: Marks) -> None:
        self._style = style
        self._state = "thinking"
        self.trim = True
        self._lone = False
        if not self._silent and style.answer:
            self._silent = [style.answer, *style.silent]
            self._notable = _any(self._silent)

    def _think_on(self) -> Iterator[Said]:
        assert self._style is not None
        if self.trim and self.held:
            self._lined = self._lined or self.held.startswith("\n")
        closing = self.alphabet.coded(self._style.closing)
        yield from self.thinking([closing])
        if self.held.startswith(closing):
            self.held = self.held[len(closing) :]
            self._state, self.trim, self._lone = "reply", True, self.forced

    def _reply(self) -> Iterator[Said]:
        self.skip_blanks()
        while self._notable and (match := self._notable.search(self.held)):
            before, mark, self.held = self.held[: match.start()], match[0], self.held[match.end() :]
            yield from self._say(before)
            if mark in self._silent:
                self.trim = self.trim or not self._last
            elif self._is_mentioned(mark):
                yield from self._say(mark)
            elif self._lone and self._spoken:
                yield from self._say_that_was_thinking()
            self.skip_blanks()
        begun = max((overlap(self.held, mark) for mark in self._silent), default=0)
        ready = len(self.held) - begun
        text, self.held = self.held[:ready], self.held[ready:]
        yield from self._say(text)

    def _is_mentioned(self, mark: str) -> bool:
        """Whether a mark in the reply is something that the reply talks about."""
        self._opens = self._opens or mark not in self._closings
        return self._opens or (self._last != "" and self._last in _QUOTES)

    def _say(self, text: str) -> Iterator[Said]:
        shown = self.alphabet.plain(text)
        self._last = shown[-1:] or self._last
        self._spoken = self._spoken or bool(shown.strip())
        yield from self.event(text)

    def _say_that_was_thinking(self) -> Iterator[Said]:
        self._lone, self._spoken, self.trim = False, False, True
        self.thinking_tokens += self._said
        self._said = 0
        self._tokens = 0
        yield WasThinking()


class Splitter:
    """Feed it text and tokens as they come; it gives events, holding back what may be a mark.

    `prompt` is the end of the rendered prompt, `tokens` are the marks that the vocabulary has.
    """

    def __init__(self, prompt: str = "", tokens: Collection[str] = ()) -> None:
        self._alphabet = Alphabet(tokens)
        header = open_header(prompt)
        self._reader: Reader = (
            TagReader(self._alphabet, prompt)
            if header is None
            else HarmonyReader(self._alphabet, header)
        )

    @property
    def thinking_tokens(self) -> int:
        """Tokens of the reasoning so far, its marks included."""
        return self._reader.thinking_tokens

    @property
    def closing(self) -> str:
        """Template text that ends the reasoning and begins the reply; empty: nothing is to be ended."""
        return self._reader.closing

    @property
    def opening(self) -> str:
        """Template text that begins the reasoning, before anything was said; empty: it has begun."""
        return self._reader.opening

    @property
    def answer(self) -> str:
        """Template text that begins the reply, before anything of it was said; empty: none is needed."""
        return self._reader.answer

    def force(self) -> str:
        """What is to be fed to end the thinking now, see `closing`. The model may still end it by itself
        later: what it said until then was thinking too."""
        self._reader.forced = True
        return self.closing

    def feed(self, text: str, tokens: int = 1, control: bool = False) -> Iterator[Said]:
        """The events that `text`, sampled as `tokens` tokens, completes. `control`: it is one token."""
        return self._reader.feed(self._alphabet.token(text) if control else text, tokens)

    def flush(self) -> Iterator[Said]:
        """What was held back, at the end of the reply."""
        return self._reader.flush()


def _any(marks: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(re.escape, marks))) if marks else None
