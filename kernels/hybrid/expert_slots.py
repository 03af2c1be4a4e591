"""Layers whose experts come and go: their slots on the device, filled beside the work.

`residency` chooses the experts; this module keeps the device's tables and uploads. An expert is taken out
of the table before its slot is filled and put in afterwards; nobody waits for that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple

import numpy as np

from kernels.device import Copy, DeviceOps
from kernels.hybrid.pacing import UploadPace
from kernels.hybrid.residency import Move, Residency
from kernels.ops import Activation, Biases, C, Floats, Ints, Tensor
from kernels.recurrent import W, X

_POLL = 1e-4
"""Seconds from one look at an upload that is measured to the next."""


@dataclass(frozen=True, slots=True, eq=False)
class Stack(Generic[W]):
    """A stack of experts: all on the device, or all on the host and some of them in slots on the device."""

    tensor: Tensor
    device: W | None
    host: Any
    slots: int
    """Experts that have room on the device; all of them where the host has none."""

    @property
    def layer(self) -> str:
        """What the stacks of a layer have in common: `blk.3`."""
        return self.tensor.name.rpartition(".ffn_")[0]

    @property
    def adapts(self) -> bool:
        """Whether its experts come and go."""
        return self.device is not None and self.host is not None


class Routed(NamedTuple, Generic[W]):
    """What a layer's routed experts are made of."""

    gate: Stack[W]
    up: Stack[W]
    down: Stack[W]
    biases: Biases[Stack[W]] | None = None
    activation: Activation = "swiglu"

    def each(self, of: Callable[[Stack[W]], Any]) -> tuple[Any, Any]:
        """What `of` gives for gate, up and down, and for their biases, or None."""
        some = None if self.biases is None else tuple(map(of, self.biases))
        return (of(self.gate), of(self.up), of(self.down)), some


class ExpertSlots(Generic[X, W, C]):
    """The slots of all layers that have some; a row of `residency` is a layer."""

    def __init__(self, device: DeviceOps[X, W, C], layers: Sequence[Sequence[Stack[W]]]) -> None:
        self._device, self._layers = device, layers
        experts = layers[0][0].tensor.shape[0] if layers else 0
        self.residency = Residency(experts, [stacks[0].slots for stacks in layers])
        self._rows = {stacks[0].layer: row for row, stacks in enumerate(layers)}
        self._tables: list[X] = [self._fresh(row) for row in range(len(layers))]
        self._filling: dict[int, Callable[[], bool]] = {}
        self._pace = UploadPace([sum(map(_expert_bytes, stacks)) for stacks in layers])

    @property
    def layers(self) -> list[str]:
        """In the order of the residency's rows."""
        return list(self._rows)

    def of(self, stack: Stack[W]) -> Ints:
        """The slots of a layer's experts, (experts,): a view of the residency's."""
        slots: Ints = self.residency.slot_of[self._rows[stack.layer]]
        return slots

    def table(self, stack: Stack[W]) -> X:
        """The same on the device, (1, experts) int32: always one buffer."""
        return self._tables[self._rows[stack.layer]]

    def absent(self, stack: Stack[W]) -> list[int]:
        """A layer's experts that have no slot, the likeliest first."""
        if not stack.adapts:
            return list(range(stack.tensor.shape[0]))
        row = self._rows[stack.layer]
        order = (-self.residency.chances[row]).argsort(kind="stable")
        return [expert for expert in order.tolist() if self.residency.slot_of[row, expert] < 0]

    def chunk(self, stack: Stack[W], ids: Ints) -> None:
        """Count a chunk's choices, (n, top_k)."""
        self.residency.chunk(self._rows[stack.layer], ids)

    def move(self, begins: bool = True) -> None:
        """Between two passes: slots that are filled may be read, and where `begins`, wanted experts begin to be
        uploaded. Layer by layer: none waits for another's."""
        for row in [row for row, filled in self._filling.items() if filled()]:
            del self._filling[row]
            self.residency.end(row)
            self._show(row)
        if not begins or not self._layers:
            return
        for row, moves in self.residency.begin(self._pace.allowed()).items():
            self._pace.spend(row, len(moves))
            self._show(row)
            self._filling[row] = self._device.upload(
                [copy for move in moves for copy in self._copies(move)]
            )

    def measure(self) -> None:
        """Upload into the slots of one layer, which must all be nobody's, to know how fast the link is. Waits."""
        if not self._layers:
            return
        some = [Move(0, slot, slot, -1) for slot in range(self._layers[0][0].slots)]
        started = time.perf_counter()
        filled = self._device.upload([copy for move in some for copy in self._copies(move)])
        while not filled():
            time.sleep(_POLL)
        seconds = max(time.perf_counter() - started, _POLL)
        size = sum(map(_expert_bytes, self._layers[0]))
        self._pace.bytes_per_second = len(some) * size / seconds

    def _copies(self, move: Move) -> list[Copy[W]]:
        copies = []
        for stack in self._layers[move.layer]:
            assert stack.device is not None
            copies.append(Copy(stack.device, move.slot, stack.tensor, move.expert))
        return copies

    def _show(self, row: int) -> None:
        self._device.write(self._tables[row], self.residency.slot_of[row : row + 1])

    def _fresh(self, row: int) -> X:
        values: Any = self.residency.slot_of[row : row + 1].copy()
        table: X = self._device.from_numpy(values)
        return table


def _expert_bytes(stack: Stack[W]) -> int:
    """Of one expert, as the file has it."""
    return stack.tensor.data.nbytes // stack.tensor.shape[0]


def even_chunk(stack: Tensor, tokens: int, top_k: int) -> tuple[Floats, Any, Floats]:
    """A layer's inputs, ids and weights for a chunk in which all experts are as popular."""
    rng = np.random.default_rng(0)
    experts, _, hidden = stack.shape
    x = rng.standard_normal((tokens, hidden), dtype=np.float32)
    ids = rng.random((tokens, experts)).argsort(axis=1)[:, :top_k].astype(np.int32)
    return x, ids, np.full((tokens, top_k), 1 / top_k, dtype=np.float32)
