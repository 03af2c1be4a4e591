"""What counters of expert use ask of an op set: which experts the last pass chose, and which of them a device computed.

Passes of a prompt are not asked for: their choices are many, and nobody keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from kernels.ops import Ints

FEW = 4
"""Tokens of the longest pass whose choices are kept: a token with the drafts behind it."""

Bools = npt.NDArray[np.bool_]


@runtime_checkable
class Chooses(Protocol):
    """An op set that keeps what its routers chose."""

    def choices(self) -> Ints:
        """The last pass's experts, (routers, n, top_k) int32, in the order of the layers, n up to `FEW`.

        Valid until the next pass begins, and only once the result of this one was read.
        """
        ...


@runtime_checkable
class Places(Protocol):
    """An op set whose experts are partly on a device."""

    def on_device(self, choices: Ints) -> Bools:
        """Which of the last pass's `choices` the device computed, in their shape; the others, the host."""
        ...


def stacked(chosen: Sequence[Ints]) -> Ints:
    """The ids of a pass's routers, each (n, top_k), in one array; (0, 0, 0) without a router."""
    if not chosen:
        return np.empty((0, 0, 0), dtype=np.int32)
    ids: Ints = np.concatenate(chosen).reshape(len(chosen), *chosen[0].shape)
    return ids
