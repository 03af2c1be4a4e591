"""The next token from a model's logits.

The steps and their order are llama.cpp's default sampler chain (repeat penalty, top-k, top-p, min-p,
temperature, draw). They are done in numpy: at 152k tokens the candidates cost 0.15 ms, as in the
chain, and the draw comes from Python's own generator, so that a seed gives the same reply on every
version of llama.cpp.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine.errors import EngineError
from engine.protocol import Sampling
from engine.runtimes.base import Floats

PENALTY_WINDOW = 64
"""Last tokens, the prompt's included, that the repeat penalty looks at."""

_SEEDS = 1 << 32
_ROWS = 32
_SLACK = 1e-3
"""Rounding of float32 in a logit, with room to spare."""

Ids = npt.NDArray[np.intp]
Doubles = npt.NDArray[np.float64]


class Sampler:
    """Chooses the tokens of one reply. Deterministic for its `seed`, which is drawn when not given."""

    def __init__(self, sampling: Sampling, prompt: Sequence[int] = ()) -> None:
        self.sampling = sampling
        self.seed = random.randrange(_SEEDS) if sampling.seed is None else sampling.seed
        self._random = random.Random(self.seed)
        self._recent = deque(prompt[-PENALTY_WINDOW:], PENALTY_WINDOW)

    def next(self, logits: Floats) -> int:
        """The token chosen from `logits` (vocab,). Raises `EngineError` when they are no numbers."""
        best = float(logits.max())
        if not np.isfinite(best):
            raise EngineError(
                "The model produced no numbers",
                f"The largest of its {len(logits)} logits is {best}",
                "The file may be damaged: check it with `ktchat verify`",
            )
        logits = penalised(logits, self._recent, self.sampling.repeat_penalty)
        token = self._draw(logits)
        self.note(token)
        return token

    def note(self, token: int) -> None:
        """Count a token as used, for the repeat penalty."""
        self._recent.append(token)

    def _draw(self, logits: Floats) -> int:
        if self.sampling.temperature == 0.0:
            return int(logits.argmax())
        ids, probabilities = candidates(logits, self.sampling)
        cumulative = probabilities.cumsum()
        place = cumulative.searchsorted(self._random.random() * cumulative[-1], side="right")
        return int(ids[min(int(place), len(ids) - 1)])


def penalised(logits: Floats, recent: Sequence[int] | deque[int], penalty: float) -> Floats:
    """Logits of recent tokens made smaller: divided by `penalty` when positive, else multiplied.

    Source: Keskar et al. 2019, "CTRL", section 4.1, with llama.cpp's treatment of negative logits.
    """
    if penalty == 1.0 or not recent:
        return logits
    logits = logits.copy()
    ids = np.unique(np.fromiter(recent, np.intp, len(recent)))
    ids = ids[ids < len(logits)]
    chosen = logits[ids]
    logits[ids] = np.where(chosen > 0, chosen / penalty, chosen * penalty)
    return logits


def candidates(logits: Floats, sampling: Sampling) -> tuple[Ids, Doubles]:
    """The tokens that may be drawn, likeliest first, and their probabilities (sum 1).

    top-k keeps the k largest logits; top-p then the fewest whose probability reaches p; min-p those
    with at least min_p times the best one's. Equal logits rank by token id. At least one is kept.
    """
    if 0 < sampling.top_k < len(logits):
        # Everything equal to the k-th is taken, so that ties are decided by id, not by partition.
        ids = _ranked(logits, _reached(logits, sampling.top_k))[: sampling.top_k]
        mass = None
    else:
        # Below this share of the best one's, all tokens together cannot make up 1 - top_p.
        share = max(sampling.min_p, (1.0 - sampling.top_p) / len(logits))
        best = float(logits.max())
        ids = _ranked(logits, best + math.log(share) - _SLACK if share > 0 else -math.inf)
        mass = float(np.exp(logits - np.float32(best)).sum(dtype=np.float64))
    scores = logits[ids].astype(np.float64)
    relative = np.exp(scores - scores[0])
    keep = len(ids)
    if sampling.top_p < 1.0:
        cumulative = relative.cumsum()
        wanted = sampling.top_p * (cumulative[-1] if mass is None else mass)
        keep = int(cumulative.searchsorted(wanted)) + 1
    if sampling.min_p > 0.0:
        keep = min(keep, int(np.count_nonzero(relative >= sampling.min_p)))
    keep = max(1, min(keep, len(ids)))
    weights = np.exp((scores[:keep] - scores[0]) / sampling.temperature)
    return ids[:keep], weights / weights.sum()


def _reached(logits: Floats, count: int) -> float:
    """A logit that at least `count` of them reach, and few more.

    The largest of each column of a table of them, then the `count`-th of those: partitioning all the
    logits costs ten times as much.
    """
    columns = len(logits) // _ROWS
    if columns >= 2 * count:
        logits = logits[: _ROWS * columns].reshape(_ROWS, columns).max(axis=0)
    place = len(logits) - count
    return float(np.partition(logits, place)[place])


def _ranked(logits: Floats, least: float) -> Ids:
    """The ids of the logits from `least` on, largest first, equal ones by id.

    They are sorted as integers: the float's bits, made to fall as it rises, then the id.
    """
    ids = np.flatnonzero(logits >= least)
    bits = (logits[ids] + np.float32(0.0)).view(np.int32).astype(np.int64)
    keys = (np.where(bits < 0, bits & 0x7FFFFFFF, -bits) << 32) | ids
    keys.sort()
    return (keys & 0xFFFFFFFF).astype(np.intp)
