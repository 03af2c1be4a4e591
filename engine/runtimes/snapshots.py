"""Recurrent states kept at positions of sequences, in a bounded number of slots.

A recurrent state cannot be cut back: what was not kept must be read anew. States are kept where a
conversation is likely to go on from, at the ends of messages, and every so many tokens of a prompt. When
all slots are taken, the state goes whose loss would cost least.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from engine.runtimes.base import Floats
from engine.runtimes.pages import PagePool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A kept state. `logits` are those behind its last token, where they may be wanted again."""

    slot: int
    logits: Floats | None = None


@dataclass(slots=True, eq=False)
class CachedSequence:
    """Tokens that were read; token i has its keys and values in page `pages[i // page_size]`."""

    tokens: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    snapshots: dict[int, Snapshot] = field(default_factory=dict)
    """By position: the state after so many tokens."""


class Snapshots:
    """The slots of one model, of which slot 0 is the current state."""

    def __init__(
        self, slots: int, save: Callable[[int], None], load: Callable[[int, int], None]
    ) -> None:
        """`save(slot)` keeps the current state, `load(slot, position)` brings one back."""
        self._pool = PagePool(slots)
        self._pool.take()  # slot 0
        self._save, self._load = save, load

    def keep(
        self,
        sequence: CachedSequence,
        others: Iterable[CachedSequence],
        logits: Floats | None = None,
    ) -> None:
        """Keep the current state as that of the end of `sequence`; `others`: least recently used first."""
        position = len(sequence.tokens)
        if position == 0 or position in sequence.snapshots:
            return
        slot = self._take(sequence, others)
        if slot is not None:
            self._save(slot)
            sequence.snapshots[position] = Snapshot(slot, logits)

    def adopt(
        self,
        sequence: CachedSequence,
        others: Iterable[CachedSequence],
        tokens: list[int],
        write: Callable[[int], None],
        logits: Floats | None,
    ) -> bool:
        """`write(slot)` keeps the state behind `tokens`, which become those of `sequence`; it is the current one.

        False: others share every slot.
        """
        slot = self._take(sequence, others)
        if slot is None:
            return False
        write(slot)
        sequence.tokens[:] = tokens
        sequence.snapshots[len(tokens)] = Snapshot(slot, logits)
        self._load(slot, len(tokens))
        return True

    def _take(self, sequence: CachedSequence, others: Iterable[CachedSequence]) -> int | None:
        """A free slot, after dropping the state that is missed least; None: others share every one."""
        while (slot := self._pool.take()) is None:
            victim = next((other for other in others if other.snapshots), sequence)
            if not victim.snapshots:
                return None
            self.drop(victim, _cheapest(victim))
        return slot

    def hold(self, sequence: CachedSequence, position: int) -> Snapshot:
        """A kept state that `restore` is to bring back: it is not forgotten before."""
        snapshot = sequence.snapshots[position]
        self._pool.share(snapshot.slot)
        return snapshot

    def restore(self, sequence: CachedSequence, snapshot: Snapshot) -> None:
        """What was held becomes the current state, at the end of `sequence`."""
        position = len(sequence.tokens)
        self._load(snapshot.slot, position)
        if position in sequence.snapshots:
            self._pool.release(snapshot.slot)
        else:
            sequence.snapshots[position] = snapshot

    def share(self, source: CachedSequence, target: CachedSequence) -> None:
        """A sequence that begins like `source` has its states too, as far as it goes."""
        for position, snapshot in source.snapshots.items():
            if position <= len(target.tokens):
                self._pool.share(snapshot.slot)
                target.snapshots[position] = snapshot

    def cut(self, sequence: CachedSequence, length: int) -> None:
        """Forget the states behind the first `length` tokens."""
        for position in [p for p in sequence.snapshots if p > length]:
            self.drop(sequence, position)

    def drop(self, sequence: CachedSequence, position: int) -> None:
        """Forget one state."""
        self._pool.release(sequence.snapshots.pop(position).slot)


def _cheapest(sequence: CachedSequence) -> int:
    """The position whose state is missed least.

    Going back to a token behind it would then read on from the state before: so many more tokens, for as many
    places as there are up to the next state, and places near the end are the likely ones.
    """
    positions = sorted(sequence.snapshots)
    end = len(sequence.tokens)

    def loss(i: int) -> float:
        before = positions[i - 1] if i else 0
        behind = positions[i + 1] if i + 1 < len(positions) else end + 1
        return (positions[i] - before) * (behind - positions[i]) / (1 + end - positions[i]) ** 2

    return positions[min(range(len(positions)), key=loss)]
