"""Sequences of tokens and the pages that hold their KV, reused by exact token prefix.

A conversation that goes on, an edited message and a regenerated reply all begin with tokens whose
keys and values are already computed. Old sequences stay until their pages are needed; sequences that
begin alike share pages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from engine.runtimes.pages import PagePool


@dataclass(slots=True, eq=False)
class CachedSequence:
    """Tokens whose KV is computed; token i is in page `pages[i // page_size]`."""

    tokens: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)


class PrefixCache:
    """All sequences of one cache; the last one begun is current and always fits the pool alone."""

    def __init__(self, pages: int, page_size: int, copy_page: Callable[[int, int], None]) -> None:
        """`copy_page(source, target)` copies a page's contents in every layer."""
        self._pool = PagePool(pages)
        self._page_size = page_size
        self._copy_page = copy_page
        self._sequences: list[CachedSequence] = []  # least recently used first

    @property
    def free_pages(self) -> int:
        """Pages that no sequence holds."""
        return self._pool.free

    def begin(self, tokens: Sequence[int]) -> CachedSequence:
        """The sequence to go on from for a prompt of `tokens`: its longest cached prefix.

        At least the last token is left out, since its logits are wanted.
        """
        lengths = [common_prefix(sequence.tokens, tokens) for sequence in self._sequences]
        best = max(range(len(lengths)), key=lambda i: (lengths[i], i), default=None)
        length = 0 if best is None else min(lengths[best], len(tokens) - 1)
        if best is None or not length:
            current = CachedSequence()
        elif length == len(self._sequences[best].tokens):
            current = self._sequences.pop(best)
        else:
            current = self._fork(self._sequences[best], length)
        self._sequences.append(current)
        return current

    def reserve(self, sequence: CachedSequence, tokens: int) -> None:
        """Give the current `sequence` pages for `tokens` more, dropping the oldest others."""
        needed = -(-(len(sequence.tokens) + tokens) // self._page_size)
        while len(sequence.pages) < needed:
            page = self._take(keep=sequence)
            if page is None:
                raise ValueError("a sequence may not be longer than the cache")
            sequence.pages.append(page)

    def _fork(self, source: CachedSequence, length: int) -> CachedSequence:
        """A new sequence of the first `length` tokens, or `source` cut short if no page is left."""
        whole, rest = divmod(length, self._page_size)
        pages = source.pages[:whole]
        if rest:
            partial = self._take(keep=source)
            if partial is None:
                return self._truncate(source, length)
            self._copy_page(source.pages[whole], partial)
            pages.append(partial)
        for shared in pages[:whole]:
            self._pool.share(shared)
        return CachedSequence(source.tokens[:length], pages)

    def _truncate(self, sequence: CachedSequence, length: int) -> CachedSequence:
        self._sequences.remove(sequence)
        keep = -(-length // self._page_size)
        for page in sequence.pages[keep:]:
            self._pool.release(page)
        del sequence.pages[keep:], sequence.tokens[length:]
        return sequence

    def _take(self, keep: CachedSequence) -> int | None:
        """A free page, after dropping sequences other than `keep` from the oldest on."""
        while (page := self._pool.take()) is None:
            oldest = next((other for other in self._sequences if other is not keep), None)
            if oldest is None:
                return None
            self._sequences.remove(oldest)
            for held in oldest.pages:
                self._pool.release(held)
        return page


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    for i, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return i
    return min(len(left), len(right))
