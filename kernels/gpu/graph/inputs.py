"""What changes from one forward pass to the next: its hidden state, and the KV slots of its new tokens.

All lie at fixed addresses on the device, so that a captured graph finds the next token's where it found the
first one's. Copies start in pinned memory and are ordered by the stream: the host waits for none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor as X

from kernels import ggml
from kernels.gpu.attention.batch import Batch
from kernels.ops import Floats, Ints, Tensor

_LENGTH, _OFFSETS, _PAGES = 0, 4, 8
"""Where the fields of a `KvSlots` begin: each at 16 bytes, which kernels are compiled for."""


def to_device(values: Floats | Ints, device: torch.device) -> X:
    """A copy on the device; the host goes on at once, and may change its own."""
    return staged(values, device).to(device, non_blocking=True)


def staged(values: Floats | Ints, device: torch.device) -> X:
    """A copy on the host, pinned for a GPU; torch keeps its memory until the device has read it."""
    kind = torch.float32 if values.dtype == np.float32 else torch.int32
    copy = torch.empty(values.shape, dtype=kind, pin_memory=device.type == "cuda")
    copy.numpy()[...] = values
    return copy


class Refill(Protocol):
    """Something that every layer of a pass reads, at the same address in every pass."""

    def write(self, pages: Ints, start: int, n: int) -> object:
        """Write what n tokens at `start` need; nothing is done where it is there already."""
        ...


class KvSlots:
    """One sequence's `Batch` at fixed addresses, for `n` new tokens at `start`.

    No `max_pages`: positions go round in a ring, and no kernel reads which pages a sequence has.
    """

    def __init__(self, max_pages: int, page_size: int, device: torch.device) -> None:
        width = -(-max(1, max_pages) // 4) * 4
        self._page_size, self._paged = page_size, max_pages > 0
        self._key: tuple[int, int, bytes] | None = None
        self._fields = torch.zeros(_PAGES + width, dtype=torch.int32, device=device)
        self.batch = Batch(
            self._fields[_LENGTH : _LENGTH + 1],
            self._fields[_OFFSETS : _OFFSETS + 2],
            self._fields[_PAGES:].view(1, width),
        )

    def write(self, pages: Ints, start: int, n: int) -> Batch:
        """The batch, refilled where it says something else. Raises `ValueError` for too few pages."""
        length = start + n
        used = -(-length // self._page_size) if self._paged else 0
        if n < 1 or start < 0 or not used <= min(len(pages), self.batch.pages.shape[1]):
            raise ValueError(f"{n} tokens from position {start} on {len(pages)} pages")
        key = (start, n, pages[:used].tobytes())
        if key != self._key:
            values = np.zeros(len(self._fields), dtype=np.int32)
            values[_LENGTH] = length
            values[_OFFSETS + 1] = n
            values[_PAGES : _PAGES + used] = pages[:used]
            self._fields.copy_(staged(values, self._fields.device), non_blocking=True)
            self._key = key
        return self.batch


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """An embedding that stays in the file's bytes; `row` (1, hidden) on the device holds one token's."""

    tensor: Tensor
    row: X

    def dequantise(self, tokens: Ints) -> Floats:
        """Rows of the table, (n, hidden), on the host. Raises `ValueError` for a token it lacks."""
        tensor = self.tensor
        if not len(tokens) or not 0 <= int(tokens.min()) <= int(tokens.max()) < tensor.rows:
            raise ValueError(f"tokens {tokens.tolist()} of a vocabulary of {tensor.rows}")
        row = tensor.type.row_bytes(tensor.cols)
        data = tensor.data.reshape(tensor.rows, row)[tokens].reshape(-1)
        rows = Tensor(tensor.name, tensor.type, (len(tokens), tensor.cols), data)
        return ggml.dequantise(rows)

    def write(self, tokens: Ints) -> None:
        """Put one token's row on the device."""
        self.row.copy_(staged(self.dequantise(tokens), self.row.device), non_blocking=True)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A row that another op set computed; `row` (1, hidden) on the device holds it."""

    row: X

    def write(self, rows: Floats) -> None:
        """Put the row on the device."""
        self.row.copy_(staged(rows, self.row.device), non_blocking=True)


class Inputs:
    """The KV slots and rows of one op set, and which of them the last one-token pass read.

    While a graph is captured nothing is copied from the host: what the pass before it left is there.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._kv_slots: dict[tuple[int, int, bool], KvSlots] = {}
        self._row: Row | None = None
        self.source: Table | Row | None = None
        self.refills: list[Refill] = []
        """Of the pass that began with the last input of one token."""

    def rows(self, table: Table, tokens: Ints) -> X:
        """Embedding rows, (n, hidden), in a buffer of their own."""
        if len(tokens) != 1:
            return to_device(table.dequantise(tokens), self._device)
        if not _capturing(self._device):
            self.source, self.refills = table, []
            table.write(tokens)
        return table.row.clone()

    def set_hidden(self, rows: Floats) -> X:
        """Rows of another op set, (n, hidden), in a buffer of their own."""
        if len(rows) != 1:
            return to_device(rows, self._device)
        if self._row is None:
            self._row = Row(torch.zeros(rows.shape, device=self._device))
        if not _capturing(self._device):
            self.source, self.refills = self._row, []
            self._row.write(rows)
        return self._row.row.clone()

    def kv_slots(self, max_pages: int, page_size: int, pages: Ints, start: int, n: int) -> Batch:
        """The batch of n tokens at `start`; copied to the device once for all layers."""
        key = (max_pages, page_size, n == 1)
        if _capturing(self._device):
            return self._kv_slots[key].batch
        if key not in self._kv_slots:
            self._kv_slots[key] = KvSlots(max_pages, page_size, self._device)
        slots = self._kv_slots[key]
        self.renew(slots, pages, start, n)
        return slots.batch

    def renew(self, refill: Refill, pages: Ints, start: int, n: int) -> None:
        """Write to `refill`, now and, if n is 1, before each replay of the pass if it is captured."""
        if _capturing(self._device):
            return
        if n == 1 and refill not in self.refills:
            self.refills.append(refill)
        refill.write(pages, start, n)


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()
