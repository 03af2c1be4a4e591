"""What a model's file says of sampling, and what goes before it."""

from __future__ import annotations

import numpy as np
import pytest

from engine.generation.own_sampling import own_sampling
from engine.protocol import PartialSampling, Sampling
from ktchat.common.sampling import SamplingSources

FILE = {
    "general.sampling.temp": float(np.float32(0.6)),
    "general.sampling.top_k": 20,
    "general.sampling.top_p": float(np.float32(0.95)),
    "general.sampling.min_p": 0.0,
    "general.sampling.penalty_repeat": float(np.float32(1.05)),
    "general.sampling.mirostat": 2,
    "general.sampling.sequence": "edskypmxt",
}


def test_a_file_s_values_are_read_as_they_were_meant() -> None:
    assert own_sampling(FILE) == PartialSampling(0.6, 20, 0.95, 0.0, 1.05)
    assert own_sampling({}) == PartialSampling()


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -1.0, 99, 10**400, True, "0.6", [0.6], None]
)
def test_an_impossible_value_is_as_if_it_were_not_there(value: object) -> None:
    found = own_sampling({**FILE, "general.sampling.temp": value})
    assert found == PartialSampling(None, 20, 0.95, 0.0, 1.05)


@pytest.mark.parametrize(("value", "top_k"), [(-1, 0), (0, 0), (20.0, 20), (1 << 40, None)])
def test_all_tokens_are_zero_here(value: object, top_k: int | None) -> None:
    assert own_sampling({"general.sampling.top_k": value}).top_k == top_k


def test_the_nearest_source_wins() -> None:
    own = own_sampling(FILE)
    sources = SamplingSources(
        command=PartialSampling(temperature=0.1, seed=7),
        settings=PartialSampling(temperature=0.2, top_k=3),
    )
    assert sources.resolved(own) == Sampling(0.1, 3, 0.95, 0.0, 1.05, 7)
    assert SamplingSources().resolved() == Sampling()
    origin = {name: source for name, _, source in sources.origins(own)}
    assert origin == {
        "temperature": "command line",
        "top_k": "your settings",
        "top_p": "the model",
        "min_p": "the model",
        "repeat_penalty": "the model",
        "seed": "command line",
    }
    assert SamplingSources().words(own).startswith("temperature 0.6 (the model) · top-k 20")
    assert "temperature 0.7 (ktchat)" in SamplingSources().words()


def test_zero_is_a_value_too() -> None:
    sources = SamplingSources(command=PartialSampling(temperature=0.0, seed=0))
    assert sources.resolved(PartialSampling(temperature=0.6)).temperature == 0.0
    assert sources.resolved().seed == 0
