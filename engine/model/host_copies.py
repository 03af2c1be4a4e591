"""A model's memory as bytes on the host: pages of the whole context, and kept states.

How a page or a state is laid out is its op set's business; parts follow each other as stages do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.model.transformer import Transformer, active
from kernels.ops import Bytes


@dataclass(frozen=True, slots=True)
class _Part:
    """A page of a cache, or a slot of recurrent states."""

    ops: Any
    memory: Any
    number: int
    recurrent: bool = False

    def read(self) -> Bytes:
        with active(self.ops):
            read = self.ops.read_state if self.recurrent else self.ops.read_page
            data: Bytes = read(self.memory, self.number)
            return data

    def write(self, data: Bytes) -> None:
        with active(self.ops):
            write = self.ops.write_state if self.recurrent else self.ops.write_page
            write(self.memory, self.number, data)


class HostCopies:
    """What `model` remembers, read and written by the thread that runs it."""

    def __init__(self, model: Transformer[Any, Any, Any]) -> None:
        self._model = model
        self._sizes: dict[int, int] = {}

    @property
    def layout(self) -> list[Any]:
        """What the bytes depend on beside the model's files, in values that JSON has."""
        model = self._model
        stages = [
            [stage.ops.name, model.kv, sorted(stage.layers.items())] for stage in model.stages
        ]
        return [model.page_size, stages]

    @property
    def page_bytes(self) -> int:
        """Bytes of a page in every layer that keeps the whole context."""
        return self._bytes(self._page(0))

    def state_bytes(self, position: int) -> int:
        """Bytes of what is bounded at a position."""
        return self._bytes(self._state(1, position))

    def read_page(self, page: int) -> list[Bytes]:
        """A page, in parts."""
        return [part.read() for part in self._page(page)]

    def write_page(self, page: int, data: Bytes) -> None:
        """Put back what `read_page` gave, joined. Raises `ValueError` for another size."""
        self._write(self._page(page), data)

    def read_state(self, slot: int, position: int) -> list[Bytes]:
        """What is bounded, as it was kept in `slot`, 1 or above, at `position`; in parts."""
        return [part.read() for part in self._state(slot, position)]

    def write_state(self, slot: int, position: int, data: Bytes) -> None:
        """Put back what `read_state` gave at this position, joined. Raises `ValueError` for another size."""
        self._write(self._state(slot, position), data)

    def _write(self, parts: Iterable[_Part], data: Bytes) -> None:
        every = list(parts)
        ends = np.cumsum([self._size(part) for part in every]).tolist()
        if len(data) != (ends[-1] if ends else 0):
            raise ValueError(f"{len(data)} bytes do not fit")
        for part, piece in zip(every, np.split(data, ends[:-1]), strict=bool(every)):
            part.write(piece)

    def _bytes(self, parts: Iterable[_Part]) -> int:
        return sum(map(self._size, parts))

    def _size(self, part: _Part) -> int:
        """Bytes of a part; all of one cache or state are alike."""
        known = id(part.memory)
        if known not in self._sizes:
            self._sizes[known] = part.read().nbytes
        return self._sizes[known]

    def _page(self, page: int) -> Iterator[_Part]:
        for stage in self._model.stages:
            if stage.layers["full"]:
                yield _Part(stage.ops, stage.memory["full"], page)

    def _state(self, slot: int, position: int) -> Iterator[_Part]:
        for stage in self._model.stages:
            if stage.layers["recurrent"]:
                yield _Part(stage.ops, stage.memory["recurrent"], slot, recurrent=True)
            if stage.layers["window"]:
                for _, copy in self._model.window.of_copy(slot, position):
                    yield _Part(stage.ops, stage.memory["window"], copy)
