"""What a model's file says of sampling: the keys `general.sampling.*` that our sampler knows.

Mirostat, XTC, the order of samplers and the penalty's window have no counterpart here and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from engine.protocol import SAMPLING_LIMITS, PartialSampling

_KEYS = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "penalty_repeat",
}
"""Our name of each value, and the file's."""


def own_sampling(metadata: Mapping[str, Any]) -> PartialSampling:
    """The values that are there and possible; an impossible one is as if it were not there."""
    found = {
        name: value
        for name, key in _KEYS.items()
        if (value := _value(name, metadata.get(f"general.sampling.{key}"))) is not None
    }
    return PartialSampling(**found)  # type: ignore[arg-type]


def _value(name: str, value: object) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    if name == "top_k":
        value = max(int(value), 0)  # -1 means all, as 0 does here
    else:
        value = float(f"{value:.6g}")  # a float32 of the file: 0.6, not 0.6000000238
    low, high = SAMPLING_LIMITS[name]
    return value if low <= value <= high else None
