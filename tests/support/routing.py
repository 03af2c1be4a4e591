"""Routing traces: which experts a router chose, token after token. Generated, without torch.

`drift` is like what was measured: with its defaults, 512 experts and top 10, the least recently used 64 and 128 of a
layer meet 67 % and 82 % of the choices. github.com/ggml-org/llama.cpp/pull/27861 found 67 % and 81 % in a mixed
workload, and hardly any experts that are popular everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from kernels.ops import Ints

SPREAD, TOPIC = 2.25, 150
"""Deviation of the experts' logits, and tokens after which a topic is forgotten to 1 / e."""


def stationary(tokens: int, layers: int, experts: int, top_k: int, seed: int = 0) -> Ints:
    """Zipf's law with exponent 1, and nothing else, (tokens, layers, top_k)."""
    rng = np.random.default_rng(seed)
    return _choose(rng, _zipf(rng, layers, experts), tokens, top_k)


class Drift(NamedTuple):
    """A trace with drifting topics, and what lies behind it: logits that wander, (tokens, layers, experts), and what a
    router says of every expert for each token, the chosen ones being those of which it says most."""

    ids: Ints
    logits: np.ndarray
    said: np.ndarray


def drift(tokens: int, layers: int, experts: int, top_k: int, seed: int = 0) -> Drift:
    """Every expert's logit wanders and forgets (Ornstein and Uhlenbeck): topics come and go."""
    rng = np.random.default_rng(seed)
    logits = SPREAD * rng.standard_normal((layers, experts))
    kept = np.exp(-1 / TOPIC)
    wandered, said = [], []
    for _ in range(tokens):
        noise = rng.standard_normal(logits.shape)
        logits = kept * logits + np.sqrt(1 - kept**2) * SPREAD * noise
        wandered.append(logits)
        said.append(logits + rng.gumbel(size=(1, *logits.shape))[0])
    return Drift(_most(np.stack(said), top_k), np.stack(wandered), np.stack(said))


def drifting(tokens: int, layers: int, experts: int, top_k: int, seed: int = 0) -> Ints:
    """The trace alone."""
    return drift(tokens, layers, experts, top_k, seed).ids


def changing(tokens: int, layers: int, experts: int, top_k: int, seed: int = 0) -> Ints:
    """As `stationary`, but in the middle all experts change their places."""
    half = tokens // 2
    before = stationary(half, layers, experts, top_k, seed)
    return np.concatenate([before, stationary(tokens - half, layers, experts, top_k, seed + 1)])


TRACES: dict[str, Callable[..., Ints]] = {
    "stationary Zipf": stationary,
    "drifting topics": drifting,
    "a change of topic": changing,
}


def _zipf(rng: np.random.Generator, layers: int, experts: int) -> np.ndarray:
    logits = -np.log(np.arange(1.0, experts + 1))
    return np.stack([rng.permutation(logits) for _ in range(layers)])


def _choose(rng: np.random.Generator, logits: np.ndarray, tokens: int, top_k: int) -> Ints:
    """top_k experts a token without replacement, by their logits (Gumbel's trick)."""
    return _most(logits + rng.gumbel(size=(tokens, *logits.shape)), top_k)


def _most(values: np.ndarray, top_k: int) -> Ints:
    chosen: Ints = np.argpartition(-values, top_k, axis=2)[:, :, :top_k].astype(np.int32)
    return chosen
