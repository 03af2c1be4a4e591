"""Tokens of a reply forwarded ahead: a pass verifies a draft, and its logits are handed out one token after another.

The caller samples from the true logits at every position, in the same order as without, and only a token that is
the drafted one finds its logits there already. So replies have the same distribution, seeds, penalties and forced
tokens keep their meaning, and what was drafted wrongly is cut back from the cache before anything else is read.

On the CPU logits are even the same to the bit, and with them a seed's reply: products of up to 4 tokens add what one
token's adds, in its order, and attention divides the positions alike within blocks of them, which no pass leaves
(`Verifier.alike`). Only where 4 tokens of more than 8 heads for a KV head, as MLA's are, fill more than one piece of
its work, sums differ in the last bits behind some thousand positions, as a prompt's do by its chunks; no worse.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from engine.generation.draft_control import SIZES, DraftControl
from engine.generation.prompt_lookup import History
from engine.runtimes.base import Floats


class Verifier(Protocol):
    """A runtime that can forget what it has just read."""

    def forward(self, tokens: Sequence[int]) -> Floats:
        """As `engine.runtimes.base.Runtime` says."""
        ...

    def forward_all(self, tokens: Sequence[int]) -> Floats:
        """Append tokens; the logits of each, (n, vocab_size)."""
        ...

    def alike(self, position: int) -> int:
        """Tokens of a pass from there, at most, whose attention adds in the order of tokens one by one."""
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
        self._history = History()
        self.begin(())

    @property
    def saved_seconds(self) -> float:
        """What drafts have gained in this reply."""
        return self.control.saved_seconds

    def begin(self, prompt: Sequence[int]) -> None:
        """A reply to `prompt` begins."""
        self._history.begin(prompt)
        self._rows: Floats | None = None  # of the last pass, while some are not handed out
        self._draft: list[int] = []  # the tokens of the rows but the first
        self._next = 0  # of the rows
        self._passed = 0.0  # seconds of the pass that `forward` made
        self.drafted = self.accepted = 0
        self.control.begin()

    def forward(self, token: int, most: int) -> Floats:
        """Logits after `token`, (vocab_size,), of a reply that goes on for `most` tokens at most, at least one."""
        history, control = self._history, self.control
        if self._rows is None and not control.awake:
            history.later(token)
            control.token(by_draft=False)
            return self._runtime.forward([token])
        began, self._passed = self._clock(), 0.0
        history.catch_up()
        if history.match:
            control.foretold(history.match, token == history.expected)
        history.append(token)
        rows, place = self._rows, self._next
        if rows is not None and token == self._draft[place - 1]:
            self.accepted += 1
        else:
            self.end()
            rows, place = self._pass(token, most), 0
        self._next = place + 1
        control.token(by_draft=len(rows) > 1)
        row: Floats = rows[place]
        if self._next == len(rows):
            self._rows = None
        control.looked(self._clock() - began - self._passed)
        return row

    def end(self) -> None:
        """Forget what was forwarded ahead and not handed out. The sequence is as if it had never been there."""
        if self._rows is not None:
            self._runtime.cut_back(len(self._rows) - self._next)
        self._rows = None

    def _pass(self, token: int, most: int) -> Floats:
        """The rows of the next pass; `token` alone, or with a draft behind it."""
        draft = self._next_draft(most)
        began = self._clock()
        if draft:
            rows = self._runtime.forward_all([token, *draft])
            self._passed = self._clock() - began
            self.control.drafted(len(rows), self._passed)
            self.drafted += len(draft)
        else:
            rows = self._runtime.forward([token])[None]
            self._passed = self._clock() - began
            self.control.single(self._passed)
        self._rows, self._draft = rows, draft
        return rows

    def _next_draft(self, most: int) -> list[int]:
        """As long as it pays; none from a token on that ends the turn."""
        match = self._history.match
        if not match:
            return []
        most = min(most, self._runtime.alike(len(self._history.tokens) - 1))
        size = self.control.size(match, most)
        if size == 1:
            return []
        draft = self._history.draft(size - 1)
        end = next((i for i, token in enumerate(draft) if self._is_end(token)), None)
        return draft if end is None else draft[: max(n for n in (1, *SIZES) if n <= end + 1) - 1]
