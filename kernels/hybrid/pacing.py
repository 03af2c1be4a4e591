"""How many experts each layer may begin to upload: what the link moves while tokens are decoded."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

SHARE = 0.5
"""Part of the link that uploads take: the host reads its own experts from the same memory meanwhile."""
BURST = 8.0
"""Experts that a layer may have saved up, as while a prompt was read."""
UNMEASURED = 2
"""Experts a layer and pass while nobody knows how fast the link is."""


class UploadPace:
    """A bucket for every layer, which fills as fast as the link would (a token bucket)."""

    def __init__(
        self, expert_bytes: Sequence[int], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """`expert_bytes` are those of one expert of each layer."""
        self._sizes = np.array(expert_bytes, dtype=np.float64)
        self._saved = np.zeros(len(expert_bytes))
        self._clock, self._last = clock, clock()
        self.bytes_per_second: float | None = None
        """As measured at load; None: not yet."""

    def allowed(self) -> list[int]:
        """How many experts each layer may begin to upload now."""
        if self.bytes_per_second is None:
            return [UNMEASURED] * len(self._sizes)
        now, before = self._clock(), self._last
        self._last = now
        each = SHARE * self.bytes_per_second * (now - before) / max(1, len(self._sizes))
        self._saved = np.minimum(BURST, self._saved + each / self._sizes)
        return [int(count) for count in self._saved]

    def spend(self, layer: int, experts: int) -> None:
        """So many of a layer have begun. What fills slots that were nobody's may cost more than was saved."""
        self._saved[layer] = max(0.0, self._saved[layer] - experts)
