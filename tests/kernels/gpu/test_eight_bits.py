"""Each type that multiplies with activations in 8 bits is as faithful as llama.cpp: else it would keep float32's."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.evaluation import fidelity
from tests.kernels.gpu import eight_bits

SAMPLE = ("Q4_K", "Q8_0")
"""One whose activations llama.cpp rounds in blocks of 256, and one in blocks of 32, as we do."""


def test_ten_types_have_a_gate() -> None:
    assert len(eight_bits.TYPES) == 10 and set(SAMPLE) <= set(eight_bits.TYPES)


@pytest.mark.parametrize("name", [
    name if name in SAMPLE else pytest.param(name, marks=pytest.mark.exhaustive)
    for name in eight_bits.TYPES
])  # fmt: skip
def test_activations_in_8_bits_are_as_faithful_as_llama_cpp_s(name: str, tmp_path: Path) -> None:
    with eight_bits.small_model():
        found = eight_bits.ratio(name, tmp_path, sequences=2)
    assert found.value <= fidelity.ALLOWED
