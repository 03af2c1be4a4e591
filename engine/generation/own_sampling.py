"""What a model's file says of sampling: the keys `general.sampling.*` that our sampler knows.

Mirostat, XTC, the order of samplers and the penalty's window have no counterpart here and are left out.
"""

from __future__ import annotations

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


_MOST = max(high for _, high in SAMPLING_LIMITS.values())


def own_sampling(metadata: Mapping[str, Any]) -> PartialSampling:
    """The values that are there and possible; an impossible one is as if it were not there."""
    found = {
        name: value
        for name, key in _KEYS.items()
        if (value := _value(name, metadata.get(f"general.sampling.{key}"))) is not None
    }
    return PartialSampling(**found)  # type: ignore[arg-type]


def _value(name: str, value: object) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1 <= value <= _MOST:
        return None
    # All is -1 there and 0 here; a float32 of the file is 0.6, not 0.6000000238.
    value = max(int(value), 0) if name == "top_k" else float(f"{value:.6g}")
    low, high = SAMPLING_LIMITS[name]
    return value if low <= value <= high else None
