"""Whether a reply goes round in circles: the same tokens in the same order, again and again."""

from __future__ import annotations

import numpy as np

LEAST_TOKENS = 200
"""A reply may repeat itself for so long."""
LEAST_TIMES = 3
"""And so often: a paragraph that comes twice is no circle."""
LONGEST = 256
"""Tokens of the longest circle that is looked for."""


class RepetitionWatch:
    """Takes a reply token by token. Only exact repetition counts: a list whose numbers change has none."""

    def __init__(self) -> None:
        self._last = np.full(LONGEST, -1, np.int64)  # [i]: the token i + 1 places ago
        self._same = np.zeros(
            LONGEST, np.int64
        )  # for how many tokens each equals the one i + 1 before
        lengths = np.arange(1, LONGEST + 1)
        self._limit = np.maximum(LEAST_TOKENS, LEAST_TIMES * lengths)

    def add(self, token: int) -> bool:
        """Whether the reply, with this token, has repeated itself for too long."""
        self._same += 1
        self._same[self._last != token] = 0
        self._last[1:] = self._last[:-1]
        self._last[0] = token
        return bool((self._same > self._limit).any())
