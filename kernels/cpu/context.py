"""What every op on the CPU needs: the native context, and arguments that are cached between calls.

One thread at a time uses a context.
"""

from __future__ import annotations

import os
import time
from ctypes import addressof
from typing import Any

import numpy as np
import numpy.typing as npt

from kernels.cancelling import CancelledError, Flag
from kernels.choices import stacked
from kernels.cpu import native
from kernels.cpu.buffers import Array, Cache, expect_ints, rope_struct, routing_struct
from kernels.cpu.cores import default_threads, physical_cores
from kernels.cpu.step import Recording, Step, op_name
from kernels.ops import Forward, Ints, PassInput, Rope, Routing
from kernels.timing import NATIVE, OpTimes, Rows

_FLOAT = np.dtype(np.float32)


class NativeContext:
    """A native context with its threads."""

    def __init__(
        self, threads: int | None = None, isa: str | None = None, pin: bool = False
    ) -> None:
        self._context = 0
        self.times: OpTimes | None = None
        """Is told the times of every op while it is set."""
        self._flag: Flag | None = None
        self._chosen: list[Ints] = []
        """What each router of the last pass chose, where it was of few tokens."""
        self._native = native.load()
        self.threads = default_threads() if threads is None else threads
        self.isa = native.choose_isa() if isa is None else isa
        cores = physical_cores()
        pinned = cores if pin and self.threads <= len(cores) else ()
        self._context = native.open_context(self.isa, self.threads, pinned)
        self._process = os.getpid()
        self._ropes: dict[int, tuple[Rope, object, int]] = {}
        self._routings: dict[tuple[int, int], tuple[Routing, object, int]] = {}
        self._pages: tuple[Ints, int] | None = None
        self._recording: Recording | None = None

    def close(self) -> None:
        """Stop the threads. A copy in a forked process has none to stop."""
        context, self._context = self._context, 0
        if context and self._process == os.getpid():
            self._native.kt_close(context)

    def __del__(self) -> None:
        self.close()

    def watch(self, rows: Rows | None) -> None:
        """Tell `rows` the times of every op from now on; None ends that."""
        self.times = None if rows is None else rows.row(NATIVE)

    def heed(self, flag: Flag | None) -> None:
        """Ops are given up soon after `flag` is raised: `kernels.cancelling.Heeds`."""
        self._flag = flag
        self._native.kt_heed(self._alive(), flag.address if flag is not None else None)

    def record(self, forward: Forward[Array]) -> Forward[Array]:
        """`forward(pass_input, pages, start)` of one token, run as one native call from the second time on.

        It must do the same ops with the same weights and the same cache each time.
        """
        step: Step | None = None
        chosen: list[Ints] = []

        def run(pass_input: PassInput, pages: Ints, start: int) -> Array:
            nonlocal step, chosen
            if step is not None:
                self._chosen = chosen
                return step.run(self._alive(), pass_input, pages, start, self.times)
            recording = self._recording = Recording()
            try:
                result = forward(pass_input, pages, start)
            finally:
                self._recording = None
            step, chosen = Step(recording, result), self._chosen
            return result.copy()

        return run

    def choices(self) -> Ints:
        """As `kernels.choices.Chooses` says; a recorded pass leaves them where it was recorded."""
        return stacked(self._chosen)

    def _call(self, name: str, *arguments: Any) -> None:
        """One native op. Raises what its status means."""
        times = self.times
        begin = time.perf_counter_ns() if times is not None else 0
        status = getattr(self._native, name)(self._alive(), *arguments)
        if self._flag:
            raise CancelledError
        native.check(status)
        if times is not None:
            stamps = (begin, time.perf_counter_ns())
            times.ops((op_name(name),), (native.layer_of(name, arguments),), stamps)
        if self._recording is not None:
            self._recording.calls.append((name, arguments))

    def _buffer(self, rows: int, cols: int, kind: npt.DTypeLike = _FLOAT) -> Array:
        """An uninitialised (rows, cols) buffer."""
        buffer: Array = np.empty((rows, cols), dtype=kind)
        if self._recording is not None:
            self._recording.buffers.append(buffer)
        return buffer

    def _alive(self) -> int:
        if not self._context:
            raise ValueError("this CpuOps is closed")
        return self._context

    def _kv_slots(
        self, cache: Cache, layer: int, pages: Ints, start: int, n: int
    ) -> tuple[int, int, int, int, int, int]:
        if self._pages is None or self._pages[0] is not pages:
            expect_ints(pages, (pages.size,))
            self._pages = (pages, pages.ctypes.data)
        return cache.pointer, layer, self._pages[1], pages.size, start, n

    def _rope(self, rope: Rope) -> int:
        """Address of the native rope; remembered with the rope, so that its id stays its own."""
        entry = self._ropes.get(id(rope))
        if entry is None:
            struct = rope_struct(rope)
            entry = self._ropes[id(rope)] = (rope, struct, addressof(struct))
        return entry[2]

    def _routing(self, routing: Routing, experts: int) -> int:
        entry = self._routings.get((id(routing), experts))
        if entry is None:
            struct = routing_struct(routing, experts)
            entry = self._routings[id(routing), experts] = (routing, struct, addressof(struct))
        return entry[2]
