"""The tiny models do what the other tests rely on: llama.cpp runs them, and they are healthy."""

from pathlib import Path

import gguf
import numpy as np
import pytest

from kernels.ops import Floats
from tests.support.llama_cpp_reference import LlamaCppReference
from tests.support.tiny import MODELS, MOE_MODELS, TYPES, quantise, tiny_model, write_tiny_model

TOKENS = np.random.default_rng(7).integers(0, 250, 160).tolist()


def nmse(values: Floats, expected: Floats) -> float:
    return float(np.square(values - expected).mean() / np.square(expected).mean())


@pytest.mark.parametrize(("architecture", "variant"), MODELS, ids=lambda name: name)
def test_llama_cpp_runs_it_with_healthy_logits(
    architecture: str, variant: str, models: Path
) -> None:
    path = tiny_model(architecture, models, variant=variant)
    with LlamaCppReference(path, 256, flash=False) as reference:
        logits = reference.logits(TOKENS)
        assert np.isfinite(logits).all()
        assert 1 < logits.std() < 4
        assert nmse(reference.logits(TOKENS, stepwise=True), logits) < 1e-5
        earlier = reference.logits([*TOKENS[:80][::-1], *TOKENS[80:]])
    assert nmse(earlier[80:], logits[80:]) > 0.05, "later logits must depend on earlier tokens"


@pytest.mark.parametrize(("architecture", "variant"), MOE_MODELS, ids=lambda name: name)
def test_a_rounding_difference_does_not_change_the_experts(
    architecture: str, variant: str, models: Path
) -> None:
    path = tiny_model(architecture, models, variant=variant)
    with (
        LlamaCppReference(path, 256, flash=False) as exact,
        LlamaCppReference(path, 256, flash=True) as rounded,
    ):
        expected, values = exact.logits(TOKENS), rounded.logits(TOKENS)
    worst = max(nmse(a, b) for a, b in zip(values, expected, strict=True))
    assert 0 < worst < 1e-4


@pytest.mark.parametrize("type_name", TYPES)
def test_experts_of_every_type_run(type_name: str, models: Path) -> None:
    path = quantise(tiny_model("qwen3moe", models, expert_type="F32"), type_name)
    types = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(path).tensors}
    assert types["blk.0.ffn_gate_exps.weight"] == types["blk.1.ffn_down_exps.weight"] == type_name
    with LlamaCppReference(path, 256) as reference:
        logits = reference.logits(TOKENS)
    assert np.isfinite(logits).all()
    assert 1 < logits.std() < 4


def test_quantising_all_matrices_keeps_the_router_exact(models: Path) -> None:
    path = tiny_model("deepseek2", models, variant="v3-split", expert_type="F32")
    exact = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    with LlamaCppReference(path, 256) as reference:
        expected = reference.logits(TOKENS)
    path = quantise(path, "Q5_K", only_experts=False)
    small = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    kinds = {name: tensor.tensor_type.name for name, tensor in small.items()}
    assert kinds["blk.1.attn_q_b.weight"] == kinds["blk.1.ffn_up_exps.weight"] == "Q5_K"
    assert kinds["blk.1.attn_k_b.weight"] == "Q5_1", "its rows are shorter than a block of 256"
    assert kinds["token_embd.weight"] == "Q6_K"
    for name in ("blk.1.ffn_gate_inp.weight", "blk.1.exp_probs_b.bias", "output_norm.weight"):
        assert np.array_equal(small[name].data, exact[name].data)
    with LlamaCppReference(path, 256) as reference:
        assert nmse(reference.logits(TOKENS), expected) < 0.2


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    first, again, other = (tmp_path / name for name in ("first.gguf", "again.gguf", "other.gguf"))
    for path, seed in ((first, 0), (again, 0), (other, 1)):
        write_tiny_model(path, "llama", "dense", "F16", "F32", seed)
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()
