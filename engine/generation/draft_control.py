"""How many tokens to draft, from what passes cost and how often drafts prove right. Arithmetic, no clock.

A pass of n tokens costs c(n) passes of one token and gives, when drafts behind a match of m tokens are right with
probability p(m), 1 + p(m) + p(m) p(m+1) + ... tokens. What p is, is learned for nothing: each token shows whether
the draft that might have been made was right. c(n) is learned from passes alone: with all weights read for each
token anew it would be 1, with a mixture of experts it is up to n. It is tried where a draft is likely right.

An account says what a reply has gained so far, in seconds, the looking itself included; a pass is made only where even a
wrong draft leaves it above a hundredth of the reply's time below 0, and below half of that nothing is looked for. So
no text, however it misleads, and no model, however small, can lose more.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import deque

SIZES = (2, 4)
"""Tokens of a pass with drafts. Up to 4 the CPU's products add in the order of one token's, see `speculation`."""
LOSS = 0.01
"""Share of a reply's time that drafts may cost at most."""
START = 0.25
"""Passes of one token that they may cost at the beginning, where that share is nothing yet."""
MARGIN = 1.05
"""So many times faster a pass must promise to be."""
UNLIKELY = 0.15
"""Below this likelihood nothing is worked out."""
KEPT = 9
"""Last measurements that count, by their median."""
KNOWN = 3
"""Measurements of one token's pass before any draft."""
STALE = 256
"""Tokens after which what a pass costs more is hoped to have fallen to `HOPE` of it, and so on: so it is measured
again, the later the more it costs."""
HOPE = 0.7
SINGLE_EVERY = 64
"""Passes with drafts after which one goes without: the time of one token is to stay known."""

_CHEAP, _DEAR = 0.15, 0.6
"""What a token more of a pass may cost where nothing is known: as is hoped, as is feared."""
_STEPS = (2, 3, 4, 6, 9, 15)
"""Lengths of matches up to which drafts have a likelihood of their own."""
_LIKELY = (0.3, 0.45, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Theirs before anything is known, and that of longer ones."""
_WEIGHT = 2.0
_FORGET = 0.97
"""What of earlier drafts counts after one more."""
_NEW_REPLY = 0.25
"""What of them counts in the next reply: texts differ."""


class DraftControl:
    """One loaded model's. Seconds of wall time come from the caller."""

    def __init__(self) -> None:
        self._single: deque[float] = deque(maxlen=KEPT)
        self.one = 0.0
        """Seconds of one token's pass."""
        self._costs: dict[int, deque[float]] = {}
        self._measured_at: dict[int, int] = {}
        self._right = [0.0] * len(_LIKELY)
        self._seen = [0.0] * len(_LIKELY)
        self._tokens = self._reply_tokens = self._drafted_passes = 0
        self.saved_seconds = 0.0
        """What drafts have gained in this reply; below 0: lost."""

    def begin(self) -> None:
        """A new reply."""
        self.saved_seconds, self._reply_tokens, self._drafted_passes = 0.0, 0, 0
        self._right = [_NEW_REPLY * value for value in self._right]
        self._seen = [_NEW_REPLY * value for value in self._seen]

    def size(self, match: int, most: int) -> int:
        """Tokens of the next pass, at most `most`, with a draft behind a match of so many tokens; 1: no draft."""
        if self._likelihood(match) < UNLIKELY:
            return 1
        if len(self._single) < KNOWN or self._drafted_passes >= SINGLE_EVERY:
            return 1
        best, size = MARGIN, 1
        for count in SIZES:
            if count > most:
                break
            promised = self._expected(match, count) / self._hoped(count)
            if promised > best and self._affordable(count):
                best, size = promised, count
        return size

    @property
    def awake(self) -> bool:
        """Whether the account bears looking for a draft: the half of what may be lost is left for passes."""
        return len(self._single) < KNOWN or self.saved_seconds >= -self._allowed / 2

    def looked(self, seconds: float) -> None:
        """Beside its pass a token took so long."""
        self.saved_seconds -= seconds

    def single(self, seconds: float) -> None:
        """A pass of one token took so long."""
        self._single.append(seconds)
        self.one = sorted(self._single)[len(self._single) // 2]
        self._drafted_passes = 0

    def drafted(self, count: int, seconds: float) -> None:
        """A pass of `count` tokens took so long."""
        self.saved_seconds -= seconds
        self._drafted_passes += 1
        self._measured_at[count] = self._tokens
        self._costs.setdefault(count, deque(maxlen=KEPT)).append(seconds / self.one)

    def token(self, by_draft: bool) -> None:
        """A token of the reply has its logits; `by_draft`: from a pass with drafts."""
        self._tokens += 1
        self._reply_tokens += 1
        if by_draft:
            self.saved_seconds += self.one

    def foretold(self, match: int, right: bool) -> None:
        """Whether what was, or would have been, drafted behind a match proved right."""
        row = _row(match)
        self._right[row] = _FORGET * self._right[row] + right
        self._seen[row] = _FORGET * self._seen[row] + 1.0

    def cost(self, count: int) -> float | None:
        """Passes of one token that one of `count` takes; None: not known."""
        costs = self._costs.get(count)
        return statistics.median(costs) if costs else None

    def _likelihood(self, match: int) -> float:
        row = _row(match)
        return (self._right[row] + _WEIGHT * _LIKELY[row]) / (self._seen[row] + _WEIGHT)

    def _expected(self, match: int, count: int) -> float:
        """Tokens that a pass gives in the mean."""
        tokens = together = 1.0
        for place in range(count - 1):
            together *= self._likelihood(match + place)
            tokens += together
        return tokens

    def _hoped(self, count: int) -> float:
        known = self.cost(count)
        if known is None:
            return self._by_others(count, _CHEAP)
        age = (self._tokens - self._measured_at[count]) // STALE
        return 1.0 + HOPE**age * (known - 1.0)

    def _feared(self, count: int) -> float:
        if self.cost(count) is None:
            return max(1 + _DEAR, self._by_others(count, _DEAR))
        return self._hoped(count)

    def _by_others(self, count: int, otherwise: float) -> float:
        """A cost that is not known, from the nearest that is."""
        known = [other for other in SIZES if self.cost(other) is not None]
        if not known:
            return 1.0 + otherwise * (count - 1)
        nearest = min(known, key=lambda other: abs(other - count))
        more = self.cost(nearest)
        assert more is not None
        return 1.0 + (more - 1.0) * (count - 1) / (nearest - 1)

    def _affordable(self, count: int) -> bool:
        """Whether the account bears a pass that gives nothing but its first token."""
        return self.saved_seconds - (self._feared(count) - 1.0) * self.one >= -self._allowed

    @property
    def _allowed(self) -> float:
        """Seconds that may be lost by now."""
        return (START + LOSS * self._reply_tokens) * self.one


def _row(match: int) -> int:
    return bisect_left(_STEPS, match)
