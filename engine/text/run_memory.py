"""Text that was tokenised before: a conversation's next prompt begins with the runs of this one."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

MAX_TOKENS = 1 << 20
"""Tokens that are remembered; with more of them it begins anew."""


class RunMemory:
    """Tokens of runs of text. Several threads may ask: at worst a run is tokenised twice."""

    def __init__(self, encode: Callable[[str, bool], Sequence[int]]) -> None:
        self._encode = encode
        self._known: dict[tuple[str, bool], array[int]] = {}
        self._tokens = 0

    def __call__(self, text: str, begins: bool) -> Sequence[int]:
        """The tokens that `encode` makes of a run."""
        known = self._known.get((text, begins))
        if known is None:
            known = array("i", self._encode(text, begins))
            if self._tokens + len(known) > MAX_TOKENS:
                self._known, self._tokens = {}, 0
            self._known[text, begins] = known
            self._tokens += len(known)
        return known
