"""The records of one sequence of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.disk_cache.record import Kind, Record


@dataclass(frozen=True, slots=True)
class Layout:
    """What all records of a loaded model have in common."""

    key: bytes
    page_size: int
    """Tokens of a page."""
    page_bytes: int
    state_bytes: Callable[[int], int]
    """Of what is bounded, at a position."""
    logits_bytes: int
    keeps_state: bool
    """A sequence goes on only from where a bounded state was kept."""


class Chain:
    """Names for a sequence's pages and ends; hashes are made when they are asked for."""

    def __init__(self, layout: Layout, tokens: Sequence[int]) -> None:
        self.layout, self.tokens = layout, tokens
        self._parents = [layout.key]

    def page(self, number: int) -> Record:
        """A page that the tokens fill."""
        size = self.layout.page_size
        tokens = tuple(self.tokens[number * size : (number + 1) * size])
        assert len(tokens) == size, f"page {number} is not full"
        parent = self._parent(number)
        return Record(
            "page", self.layout.key, parent, number * size, tokens, self.layout.page_bytes
        )

    def end(self, position: int) -> Record:
        """What is needed to go on at `position`, beside the whole pages before it."""
        page = self.layout.page_bytes if position % self.layout.page_size else 0
        return self._tail("end", position, page + self.layout.state_bytes(position))

    def logits(self, position: int) -> Record:
        """The logits behind the token before `position`."""
        return self._tail("logits", position, self.layout.logits_bytes)

    def _tail(self, kind: Kind, position: int, payload: int) -> Record:
        number, rest = divmod(position, self.layout.page_size)
        first = position - rest
        tokens = tuple(self.tokens[first:position])
        return Record(kind, self.layout.key, self._parent(number), first, tokens, payload)

    def _parent(self, number: int) -> bytes:
        while len(self._parents) <= number:
            self._parents.append(self.page(len(self._parents) - 1).digest)
        return self._parents[number]
