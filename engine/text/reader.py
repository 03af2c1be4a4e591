"""What the readers of a model's text have in common: text that waits, and the events it becomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.protocol import Text, Thinking, WasThinking
from engine.text.marks import Alphabet, overlap

Said = Thinking | Text | WasThinking


class Reader:
    """Holds back what may be a mark. `held` is coded text: `Alphabet` tells tokens from characters."""

    def __init__(self, alphabet: Alphabet) -> None:
        self.alphabet = alphabet
        self.thinking_tokens = 0
        self.held = ""
        self.trim = False
        """Whether blanks in front of the next text are left out."""
        self.forced = False
        """Whether the reasoning is ended by us, not by the model."""
        self._tokens = 0  # fed, and in no event yet

    @property
    def closing(self) -> str:
        """What ends the reasoning that goes on; empty: there is none."""
        raise NotImplementedError

    @property
    def opening(self) -> str:
        """What begins the reasoning here, at the beginning of all; empty: it has begun, or needs no mark."""
        raise NotImplementedError

    @property
    def answer(self) -> str:
        """What begins the reply here, where nothing of it was said; empty: nothing is needed."""
        raise NotImplementedError

    def feed(self, text: str, tokens: int) -> Iterator[Said]:
        """The events that more coded text completes."""
        self.held += text
        self._tokens += tokens
        yield from self.read(tokens)

    def read(self, tokens: int) -> Iterator[Said]:
        """The events in what is held, of which `tokens` are new."""
        raise NotImplementedError

    def flush(self) -> Iterator[Said]:
        """What was held back, at the end of the reply."""
        raise NotImplementedError

    def skip_blanks(self) -> None:
        """Leave out blanks at the beginning, where that is to be done."""
        if self.trim:
            self.held = self.held.lstrip()
            self.trim = not self.held

    def event(self, text: str, thinking: bool = False) -> Iterator[Said]:
        """Coded text as an event, with the tokens since the last one."""
        text = self.alphabet.plain(text)
        if not text:
            return
        tokens, self._tokens = self._tokens, 0
        yield Thinking(text, tokens) if thinking else Text(text, tokens)

    def thinking(self, closings: Sequence[str]) -> Iterator[Said]:
        """Reasoning as far as it is certain: up to a closing mark, which stays in front of `held`, or
        to what may begin one; blanks wait for what follows them."""
        self.skip_blanks()
        found = [at for closing in closings if (at := self.held.find(closing)) >= 0]
        if found:
            text, self.held = self.held[: min(found)], self.held[min(found) :]
            yield from self.event(text.rstrip(), thinking=True)
            return
        begun = max((overlap(self.held, closing) for closing in closings), default=0)
        ready = len(self.held[: len(self.held) - begun].rstrip())
        text, self.held = self.held[:ready], self.held[ready:]
        yield from self.event(text, thinking=True)
