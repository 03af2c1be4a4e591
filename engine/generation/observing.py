"""One reply as it is computed, watched beside the decode loop: `Insight` at its end, and on the way while somebody looks.

A token costs a microsecond here. Time is cut into equal slices from the first token on; where there are too many,
two become one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from engine.common.insight import MAX_SLICES, ExpertCounts, Insight, NoExperts, encoded
from engine.plan.token_reads import Used
from engine.runtimes.base import CancelFlag, Model

FIRST_SLICE = 0.25
"""Seconds of the first slices."""
EVERY = 0.5
"""Seconds between two insights on the way."""


class Observer:
    """Watches one reply. `observed` is raised while somebody looks; `position`: tokens before the reply."""

    def __init__(
        self, model: Model, position: int, observed: CancelFlag, emit: Callable[[Insight], None]
    ) -> None:
        self._runtime, self._reads = model.runtime, model.reads
        self._position, self._observed, self._emit = position, observed, emit
        self._tokens, self._seconds, self._told = 0, 0.0, 0.0
        self._slice, self._slices = FIRST_SLICE, [0]

    def begin(self) -> None:
        """The prompt is read: from now on passes are the reply's."""
        if (use := self._runtime.expert_use) is not None:
            use.begin()

    def token(self, seconds: float) -> None:
        """A token was sampled, so many seconds after the first one."""
        self._tokens, self._seconds = self._tokens + 1, seconds
        at = int(seconds / self._slice)
        while at >= MAX_SLICES:
            pairs = zip(self._slices[::2], [*self._slices[1::2], 0], strict=False)
            self._slices, self._slice = [sum(pair) for pair in pairs], 2 * self._slice
            at = int(seconds / self._slice)
        self._slices += [0] * (at + 1 - len(self._slices))
        self._slices[at] += 1
        if self._observed and seconds - self._told >= EVERY:
            self._told = seconds
            self._tell()

    def end(self) -> None:
        """The reply has ended, before its last event."""
        if (use := self._runtime.expert_use) is not None:
            use.end()
        if self._tokens:
            self._tell()

    def _tell(self) -> None:
        if self._reads is None:
            return
        use = self._runtime.expert_use
        used = use.used() if use is not None and use.known else None
        tokens = used.tokens if used is not None else max(0, self._tokens - 1)
        middle = self._position + self._tokens // 2
        ram, vram = self._reads.bytes_per_token(middle, tokens, used)
        each = self._seconds / (self._tokens - 1) if self._tokens > 1 else 0.0
        self._emit(
            Insight(
                tokens=tokens,
                passes=used.passes if used is not None else tokens,
                experts=_counts(used) if used is not None else None,
                no_experts=self._why_none(used),
                ram_bytes=ram,
                vram_bytes=vram,
                hop_seconds=self._reads.hop_seconds(ram, vram, each),
                ram_gb_s=self._reads.ram_gb_s,
                vram_gb_s=self._reads.vram_gb_s,
                token_seconds=each,
                slice_seconds=self._slice,
                slices=tuple(self._slices),
            )
        )

    def _why_none(self, used: Used | None) -> NoExperts:
        if used is not None:
            return ""
        assert self._reads is not None
        return "untold" if self._reads.spec.moe is not None else "dense"


def _counts(used: Used) -> ExpertCounts:
    layers, experts = used.uses.shape
    there = used.on_device
    return ExpertCounts(
        first_layer=used.first_layer,
        layers=layers,
        experts=experts,
        top_k=used.top_k,
        uses=encoded(used.uses.astype(np.dtype("<u4")).tobytes()),
        on_gpu="" if there is None else encoded(there.astype(np.dtype("<u4")).tobytes()),
    )
