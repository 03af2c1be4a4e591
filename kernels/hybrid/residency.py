"""Which experts have a slot on the device: those that a conversation is likeliest to use next, layer by layer.

A use counts less with every token after it (LRFU: Lee et al., 2001). How fast differs between conversations, so
three memories are kept, and the one whose favourites would have been chosen more often of late decides. Every layer has
slots of its own: one list for all layers thrashes, because a token visits every layer. Only arithmetic on arrays of a
few thousand numbers: a token costs some tenths of a millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.ops import Ints

MEMORIES = np.array([0.9, 0.95, 0.99], dtype=np.float32)
"""What a use is worth a token later: half after 7 tokens, 14 or 69. The first decides until they differ."""
MARGIN, LEAD = 0.01, 1.5
"""An expert drives another out that is so much less likely, in the next token and by this factor: a copy costs as
much as a miss."""
FORGOTTEN = 0.99
"""What a comparison of the memories is worth a token later."""


@dataclass(frozen=True, slots=True)
class Move:
    """An expert that is to have a slot, and the one whose slot that was (-1: nobody's)."""

    layer: int
    slot: int
    expert: int
    leaves: int


class Residency:
    """Experts and slots of all layers that have both. `slot_of` (layers, experts) int32, -1: none."""

    def __init__(self, experts: int, slots: Sequence[int]) -> None:
        if any(not 0 < count < experts for count in slots):
            raise ValueError(f"{list(slots)} slots for {experts} experts")
        layers, most = len(slots), max(slots, default=0)
        self.slot_of: Ints = np.full((layers, experts), -1, dtype=np.int32)
        self._slots = np.array(slots, dtype=np.int64)
        self._expert_in = np.full((layers, most), -1, dtype=np.int32)
        self._exists = np.arange(most) < self._slots.reshape(-1, 1)
        self._chances: npt.NDArray[np.float32]
        self._chances = np.zeros((len(MEMORIES), layers, experts), dtype=np.float32)
        """Of being chosen by the next token, as each memory has it."""
        self._right = np.zeros(len(MEMORIES))
        """Choices that each memory's favourites would have met."""
        self._prompted = np.zeros(layers, dtype=bool)
        self._rows = np.arange(layers)
        self._moves: dict[int, list[Move]] = {}
        self._tokens = 0
        self.lookups = self.hits = 0
        """Experts that one-token passes chose, and those of them that had a slot."""

    def token(self, ids: Ints) -> None:
        """Count one token's choices, ids (layers, top_k)."""
        rows = self._rows[:, None]
        self._tokens += 1
        layer = self._tokens % len(ids)
        self._compare(layer, ids[layer])
        self._chances *= MEMORIES[:, None, None]
        self._chances[:, rows, ids] += (1 - MEMORIES)[:, None, None]  # no expert is chosen twice
        self.lookups += ids.size
        self.hits += int(np.count_nonzero(self.slot_of[rows, ids] >= 0))

    def _compare(self, layer: int, ids: Ints) -> None:
        """One layer a token, in turn. Each memory's favourites are as many as there are slots."""
        chances, slots = self._chances[:, layer], int(self._slots[layer])
        least = np.partition(chances, -slots, axis=1)[:, -slots]
        self._right = FORGOTTEN * self._right + (chances[:, ids] >= least[:, None]).sum(axis=1)

    def chunk(self, layer: int, ids: Ints) -> None:
        """Count a prompt's choices in one layer, ids (n, top_k); later tokens weigh more."""
        ages = np.arange(len(ids) - 1.0, -1.0, -1.0)
        for chances, memory in zip(self._chances, MEMORIES, strict=True):
            weights = np.repeat(memory**ages * (1 - memory), ids.shape[1])
            counts = np.bincount(ids.reshape(-1), weights, minlength=chances.shape[1])
            chances[layer] = chances[layer] * memory ** len(ids) + counts
        self._prompted[layer] |= len(ids) > 1

    @property
    def chances(self) -> npt.NDArray[np.float32]:
        """Of being chosen by the next token, (layers, experts), as the better memory has it."""
        best: npt.NDArray[np.float32] = self._chances[int(self._right.argmax())]
        return best

    def begin(self, allowed: Sequence[int]) -> dict[int, list[Move]]:
        """Experts that are to have slots, by layer, the likeliest first: in all that are nobody's, and at most
        `allowed` of a layer in those of others.

        Once a prompt was counted nobody's slots are filled to the last. A layer's slots on the move are nobody's until
        `end`; before that it begins nothing else.
        """
        if len(allowed) != len(self._rows):
            raise ValueError(f"{len(allowed)} allowances for {len(self._rows)} layers")
        begun = self._fill() if (self._exists & (self._expert_in < 0)).any() else {}
        self._replace(begun, np.array(allowed))
        for layer, moves in begun.items():
            self._moves[layer] = moves
            for move in moves:
                self._expert_in[layer, move.slot] = -1
                if move.leaves >= 0:
                    self.slot_of[layer, move.leaves] = -1
        return {layer: list(begun[layer]) for layer in sorted(begun)}

    def _fill(self) -> dict[int, list[Move]]:
        begun, chances = {}, self.chances
        for layer in self._rows.tolist():
            free = np.nonzero(self._exists[layer] & (self._expert_in[layer] < 0))[0]
            if not len(free) or layer in self._moves:
                continue
            absent = np.where(self.slot_of[layer] < 0, chances[layer], -1.0)
            best = np.argsort(-absent, kind="stable")[: len(free)]
            if not self._prompted[layer]:
                best = best[absent[best] > 0]
            pairs = zip(free.tolist(), best.tolist(), strict=False)
            if moves := [Move(layer, slot, expert, -1) for slot, expert in pairs]:
                begun[layer] = moves
        return begun

    def _replace(self, begun: dict[int, list[Move]], allowed: npt.NDArray[np.int64]) -> None:
        """Add moves to layers that have none yet."""
        allowed[[*self._moves, *begun]] = 0
        rows, chances = self._rows, self.chances
        held = self._exists & (self._expert_in >= 0)
        worth = np.where(held, chances[rows[:, None], self._expert_in], np.inf)
        wanted = np.where(self.slot_of >= 0, -np.inf, chances)
        for count in range(int(allowed.max(initial=0))):
            best, worst = wanted.argmax(axis=1), worth.argmin(axis=1)
            gains = wanted[rows, best] - LEAD * worth[rows, worst]
            better = np.nonzero((gains > MARGIN) & (count < allowed))[0]
            if not len(better):
                return
            for layer in better.tolist():
                slot, expert = int(worst[layer]), int(best[layer])
                leaves = int(self._expert_in[layer, slot])
                begun.setdefault(layer, []).append(Move(layer, slot, expert, leaves))
            wanted[better, best[better]], worth[better, worst[better]] = -np.inf, np.inf

    def end(self, layer: int) -> list[Move]:
        """The moves that were begun in a layer are done: their experts have their slots."""
        done = self._moves.pop(layer, [])
        for move in done:
            self._expert_in[layer, move.slot] = move.expert
            self.slot_of[layer, move.expert] = move.slot
        return done
