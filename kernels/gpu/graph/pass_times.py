"""When a GPU ran its captured passes, on the host's clock: for traces.

Two events are part of a capture. The device itself records them, so their times leave out what launching
costs; the two clocks run apart and are compared before and after.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import torch

from kernels.timing import OpTimes

_TRIES = 8
"""Readings of both clocks, of which the quickest counts: they then agree within half of its time, some
microseconds."""


class Marks:
    """The events at the beginning and at the end of a captured pass, done again at every replay."""

    def __init__(self) -> None:
        self.begun = _event(external=True)
        self.ended = _event(external=True)


class _Reading(NamedTuple):
    """The same moment on both clocks."""

    event: Any
    host_ns: float


class PassTimes:
    """The replays of one captured pass from now on. One thread uses it, on the stream that replays."""

    def __init__(self, marks: Marks, times: OpTimes) -> None:
        self._marks, self._times = marks, times
        self._first = _read()
        self._passes: list[tuple[float, float]] = []
        self._launched = False

    def launch(self) -> None:
        """A replay follows, which takes the events again. Waits for the one before, whose result was read."""
        self._note()
        self._launched = True

    def tell(self) -> None:
        """Waits for the device, then tells every pass. Both clocks are read again: they drift apart."""
        self._note()
        first, last = self._first, _read()
        rate = (last.host_ns - first.host_ns) / first.event.elapsed_time(last.event)
        for milliseconds in self._passes:
            stamps = [round(first.host_ns + rate * moment) for moment in milliseconds]
            self._times.ops(("captured pass",), (None,), stamps)
        self._passes = []

    def _note(self) -> None:
        if not self._launched:
            return
        self._launched = False
        self._marks.ended.synchronize()
        since = self._first.event.elapsed_time
        self._passes.append((since(self._marks.begun), since(self._marks.ended)))


def _event(external: bool = False) -> Any:
    made: Any = torch.cuda.Event
    return made(enable_timing=True, external=external)


def _read() -> _Reading:
    """An idle device's event is done as soon as it is recorded, between two looks at the host's clock."""
    torch.cuda.synchronize()
    best: tuple[int, _Reading] | None = None
    for _ in range(_TRIES):
        event = _event()
        before = time.perf_counter_ns()
        event.record()
        event.synchronize()
        after = time.perf_counter_ns()
        if best is None or after - before < best[0]:
            best = after - before, _Reading(event, (before + after) / 2)
    assert best is not None
    return best[1]
