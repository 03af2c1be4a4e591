"""Tokens of a reply forwarded ahead: a pass verifies a draft, and its logits are handed out one token after another.

The caller samples from the true logits at every position, in the same order as without, and only a token that is
the drafted one finds its logits there already. So replies have the same distribution, seeds, penalties and forced
tokens keep their meaning, and what was drafted wrongly is cut back from the cache before anything else is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from engine.generation.draft_control import SIZES, DraftControl
from engine.generation.prompt_lookup import Draft, History
from engine.runtimes.base import Floats


class Verifier(Protocol):
    """A runtime that can forget what it has just read."""

    context: int

    def forward(self, tokens: Sequence[int]) -> Floats:
        """As `engine.runtimes.base.Runtime` says."""
        ...

    def forward_all(self, tokens: Sequence[int]) -> Floats:
        """Append tokens; the logits of each, (n, vocab_size)."""
        ...

    def cut_back(self, count: int) -> None:
        """Forget the last `count` tokens of the last `forward_all`, fewer than it appended."""
        ...


class Speculation:
    """Forwards one reply's tokens after another, for one loaded model."""

    def __init__(
        self,
        runtime: Verifier,
        is_end: Callable[[int], bool],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.control = DraftControl()
        self._runtime, self._is_end, self._clock = runtime, is_end, clock
        self.begin(())

    @property
    def saved_seconds(self) -> float:
        """What drafts have gained in this reply."""
        return self.control.saved_seconds

    def begin(self, prompt: Sequence[int]) -> None:
        """A reply to `prompt` begins."""
        self._history = History(self._runtime.context, prompt)
        self._draft = Draft([], 0)
        self._rows: Floats | None = None
        self._next = 0  # of the rows; the token before it is forwarded
        self.drafted = self.accepted = 0
        self.control.begin()

    def forward(self, token: int, most: int) -> Floats:
        """Logits after `token`, (vocab_size,), of a reply that goes on for `most` tokens at most, at least one."""
        drafted, match = self._draft
        if drafted:
            self.control.foretold(match, token == drafted[0])
        self._history.append(token)
        if self._rows is not None and self._next < len(self._rows) and token == drafted[0]:
            self._draft = Draft(drafted[1:], match + 1)
            self.accepted += 1
        else:
            self.end()
            self._pass(token, most)
        assert self._rows is not None
        row: Floats = self._rows[self._next]
        self._next += 1
        self.control.token(by_draft=len(self._rows) > 1)
        return row

    def end(self) -> None:
        """Forget what was forwarded ahead and not handed out. The sequence is as if it had never been there."""
        if self._rows is not None and (ahead := len(self._rows) - self._next):
            self._runtime.cut_back(ahead)
        self._rows = None

    def _pass(self, token: int, most: int) -> None:
        began = self._clock()
        draft = self._history.draft(SIZES[-1] - 1, self._is_end)
        size = self.control.size(draft.match, len(draft.tokens), most)
        self._draft = draft
        if size == 1:
            self._rows = self._runtime.forward([token])[None]
            self.control.single(self._clock() - began)
        else:
            self._rows = self._runtime.forward_all([token, *draft.tokens[: size - 1]])
            self.control.drafted(size, self._clock() - began)
            self.drafted += size - 1
        self._next = 0
