"""How far logits are from float32's: error, divergence, agreement, and the ratio of two errors.

A constant that is added to all logits of a position is no error: softmax does not see it, and so neither do
temperature, top-k, top-p, min-p nor a greedy choice (a repeat penalty does, by as much as the constant). Errors
and sizes are of logits less their mean.

Errors of one sequence's positions follow from each other: where two experts' scores nearly tie any rounding may
choose the other one, and all tokens behind inherit that. So a sequence is what counts once, with the mean over its
positions: a fault at one position in thirty still moves that, while a sequence in which chance fell badly moves
the centre of many (`signed_rank`) little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.evaluation.signed_rank import centre
from kernels.ops import Floats

ALLOWED = 1.05
"""Our error may be this many times llama.cpp's."""

ROUNDING = 1e-11
"""Error of float32 arithmetic itself, which no implementation goes below."""

BLOCK = 1 << 18
"""Logits that are compared at once: what is made of them stays in the processor's cache."""

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
    """Our typical error over llama.cpp's: its centre over the sequences, and the interval that holds it."""

    value: float
    low: float
    high: float

    @property
    def allowed(self) -> bool | None:
        """Whether it is at most `ALLOWED`; None where the interval holds both answers."""
        if self.high <= ALLOWED:
            return True
        return False if self.low > ALLOWED else None


Position = tuple[float, float, float, bool]
"""Squared error, squared size, KL divergence and top-1 agreement of one position."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One implementation on one sequence: the positions of its prompt, and the decoded ones."""

    prefill: list[Position]
    decode: list[Position]

    @property
    def total(self) -> list[Position]:
        """All positions."""
        return self.prefill + self.decode


def positions(values: Floats, expected: Floats) -> list[Position]:
    """Compare the logits of each position, (n, vocabulary); errors are infinite where they are no numbers."""
    out: list[Position] = []
    rows = max(1, BLOCK // values.shape[1])
    for first in range(0, len(values), rows):
        out += _positions(values[first : first + rows], expected[first : first + rows])
    return out


def _positions(values: Floats, expected: Floats) -> list[Position]:
    numbers: npt.NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=1))
    x, y = np.where(numbers[:, None], values, 0).astype(np.float64), expected.astype(np.float64)
    error = _centred(x - y)
    probabilities = np.exp(y - y.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    most = error.max(axis=1)
    heavier = (probabilities * np.exp(error - most[:, None])).sum(axis=1)
    divergence = np.log(heavier) + most - (probabilities * error).sum(axis=1)
    return list(
        zip(
            np.where(numbers, _mean_square(error), np.inf).tolist(),
            np.where(numbers, _mean_square(_centred(y)), 1.0).tolist(),
            np.where(numbers, np.maximum(divergence, 0), np.inf).tolist(),
            (numbers & (x.argmax(axis=1) == y.argmax(axis=1))).tolist(),
            strict=True,
        )
    )


def _centred(rows: Doubles) -> Doubles:
    return np.asarray(rows - rows.mean(axis=1, keepdims=True))


def _mean_square(rows: Doubles) -> Doubles:
    return np.asarray(np.einsum("ij,ij->i", rows, rows) / rows.shape[1])


def comparison(sequences: Sequence[Measured]) -> Comparison:
    """What the positions of prompts and the decoded ones give."""
    prefill = [position for sequence in sequences for position in sequence.prefill]
    decode = [position for sequence in sequences for position in sequence.decode]
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


def ratio(
    ours: Sequence[list[Position]], baseline: Sequence[list[Position]], doubt: float
) -> Ratio:
    """Errors of both on the same sequences. The true ratio is outside of the interval with `doubt`."""
    each = [
        float((_log_errors(first) - _log_errors(second)).mean())
        for first, second in zip(ours, baseline, strict=True)
        if first
    ]
    if not each:
        return Ratio(1.0, 1.0, 1.0)
    if not np.isfinite(each).all():
        return Ratio(math.inf, math.inf, math.inf)
    value, low, high = np.exp(centre(np.array(each), doubt))
    return Ratio(float(value), float(low), float(high))
