"""The sampler against plain definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.errors import EngineError, RequestError
from engine.generation.sampling import Sampler, candidates, penalised
from engine.protocol import Sampling
from tests.support.clock import computed_within

GREEDY = Sampling(temperature=0.0)


def logits_of(seed: int, size: int = 200) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(size) * 3).astype(np.float32)


def plain(logits: np.ndarray, sampling: Sampling) -> dict[int, float]:
    """Token -> probability, by the definitions, one token at a time."""
    order = sorted(range(len(logits)), key=lambda i: (-float(logits[i]), i))
    if sampling.top_k:
        order = order[: sampling.top_k]
    best = float(logits[order[0]])
    scale = sum(math.exp(float(logits[i]) - best) for i in order)
    chances = [math.exp(float(logits[i]) - best) / scale for i in order]
    kept: list[int] = []
    mass = 0.0
    for token, chance in zip(order, chances, strict=True):
        if kept and sampling.top_p < 1 and mass >= sampling.top_p:
            break
        kept.append(token)
        mass += chance
    least = sampling.min_p * chances[0]
    kept = [t for t, c in zip(order, chances, strict=True) if t in set(kept) and c >= least]
    weights = [math.exp((float(logits[i]) - best) / sampling.temperature) for i in kept]
    return {token: w / sum(weights) for token, w in zip(kept, weights, strict=True)}


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(top_k=0, top_p=1.0, min_p=0.0, temperature=1.0),
        Sampling(top_k=1, temperature=2.0),
        Sampling(top_k=5, top_p=1.0, min_p=0.0, temperature=1.5),
        Sampling(top_k=0, top_p=0.5, min_p=0.0, temperature=0.3),
        Sampling(top_k=0, top_p=0.0, min_p=0.0),
        Sampling(top_k=0, top_p=1.0, min_p=0.2, temperature=10.0),
        Sampling(top_k=0, top_p=1.0, min_p=1.0),
        Sampling(top_k=500, top_p=0.99, min_p=0.001, temperature=0.05),
    ],
    ids=repr,
)
def test_candidates_and_their_probabilities_follow_the_definitions(sampling: Sampling) -> None:
    for seed in range(20):
        logits = logits_of(seed)
        ids, probabilities = candidates(logits, sampling)
        expected = plain(logits, sampling)
        assert ids.tolist() == list(expected)
        np.testing.assert_allclose(probabilities, list(expected.values()), rtol=1e-6)


@pytest.mark.parametrize("top_k", [1, 40, 100, 2000])
@pytest.mark.parametrize("size", [6400, 32003])
def test_a_large_vocabulary_keeps_the_best_of_a_full_sort(size: int, top_k: int) -> None:
    sampling = Sampling(top_k=top_k, top_p=1.0, min_p=0.0)
    for seed in range(5):
        logits = logits_of(seed, size)
        logits[seed::31] = -np.inf
        logits = np.sort(logits) if seed == 0 else logits  # the best in one row
        logits = np.round(logits, 1) if seed % 2 else logits  # many ties
        ids, _ = candidates(logits, sampling)
        assert ids.tolist() == np.lexsort((np.arange(size), -logits))[:top_k].tolist()


def test_ties_are_decided_by_token_id() -> None:
    logits = np.zeros(1000, np.float32)
    logits[[900, 7]] = 1.0
    ids, _ = candidates(logits, Sampling(top_k=4, top_p=1.0, min_p=0.0))
    assert ids.tolist() == [7, 900, 0, 1]
    assert Sampler(GREEDY).next(logits) == 7


def test_draws_have_the_distribution_of_the_candidates() -> None:
    logits = logits_of(3, 50)
    sampling = Sampling(temperature=1.2, top_k=12, top_p=0.98, min_p=0.0, seed=42)
    expected = plain(logits, sampling)
    sampler = Sampler(sampling)
    draws = 20_000
    counts = np.bincount([sampler.next(logits) for _ in range(draws)], minlength=50)
    assert set(np.flatnonzero(counts)) <= set(expected)
    chi_square = sum((counts[t] - draws * p) ** 2 / (draws * p) for t, p in expected.items())
    # 99.9 % of chi-square with 11 degrees of freedom lie below 31.3.
    assert len(expected) <= 12
    assert chi_square < 31.3


def test_a_seed_repeats_a_reply_and_none_draws_one() -> None:
    logits = [logits_of(seed) for seed in range(50)]

    def reply(seed: int | None) -> tuple[int, list[int]]:
        sampler = Sampler(Sampling(temperature=2.0, top_k=0, top_p=1, min_p=0, seed=seed))
        return sampler.seed, [sampler.next(row) for row in logits]

    assert reply(5) == reply(5)
    assert reply(5)[1] != reply(6)[1]
    assert reply(0xFFFFFFFF) == reply(0xFFFFFFFF)
    drawn, tokens = reply(None)
    assert (drawn, tokens) == reply(drawn)
    assert drawn != reply(None)[0]


def test_greedy_takes_the_best_whatever_else_is_set() -> None:
    for seed in range(10):
        logits = logits_of(seed)
        sampling = Sampling(temperature=0.0, top_k=3, top_p=0.1, min_p=0.9, seed=seed)
        assert Sampler(sampling).next(logits) == int(np.argmax(logits))


def test_the_repeat_penalty_lowers_recent_tokens_once() -> None:
    logits = np.array([2.0, -2.0, 1.0, -1.0], np.float32)
    lowered = penalised(logits, [0, 0, 1, 99], 2.0)
    assert lowered.tolist() == [1.0, -4.0, 1.0, -1.0]
    assert logits.tolist() == [2.0, -2.0, 1.0, -1.0]


def test_the_penalty_sees_the_prompt_and_the_reply_but_only_64_tokens() -> None:
    logits = np.zeros(100, np.float32)
    logits[[1, 2]] = 2.0, 1.5
    sampling = Sampling(temperature=0.0, repeat_penalty=4.0)
    assert Sampler(sampling, [1]).next(logits) == 2
    assert Sampler(sampling, [1, *[50] * 63]).next(logits) == 2
    assert Sampler(sampling, [1, *[50] * 64]).next(logits) == 1
    sampler = Sampler(sampling)
    assert [sampler.next(logits) for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(seed=1)], ids=["greedy", "drawn"])
def test_logits_that_are_no_numbers_are_an_error(bad: float, sampling: Sampling) -> None:
    logits = logits_of(1)
    logits[17] = bad
    with pytest.raises(EngineError, match="no numbers"):
        Sampler(sampling).next(logits)
    with pytest.raises(EngineError, match="no numbers"):
        Sampler(sampling).next(np.full(5, -math.inf, np.float32))


def test_a_token_of_minus_infinity_is_never_drawn() -> None:
    logits = np.full(20, -math.inf, np.float32)
    logits[[3, 4]] = 0.0
    sampler = Sampler(Sampling(temperature=5.0, top_k=0, top_p=1.0, min_p=0.0, seed=3))
    assert {sampler.next(logits) for _ in range(200)} == {3, 4}


@pytest.mark.parametrize("field", ["temperature", "top_p", "min_p", "repeat_penalty", "top_k"])
@pytest.mark.parametrize("value", [-1, math.nan, 1 << 30])
def test_impossible_settings_are_refused(field: str, value: float) -> None:
    with pytest.raises(RequestError, match=field):
        Sampling(**{field: value})


def test_a_large_vocabulary_takes_under_two_milliseconds_a_token() -> None:
    logits = logits_of(9, 151_936)
    sampler = Sampler(Sampling(seed=1, repeat_penalty=1.1), [1, 2, 3])
    sampler.next(logits)
    with computed_within(20 * 0.002):
        for _ in range(20):
            sampler.next(logits)
