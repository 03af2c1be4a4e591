"""What a model's file says of sampling, and what goes before it."""

from __future__ import annotations

import numpy as np
import pytest

from engine.generation.own_sampling import own_sampling
from engine.protocol import PartialSampling, Sampling
from ktchat.common.precedence import NAMES, ORDER, Held, Layers, Source
from ktchat.common.setting_values import BUILT_IN

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
    layers = Layers(
        command={"temperature": 0.1, "seed": 7},
        session={"temperature": 0.3, "top_p": 0.8},
        model={"top_p": 0.7, "min_p": 0.2},
        everywhere={"temperature": 0.2, "top_k": 3, "repeat_penalty": 1.1, "min_p": 0.3},
    ).with_file(PartialSampling(temperature=0.6, top_k=20, top_p=0.95, min_p=0.0))
    assert layers.sampling == Sampling(0.1, 20, 0.8, 0.2, 1.1, 7)
    origins = {name: layers.held(name).source for name in NAMES}
    assert origins == {
        "temperature": "command",
        "top_k": "file",
        "top_p": "session",
        "min_p": "model",
        "repeat_penalty": "everywhere",
        "seed": "command",
    }
    assert Layers().sampling == Sampling() and Layers().token_limit is None
    assert layers.words == (
        "temperature 0.1 (command line) · top-k 20 (the model's file) · top-p 0.8 (this session)"
        " · min-p 0.2 (this model) · repeat-penalty 1.1 (everywhere) · seed 7 (command line)"
    )


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_each_source_goes_before_those_behind_it(name: str) -> None:
    """The order is the one that is written down, for every setting: taking the sources away one by one."""
    order: list[Source] = ["command", "session", "model", "file", "everywhere"]
    said: dict[str, dict[str, object]] = {source: {name: f"of {source}"} for source in order}
    for source in order:
        assert Layers(**said).held(name) == Held(f"of {source}", source)
        del said[source]
    assert Layers(**said).held(name) == Held(BUILT_IN[name], "built-in")
    assert order == [source for source in ORDER if source != "built-in"]


def test_a_value_that_is_not_possible_here_gives_way_to_the_next() -> None:
    layers = Layers(session={"think": "high"}, everywhere={"think": "off"})
    assert layers.held("think", lambda value: value in ("on", "off")) == Held("off", "everywhere")
    assert layers.held("think", lambda value: value == "on") == Held(None, "built-in")


def test_zero_is_a_value_too() -> None:
    layers = Layers(command={"temperature": 0.0, "seed": 0}, session={"max_tokens": 0})
    layers = layers.with_file(PartialSampling(temperature=0.6))
    assert layers.sampling.temperature == 0.0 and layers.sampling.seed == 0
    silent = Layers(session={"seed": -1, "max_tokens": 0}, everywhere={"seed": 5, "max_tokens": 9})
    assert silent.sampling.seed is None and silent.token_limit is None
