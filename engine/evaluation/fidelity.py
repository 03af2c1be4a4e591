"""How far logits are from float32's: error, divergence, agreement, and the ratio of two errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernels.ops import Floats

ALLOWED = 1.05
"""Our error may be this many times llama.cpp's."""

ROUNDING = 1e-11
"""Error of float32 arithmetic itself, which no implementation goes below."""

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Errors:
    """How far logits are from float32's, over a number of positions.

    `nmse` is the squared error over the squared size, `typical` the geometric mean of that of each
    position; `mean_kl` and `max_kl` the divergence of the probabilities in nats; `top1` the share of
    positions with the same most likely token.
    """

    nmse: float
    typical: float
    mean_kl: float
    max_kl: float
    top1: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One implementation against float32: positions of the prompt, decoded ones, and all."""

    prefill: Errors
    decode: Errors
    total: Errors


@dataclass(frozen=True, slots=True)
class Ratio:
    """Our typical error over llama.cpp's, position by position, and how sure that is.

    `low` is two standard errors below `value`: rounding is random, and so is a ratio of errors.
    """

    value: float
    low: float

    @property
    def allowed(self) -> bool:
        """Whether nothing says that the ratio is above `ALLOWED`."""
        return self.low <= ALLOWED


Position = tuple[float, float, float, bool]
"""Squared error, squared size, KL divergence and top-1 agreement of one position."""


def position(values: Floats, expected: Floats) -> Position:
    """Compare the logits of one position, (vocabulary,); the error is infinite without numbers."""
    if not np.isfinite(values).all():
        return np.inf, 1.0, np.inf, False
    x, y = values.astype(np.float64), expected.astype(np.float64)
    p, q = _log_softmax(y), _log_softmax(x)
    divergence = max(0.0, float((np.exp(p) * (p - q)).sum()))
    same = bool(x.argmax() == y.argmax())
    return float(np.square(x - y).mean()), float(np.square(y).mean()), divergence, same


def comparison(prefill: list[Position], decode: list[Position]) -> Comparison:
    """What the positions of prompts and the decoded ones give."""
    return Comparison(_errors(prefill), _errors(decode), _errors(prefill + decode))


def _errors(positions: list[Position]) -> Errors:
    if not positions:
        return Errors(0.0, 0.0, 0.0, 0.0, 1.0)
    error, size, divergence, same = (np.array(column) for column in zip(*positions, strict=True))
    return Errors(
        nmse=float(error.sum() / size.sum()),
        typical=float(np.exp(_log_errors(positions).mean())),
        mean_kl=float(divergence.mean()),
        max_kl=float(divergence.max()),
        top1=float(same.mean()),
    )


def _log_errors(positions: list[Position]) -> Doubles:
    """Logarithm of each position's NMSE, float32's own rounding added."""
    return np.log([error / size + ROUNDING for error, size, _, _ in positions])


def ratio(ours: list[Position], baseline: list[Position]) -> Ratio:
    """Errors at the same positions, compared one by one."""
    if not ours:
        return Ratio(1.0, 1.0)
    each = _log_errors(ours) - _log_errors(baseline)
    if not np.isfinite(each).all():
        return Ratio(np.inf, np.inf)
    doubt = 2 * each.std() / len(each) ** 0.5
    return Ratio(float(np.exp(each.mean())), float(np.exp(each.mean() - doubt)))


def _log_softmax(x: Doubles) -> Doubles:
    shifted = x - x.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))
