"""The catalogue's tensors are those that llama.cpp wants, in the types that its quantiser gives them."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from engine.catalog import catalog
from engine.catalog.numbers import Numbers
from engine.catalog.tensors import spec_of, tensors
from tests.support.hollow_model import memory_taken, types_written

LAYERS = 24
"""Enough for every rule that counts layers."""


def _cut(numbers: Numbers) -> Numbers:
    """Fewer layers, experts and words: types depend on neither but for 8 experts."""
    experts = min(16, numbers.experts)
    return dataclasses.replace(numbers, layers=LAYERS, vocab=512, experts=experts)


def _narrow(numbers: Numbers) -> Numbers:
    """Narrow too: what is remembered of a token does not depend on it."""
    width, shared = 64, min(64, numbers.shared_width)
    cut = dataclasses.replace(_cut(numbers), layers=12, hidden=256, expert_width=width)
    return dataclasses.replace(cut, shared_width=shared, ffn=min(64, numbers.ffn))


MODELS = {model.numbers.architecture: model for model in catalog.load()}
MIXES = ("Q2_K", "Q3_K_M", "Q4_K_M", "Q5_K_M", "Q6_K")
PAIRS = [*itertools.product(MODELS, MIXES), ("gpt-oss", "MXFP4")]


@pytest.mark.parametrize(("architecture", "quant"), PAIRS)
def test_types_are_those_of_llama_cpp(architecture: str, quant: str, tmp_path: Path) -> None:
    numbers = _cut(MODELS[architecture].numbers)
    ours = {name: kind.name for name, _, kind, _ in tensors(numbers, quant)}
    assert types_written(numbers, quant, tmp_path) == ours


@pytest.mark.parametrize("architecture", MODELS)
def test_llama_cpp_opens_it_and_takes_the_memory_that_the_numbers_say(
    architecture: str, tmp_path: Path
) -> None:
    numbers = _narrow(MODELS[architecture].numbers)
    caches, states = memory_taken(numbers, 256, tmp_path)
    every_position = numbers.full_kv_bytes + numbers.window_kv_bytes
    assert caches == pytest.approx(256 * every_position, rel=0.01)
    assert states == pytest.approx(spec_of(numbers, "", "F16").state_bytes, rel=0.01)
