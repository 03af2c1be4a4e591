"""Test matrices in two parts: pairs that cover every value once for every run, the others for `make test-all`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest


def pairs(
    first: Sequence[Any], second: Sequence[Any], name: Callable[[Any], str] | None = None
) -> list[Any]:
    """All pairs as parameters, marked `exhaustive` but for those in which every value has its turn once.

    A value of the longer sequence meets one of the shorter, in turns; tuples are spread into single parameters.
    """
    count = max(len(first), len(second))
    kept = {(number % len(first), number % len(second)) for number in range(count)}
    return [
        pytest.param(
            *_spread(one),
            *_spread(other),
            id="-".join(map(name or _name, (one, other))),
            marks=() if (i, j) in kept else pytest.mark.exhaustive,
        )
        for (i, one), (j, other) in product(enumerate(first), enumerate(second))
    ]


def _spread(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _name(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join(map(_name, value))
    return getattr(value, "__name__", None) or str(value)
