"""Who is told how long ops took: all that an op set needs to know of a trace.

Times are nanoseconds of `time.perf_counter_ns`, which on Linux is CLOCK_MONOTONIC.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Stamps = Sequence[int] | npt.NDArray[np.int64]

NATIVE = "native ops"
"""Ops of the CPU's op set that Python called, or that are repeated as a step."""
HOST = "host experts"
"""Expert requests of a captured pass, as the host served them."""
DEVICE = "device"
"""Captured passes of a GPU, from their first work to their last. Waiting for the host is a part of them."""


class OpTimes(Protocol):
    """Takes the times of ops."""

    def ops(self, names: Sequence[str], layers: Sequence[int | None], stamps: Stamps) -> None:
        """Ops that ran one after another: op i from `stamps[i]` to `stamps[i + 1]`.

        `layers` are None where the op does not know its layer. What is given is kept, not copied.
        """
        ...


class Rows(Protocol):
    """A place for times of each kind (`engine.evaluation.trace.Trace`)."""

    def row(self, name: str) -> OpTimes:
        """Takes the times of one thread or device."""
        ...


@runtime_checkable
class Watched(Protocol):
    """An op set that can say how long its ops took."""

    def watch(self, rows: Rows | None) -> None:
        """Tell `rows` the times of all work from now on; None ends that, once all of it has been told."""
        ...
