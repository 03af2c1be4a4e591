"""Finds tokens by their text, as llama.cpp does: from left to right, the longest first.

A regular expression of thousands of alternatives takes a quarter of a second to compile (Gemma has 6242 such tokens),
and minutes where a file has tens of thousands; a look-up by length takes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

MAX_LENGTH = 256
"""Characters of a token that is looked for; no model has one of more than some forty."""


class SpecialTokens:
    """Texts to be found in other texts; each has at most `MAX_LENGTH` characters and none is empty."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = frozenset(texts)
        lengths: dict[str, set[int]] = {}
        for text in self._texts:
            lengths.setdefault(text[0], set()).add(len(text))
        self._lengths = {first: sorted(each, reverse=True) for first, each in lengths.items()}
        self._first = re.compile(f"[{re.escape(''.join(lengths))}]") if lengths else None

    def find(self, text: str, start: int = 0) -> Iterator[tuple[int, str]]:
        """(place, token) of each that is found, none overlapping another."""
        if self._first is None:
            return
        while match := self._first.search(text, start):
            start = match.start()
            token = self._at(text, start)
            if token:
                yield start, token
            start += len(token) or 1

    def _at(self, text: str, start: int) -> str:
        """The longest that begins at `start`; empty: none."""
        pieces = (text[start : start + length] for length in self._lengths[text[start]])
        return next((piece for piece in pieces if piece in self._texts), "")
