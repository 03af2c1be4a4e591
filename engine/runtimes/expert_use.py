"""Which experts a reply's tokens used: counters that a runtime keeps while it decodes.

A token is counted when it was forwarded, not before; those of a draft that proved wrong are taken back, though
what they read was read. Prompts are not counted. A token costs some microseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.plan.token_reads import Counts, Used
from engine.spec.spec import ModelSpec
from kernels.choices import FEW, Bools, Chooses, Places
from kernels.ops import Ints


class ExpertUse:
    """The counters of one runtime. `op_sets` are those of its stages, in the order of the layers."""

    def __init__(self, spec: ModelSpec, op_sets: Sequence[Any]) -> None:
        assert spec.moe is not None
        self._op_sets = [
            (ops, ops if isinstance(ops, Places) else None)
            for ops in op_sets
            if isinstance(ops, Chooses)
        ]
        self._first, self._top_k = spec.moe.leading_dense, spec.moe.top_k
        self._shape = spec.layers - self._first, spec.moe.experts
        self._rows = np.arange(self._shape[0])[:, None]
        self._split = any(isinstance(ops, Places) for ops in op_sets)
        self.known = len(self._op_sets) == len(op_sets)
        """Whether all op sets tell their choices."""
        self.active = False
        """Whether passes are counted."""
        self._last: Ints | None = None
        self._clear()

    def begin(self) -> None:
        """Count from nothing on: a reply begins."""
        self._clear()
        self.active = self.known

    def end(self) -> None:
        """The reply has ended; what was counted stays until the next one."""
        self.active = False

    def count(self, tokens: int) -> None:
        """A pass of so many tokens is done."""
        self._last = None
        if not self.active or tokens > FEW:
            return
        ids, there = self._choices()
        self.tokens += tokens
        self.passes += 1
        self._add(ids, there, 1)
        if tokens > 1:
            self._last = ids.copy()
            seen = np.zeros(self._shape, dtype=np.bool_)
            seen[self._rows[:, :, None], ids] = True
            self._shared += seen.sum(axis=1)
        else:
            self._alone += 1

    def cut_back(self, count: int) -> None:
        """The last `count` tokens of the last pass were drafts that proved wrong."""
        if self._last is not None:
            self.tokens -= count
            self._add(self._last[:, -count:], None, -1)

    def used(self) -> Used:
        """What was counted so far."""
        return Used(
            first_layer=self._first,
            top_k=self._top_k,
            tokens=self.tokens,
            uses=self._uses.copy(),
            on_device=self._on_device.copy() if self._split else None,
            passes=self.passes,
            reads=self._shared + self._alone * self._top_k,
        )

    def _choices(self) -> tuple[Ints, Bools | None]:
        """Of the last pass, (layers, n, top_k), and which of them devices computed; None: no device takes part."""
        each: list[Ints] = []
        where: list[Bools] = []
        for ops, places in self._op_sets:
            ids = ops.choices()
            if not ids.size:  # a stage of dense layers
                continue
            each.append(ids)
            if self._split:
                nowhere = np.zeros(ids.shape, dtype=np.bool_)
                where.append(places.on_device(ids) if places is not None else nowhere)
        return _joined(each), _joined(where) if self._split else None

    def _add(self, ids: Ints, there: Bools | None, by: int) -> None:
        for token in range(ids.shape[1]):  # no token chooses an expert twice
            self._uses[self._rows, ids[:, token]] += by
            if there is not None:
                self._on_device[self._rows, ids[:, token]] += there[:, token]

    def _clear(self) -> None:
        self.tokens = self.passes = self._alone = 0
        self._uses: Counts = np.zeros(self._shape, dtype=np.int64)
        self._on_device: Counts = np.zeros(self._shape if self._split else (0, 0), dtype=np.int64)
        self._shared: Counts = np.zeros(self._shape[0], dtype=np.int64)
        self._last = None


def _joined(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
