"""Sequences of tokens and the pages that hold their KV, reused by exact token prefix.

A conversation that goes on, an edited message and a regenerated reply all begin with tokens whose
keys and values are already computed. Old sequences stay until their pages are needed; sequences that
begin alike share pages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.runtimes.base import Floats
from engine.runtimes.pages import PagePool
from engine.runtimes.snapshots import CachedSequence, Snapshots


class PrefixCache:
    """All sequences of one cache; the last one begun is current and always fits the pool alone."""

    def __init__(
        self,
        pages: int,
        page_size: int,
        copy_page: Callable[[int, int], None],
        snapshots: Snapshots | None = None,
    ) -> None:
        """`copy_page(source, target)` copies a page's contents in every layer. `snapshots`: the model has
        recurrent states, and a sequence goes on only from where one was kept."""
        self._pool = PagePool(pages)
        self._page_size = page_size
        self._copy_page = copy_page
        self._snapshots = snapshots
        self._sequences: list[CachedSequence] = []  # least recently used first; the last is current

    @property
    def free_pages(self) -> int:
        """Pages that no sequence holds."""
        return self._pool.free

    @property
    def current(self) -> CachedSequence | None:
        """The sequence that was begun last."""
        return self._sequences[-1] if self._sequences else None

    def begin(self, tokens: Sequence[int]) -> CachedSequence:
        """The sequence to go on from for a prompt of `tokens`: its longest cached prefix.

        At least the last token is left out, since its logits are wanted, unless they were kept.
        """
        lengths = [self._usable(sequence, tokens) for sequence in self._sequences]
        best = max(range(len(lengths)), key=lambda i: (lengths[i], i), default=None)
        length = lengths[best] if best is not None else 0
        goes_on = best is not None and best == len(lengths) - 1
        if best is None or not length:
            self._leave()
            current = CachedSequence()
        elif goes_on and length == len(self._sequences[best].tokens):
            self.keep_state(self._sequences[best])  # the end of a message, most likely
            return self._sequences[best]
        else:
            source = self._sequences[best]
            held = self._snapshots.hold(source, length) if self._snapshots is not None else None
            self._leave()
            if length == len(source.tokens):
                self._sequences.remove(source)
                current = source
            else:
                current = self._fork(source, length)
            if self._snapshots is not None and held is not None:
                self._snapshots.restore(current, held)
        self._sequences.append(current)
        return current

    def behind(self, tokens: Sequence[int]) -> list[list[int]]:
        """What the sequences that begin with these tokens hold behind them, the last used first."""
        wanted = list(tokens)
        return [
            sequence.tokens[len(wanted) :]
            for sequence in reversed(self._sequences)
            if sequence.tokens[: len(wanted)] == wanted
        ]

    def cached(self, tokens: Sequence[int]) -> int:
        """How many of the first `tokens` a prompt could go on behind."""
        return max((self._usable(sequence, tokens) for sequence in self._sequences), default=0)

    def keep_state(self, sequence: CachedSequence, logits: Floats | None = None) -> None:
        """Keep the recurrent state of the current sequence's end, where the model has one."""
        if self._snapshots is not None:
            others = [other for other in self._sequences if other is not sequence]
            self._snapshots.keep(sequence, others, logits)

    def holds(self, sequence: CachedSequence) -> bool:
        """Whether this sequence still has its pages."""
        return any(other is sequence for other in self._sequences)

    def keep_if_current(self, sequence: CachedSequence) -> None:
        """As `keep_state`, where the sequence is the current one: of others it is too late."""
        if self.current is sequence:
            self.keep_state(sequence)

    def adopt(
        self,
        sequence: CachedSequence,
        tokens: list[int],
        write: Callable[[int], None],
        logits: Floats | None,
    ) -> bool:
        """Go on with the current sequence behind `tokens`, whose pages are there: `write(slot)` brings the state.

        False: there is no slot for it, and nothing has changed.
        """
        assert self._snapshots is not None
        others = [other for other in self._sequences if other is not sequence]
        return self._snapshots.adopt(sequence, others, tokens, write, logits)

    def _leave(self) -> None:
        """Another sequence becomes current: the state of this one's end is kept."""
        if self.current is not None:
            self.keep_state(self.current)

    def _usable(self, sequence: CachedSequence, tokens: Sequence[int]) -> int:
        """How many of the first `tokens` a prompt can go on behind."""
        common = common_prefix(sequence.tokens, tokens)
        most = min(common, len(tokens) - 1)
        if self._snapshots is None:
            return most
        if sequence is self._sequences[-1] and len(sequence.tokens) == most:
            return most
        whole = sequence.snapshots.get(len(tokens))
        if common == len(tokens) and whole is not None and whole.logits is not None:
            return common
        return max((position for position in sequence.snapshots if position <= most), default=0)

    def reserve(self, sequence: CachedSequence, tokens: int) -> None:
        """Give the current `sequence` pages for `tokens` more, dropping the oldest others."""
        needed = -(-(len(sequence.tokens) + tokens) // self._page_size)
        while len(sequence.pages) < needed:
            page = self._take(keep=sequence)
            if page is None:
                raise ValueError("a sequence may not be longer than the cache")
            sequence.pages.append(page)

    def cut_back(self, sequence: CachedSequence, length: int) -> None:
        """Forget the tokens of the current `sequence` behind the first `length`, and the pages that only they needed."""
        keep = -(-length // self._page_size)
        for page in sequence.pages[keep:]:
            self._pool.release(page)
        if self._snapshots is not None:
            self._snapshots.cut(sequence, length)
        del sequence.pages[keep:], sequence.tokens[length:]

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
        fork = CachedSequence(source.tokens[:length], pages)
        if self._snapshots is not None:
            self._snapshots.share(source, fork)
        return fork

    def _truncate(self, sequence: CachedSequence, length: int) -> CachedSequence:
        self._sequences.remove(sequence)
        self.cut_back(sequence, length)
        return sequence

    def _take(self, keep: CachedSequence) -> int | None:
        """A free page, after dropping sequences other than `keep` from the oldest on."""
        while (page := self._pool.take()) is None:
            oldest = next((other for other in self._sequences if other is not keep), None)
            if oldest is None:
                return None
            self._sequences.remove(oldest)
            self.empty(oldest)
        return page

    def empty(self, sequence: CachedSequence) -> None:
        """Forget what a sequence holds."""
        for page in sequence.pages:
            self._pool.release(page)
        if self._snapshots is not None:
            self._snapshots.cut(sequence, 0)
        sequence.pages.clear()
        sequence.tokens.clear()


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    for i, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return i
    return min(len(left), len(right))
