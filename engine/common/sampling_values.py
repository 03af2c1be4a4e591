"""How the next token is chosen: the values, and their limits."""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import RequestError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. `temperature` 0 is greedy; `seed` None draws one."""

    temperature: float = 0.7
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        check_sampling(self)


@dataclass(frozen=True, slots=True)
class PartialSampling:
    """Some of the values of a `Sampling`, as a person, a model's file or the settings give them."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repeat_penalty: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        check_sampling(self)


SAMPLING_LIMITS: dict[str, tuple[float, float]] = {
    "temperature": (0.0, 10.0),
    "top_k": (0, 1 << 20),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repeat_penalty": (0.1, 10.0),
    "seed": (0, 0xFFFFFFFF),
}
"""Least and greatest value of each."""


def check_sampling(sampling: Sampling | PartialSampling) -> None:
    """Raise `RequestError` for a value that is not possible."""
    for name, (low, high) in SAMPLING_LIMITS.items():
        value = getattr(sampling, name)
        if value is not None and not low <= value <= high:
            raise RequestError(
                f"{name} {value} is not possible", "", f"Use a value from {low:g} to {high:g}"
            )
