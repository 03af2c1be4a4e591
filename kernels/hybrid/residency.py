"""Which experts have a slot on the device: those that a conversation uses most, layer by layer.

Uses are counted and decay slowly, so that the count is a mean of how often and how lately (LFU with
exponential decay). Every layer has slots of its own: one list for all layers thrashes, because a token
visits every layer. Only arithmetic on arrays of a few thousand numbers: a token costs some tens of
microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.ops import Ints

DECAY = 0.99
"""What a use is worth a token later: half after 69 tokens."""
MARGIN = 1.5
"""Uses by which an expert must lead the one that it drives out: a copy costs more than a miss or two."""


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
        layers = len(slots)
        self.slot_of: Ints = np.full((layers, experts), -1, dtype=np.int32)
        most = max(slots, default=0)
        self._expert_in = np.full((layers, most), -1, dtype=np.int32)
        self._exists = np.arange(most) < np.array(slots, dtype=np.int64).reshape(-1, 1)
        self._uses: npt.NDArray[np.float32] = np.zeros((layers, experts), dtype=np.float32)
        self._rows = np.arange(layers)
        self._moves: list[Move] = []
        self.lookups = self.hits = 0
        """Experts that one-token passes chose, and those of them that had a slot."""

    def token(self, ids: Ints) -> None:
        """Count one token's choices, ids (layers, top_k)."""
        rows = self._rows[:, None]
        self._uses *= DECAY
        self._uses[rows, ids] += 1.0  # a router never chooses an expert twice
        self.lookups += ids.size
        self.hits += int(np.count_nonzero(self.slot_of[rows, ids] >= 0))

    def chunk(self, layer: int, ids: Ints) -> None:
        """Count a prompt's choices in one layer, ids (n, top_k); later tokens weigh more."""
        weights = np.repeat(DECAY ** np.arange(len(ids) - 1.0, -1.0, -1.0), ids.shape[1])
        counts = np.bincount(ids.reshape(-1), weights, minlength=self._uses.shape[1])
        self._uses[layer] = self._uses[layer] * DECAY ** len(ids) + counts

    def begin(self, most: int) -> list[Move]:
        """At most `most` experts that are to have slots, the most wanted first.

        Their slots are nobody's until `end`; before that nothing else is begun.
        """
        if self._moves or not len(self._rows):
            return []
        held = self._expert_in >= 0
        worth = np.where(held, self._uses[self._rows[:, None], self._expert_in], -MARGIN)
        worth[~self._exists] = np.inf
        wanted = np.where(self.slot_of >= 0, -np.inf, self._uses)
        while len(self._moves) < most:
            best, worst = wanted.argmax(axis=1), worth.argmin(axis=1)
            gains = wanted[self._rows, best] - worth[self._rows, worst]
            layer = int(gains.argmax())
            if not gains[layer] > MARGIN:
                break
            slot, expert = int(worst[layer]), int(best[layer])
            self._moves.append(Move(layer, slot, expert, int(self._expert_in[layer, slot])))
            wanted[layer, expert], worth[layer, slot] = -np.inf, np.inf
        for move in self._moves:
            self._expert_in[move.layer, move.slot] = -1
            if move.leaves >= 0:
                self.slot_of[move.layer, move.leaves] = -1
        return list(self._moves)

    def end(self) -> list[Move]:
        """The moves that were begun are done: their experts have their slots."""
        done, self._moves = self._moves, []
        for move in done:
            self._expert_in[move.layer, move.slot] = move.expert
            self.slot_of[move.layer, move.expert] = move.slot
        return done
