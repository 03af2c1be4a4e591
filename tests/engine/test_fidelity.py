"""Every architecture and type: our error against float32 is at most 1.05 times llama.cpp's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kernels.cpu import CpuOps
from kernels.reference import ReferenceOps
from tests.support import fidelity
from tests.support.matrix import pairs
from tests.support.tiny import MODELS, MOE_MODELS, TYPES, quantise, tiny_model

ALLOWED = 1.05


@pytest.fixture(scope="module")
def ops() -> Iterator[CpuOps]:
    cpu = CpuOps(2)
    yield cpu
    cpu.close()


@pytest.mark.parametrize(("architecture", "variant"), MODELS, ids=lambda name: name)
def test_the_reference_is_what_llama_cpp_computes(
    architecture: str, variant: str, models: Path
) -> None:
    path = tiny_model(architecture, models, variant=variant)
    expected = fidelity.logits(path, ReferenceOps(), [len(fidelity.TOKENS)])
    with fidelity.LlamaCppReference(path, 512, flash=False) as reference:
        assert fidelity.typical_nmse(reference.logits(fidelity.TOKENS), expected) < 2e-6


@pytest.mark.parametrize(
    ("architecture", "variant", "type_name"), pairs(MODELS, ["F32", "BF16", "Q8_0", "Q4_K"])
)
def test_every_architecture_is_as_faithful_as_llama_cpp(
    architecture: str, variant: str, type_name: str, models: Path, ops: CpuOps
) -> None:
    path = tiny_model(architecture, models, variant=variant, expert_type="F32")
    if type_name != "F32":
        path = quantise(path, type_name, only_experts=False)
    assert fidelity.error_ratio(path, ops) <= ALLOWED


@pytest.mark.parametrize("type_name", ["F32", "Q8_0", "Q4_K"])
@pytest.mark.parametrize("architecture", ["qwen3moe", "deepseek2", "gpt-oss", "llama"])
def test_a_cache_in_8_bits_is_as_faithful_as_llama_cpps(
    architecture: str, type_name: str, models: Path, ops: CpuOps
) -> None:
    path = tiny_model(architecture, models, expert_type="F32")
    if type_name != "F32":
        path = quantise(path, type_name, only_experts=False)
    assert fidelity.error_ratio(path, ops, "q8") <= ALLOWED


@pytest.mark.parametrize(("architecture", "variant", "type_name"), pairs(MOE_MODELS, TYPES))
def test_experts_of_every_type_are_as_faithful_as_llama_cpp(
    architecture: str, variant: str, type_name: str, models: Path, ops: CpuOps
) -> None:
    path = quantise(tiny_model(architecture, models, variant=variant, expert_type="F32"), type_name)
    assert fidelity.error_ratio(path, ops) <= ALLOWED


def test_a_quantised_router_is_as_faithful_as_llama_cpp(models: Path, ops: CpuOps) -> None:
    path = tiny_model("minimax-m2", models, expert_type="F32")
    path = quantise(path, "Q8_0", only_experts=False, routers=True)
    assert fidelity.error_ratio(path, ops) <= ALLOWED


@pytest.mark.parametrize("architecture", ["qwen3moe", "deepseek2"])
def test_exact_weights_decode_to_the_logits_of_prefilling(
    architecture: str, models: Path, ops: CpuOps
) -> None:
    path = tiny_model(architecture, models, expert_type="F32")
    whole = fidelity.logits(path, ops, [len(fidelity.TOKENS)])
    steps = fidelity.logits(path, ops, [1] * len(fidelity.TOKENS))
    # Attention rounds its weights to whole numbers for each range of positions, of which passes differ.
    assert fidelity.typical_nmse(steps, whole) < 3e-8


@pytest.mark.parametrize("architecture", ["qwen3moe", "deepseek2"])
def test_quantised_weights_decode_as_faithfully_as_they_prefill(
    architecture: str, models: Path, ops: CpuOps
) -> None:
    path = quantise(tiny_model(architecture, models, expert_type="F32"), "Q4_K", only_experts=False)
    expected = fidelity.logits(path, ReferenceOps(), [len(fidelity.TOKENS)])
    whole = fidelity.logits(path, ops, [len(fidelity.TOKENS)])
    steps = fidelity.logits(path, ops, [1] * len(fidelity.TOKENS))
    error = fidelity.typical_nmse(whole, expected)
    assert fidelity.typical_nmse(steps, expected) <= ALLOWED * error


@pytest.mark.parametrize("architecture", ["qwen3moe", "deepseek2", "llama"])
def test_thread_counts_do_not_change_the_logits(architecture: str, models: Path) -> None:
    path = tiny_model(architecture, models)
    results = []
    for threads in (1, 2, 3):
        ops = CpuOps(threads)
        results.append(fidelity.logits(path, ops, fidelity.CHUNKS))
        ops.close()
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
