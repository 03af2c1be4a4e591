"""Drafts by prompt lookup: what followed the last time that the conversation ended as it ends now.

Source: Saxena 2023, "Prompt Lookup Decoding". Here the longest match decides, and the last of equally long ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

LONGEST_MATCH = 16
"""Tokens that are compared."""


class Draft(NamedTuple):
    """Tokens that may follow, and how many tokens before them were met before in this order; 0: none were."""

    tokens: list[int]
    match: int


class History:
    """The tokens of a conversation, prompt and reply, up to `size` of them."""

    def __init__(self, size: int, prompt: Sequence[int]) -> None:
        self._tokens = np.empty(size, np.int32)
        self._tokens[: len(prompt)] = prompt
        self._count = len(prompt)

    def append(self, token: int) -> None:
        """One more token of the reply."""
        self._tokens[self._count] = token
        self._count += 1

    def draft(self, most: int, is_end: Callable[[int], bool]) -> Draft:
        """Up to `most` tokens that may follow, none from one on that ends a turn."""
        end, match = self._longest()
        tokens: list[int] = []
        for place in range(end, end + most if match else end):
            # What repeats itself goes on behind what there is.
            token = int(self._tokens[place]) if place < self._count else tokens[place - self._count]
            if is_end(token):
                break
            tokens.append(token)
        return Draft(tokens, match)

    def _longest(self) -> tuple[int, int]:
        """Behind which place the last tokens were met before, and how many of them."""
        tokens, last = self._tokens, self._count - 1
        ends = np.flatnonzero(tokens[:last] == tokens[last])
        if not len(ends):
            return 0, 0
        match = 1
        while match < LONGEST_MATCH:
            longer = ends[ends >= match]
            longer = longer[tokens[longer - match] == tokens[last - match]]
            if not len(longer):
                break
            ends, match = longer, match + 1
        return int(ends[-1]) + 1, match
