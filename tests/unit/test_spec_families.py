"""The spec of families that a row of the table of architectures describes: GLM-4.5, dots1, Ling, EXAONE, MiniMax-M2."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from engine.plan.planner import make_plan
from engine.spec.spec import ModelSpec
from tests.support import toy_models
from tests.support.plans import machine
from tests.support.toy_models import Toy
from tests.unit.test_spec import Change, read, refusal, reshaped, said, typed, unsaid, without


def sibling(architecture: str, **metadata: Any) -> Toy:
    """dots1 and bailingmoe2 are GLM-4.5 with head norms and usual names."""
    toy = toy_models.glm4moe()
    toy.architecture = architecture
    toy.metadata |= metadata
    toy.tensors = {
        name.replace("post_attention_norm", "ffn_norm"): shape
        for name, shape in toy.tensors.items()
        if not (name.endswith(".bias") and "attn" in name)
    }
    for layer in range(4):
        toy.tensors |= {f"blk.{layer}.attn_{which}_norm.weight": (16,) for which in "qk"}
    return toy


def wider(toy: Toy, width: int) -> Toy:
    """The same with shared experts of this width."""
    for name in toy.tensors:
        if "_shexp" in name:
            toy.tensors[name] = (64, width) if "down" in name else (width, 64)
    return toy


def fused(toy: Toy, layers: int) -> Toy:
    """The same with one matrix for queries, keys and values in the first layers."""
    for layer in range(layers):
        for part in "qkv":
            del toy.tensors[f"blk.{layer}.attn_{part}.weight"]
        toy.tensors[f"blk.{layer}.attn_qkv.weight"] = (128, 64)
    return toy


def routed(spec: ModelSpec) -> tuple[str, bool, float, bool]:
    assert spec.native, spec.unsupported
    assert spec.moe is not None
    routing = spec.moe.to_routing()
    return routing.gating, routing.normalise, routing.scale, spec.moe.bias


def test_glm_in_its_metadata(tmp_path: Path) -> None:
    spec = read(toy_models.glm4moe(), tmp_path)
    assert routed(spec) == ("sigmoid", True, 2.5, True)
    assert (spec.layers, spec.extra_layers, spec.moe_layers) == (3, 1, 2)
    assert spec.moe is not None and (spec.moe.shared_width, spec.moe.shared_gate) == (32, False)
    assert spec.qkv_bias and spec.qk_norm == "" and spec.ffn_norm == "post_attention_norm"
    assert (spec.rope.dim, spec.rope.interleaved, spec.ffn) == (8, False, 192)


def test_glm_has_head_norms_where_its_file_has_them(tmp_path: Path) -> None:
    toy = toy_models.glm4moe()
    for layer in range(3):
        toy.tensors |= {f"blk.{layer}.attn_{which}_norm.weight": (16,) for which in "qk"}
    assert read(toy, tmp_path).qk_norm == "head"
    del toy.tensors["blk.2.attn_k_norm.weight"]
    assert "blk.2.attn_k_norm.weight is missing" in refusal(toy, tmp_path)


def test_glms_defaults_are_llama_cpps(tmp_path: Path) -> None:
    toy = toy_models.glm4moe()
    for key in ("expert_gating_func", "expert_weights_norm", "expert_weights_scale"):
        del toy.metadata[key]
    assert routed(read(toy, tmp_path)) == ("sigmoid", False, 1.0, True)


def test_a_block_for_further_tokens_takes_no_memory(tmp_path: Path) -> None:
    toy = toy_models.glm4moe()
    whole = read(toy, tmp_path)
    toy.tensors = {name: shape for name, shape in toy.tensors.items() if "blk.3." not in name}
    toy.metadata |= {"block_count": 3, "nextn_predict_layers": 0}
    alone = read(toy, tmp_path)
    assert whole.groups["unused"].parameters > 64 * 128
    used = {group: size for group, size in whole.groups.items() if group != "unused"}
    assert dataclasses.replace(whole, extra_layers=0, groups=used) == alone
    assert make_plan(whole, machine(16)) == make_plan(alone, machine(16))


def test_a_block_for_further_tokens_may_be_absent_or_stored_in_another_form(tmp_path: Path) -> None:
    absent = toy_models.glm4moe()
    absent.tensors = {name: shape for name, shape in absent.tensors.items() if "blk.3." not in name}
    assert read(absent, tmp_path).native
    assert read(fused(toy_models.glm4moe(), 3), tmp_path).fused_qkv


def test_fused_projections_with_biases_apart_or_fused(tmp_path: Path) -> None:
    apart = fused(toy_models.glm4moe(), 3)
    spec = read(apart, tmp_path)
    assert spec.native and spec.qkv_bias and spec.fused_qkv and not spec.fused_qkv_bias
    for layer in range(3):
        for part in "qkv":
            del apart.tensors[f"blk.{layer}.attn_{part}.bias"]
        apart.tensors[f"blk.{layer}.attn_qkv.bias"] = (128,)
    spec = read(apart, tmp_path)
    assert spec.native and spec.qkv_bias and spec.fused_qkv_bias


def test_minimax_in_its_metadata(tmp_path: Path) -> None:
    toy = toy_models.minimax_m2()
    # Keys that llama.cpp does not read for it change nothing.
    toy.metadata |= {"expert_weights_scale": 3.0, "expert_weights_norm": False}
    toy.metadata |= {"leading_dense_block_count": 1, "expert_shared_count": 1}
    spec = read(toy, tmp_path)
    assert routed(spec) == ("sigmoid", True, 1.0, True)
    assert spec.qk_norm == "all" and spec.moe_layers == 2 and spec.rope.dim == 8
    assert spec.moe is not None and (spec.moe.width, spec.moe.shared_width) == (32, 0)


def test_dots_in_its_metadata(tmp_path: Path) -> None:
    spec = read(wider(sibling("dots1", expert_shared_count=2), 64), tmp_path)
    assert routed(spec) == ("sigmoid", True, 2.5, True)
    assert spec.moe is not None and spec.moe.shared_width == 64
    assert spec.qk_norm == "head" and not spec.qkv_bias and spec.ffn_norm == "ffn_norm"


def test_lings_shared_experts_have_a_width_of_their_own(tmp_path: Path) -> None:
    groups = {"expert_group_count": 4, "expert_group_used_count": 2}
    toy = sibling("bailingmoe2", expert_shared_feed_forward_length=48, **groups)
    spec = read(fused(wider(toy, 48), 3), tmp_path)
    assert spec.native and spec.moe is not None
    assert (spec.moe.shared_width, spec.moe.groups, spec.moe.top_groups) == (48, 4, 2)


def test_exaones_windows_turn_and_its_other_layers_do_not(tmp_path: Path) -> None:
    window = {"attention.sliding_window": 24, "rope.freq_base": 1e6, "expert_shared_count": 2}
    toy = sibling("exaone-moe", **window, expert_shared_feed_forward_length=48)
    spec = read(wider(toy, 48), tmp_path)
    assert spec.moe is not None and spec.moe.shared_width == 48  # of all shared experts together
    assert spec.native and [spec.kind(layer) for layer in range(3)] == ["window"] * 3
    toy.metadata["attention.sliding_window_pattern"] = 2
    spec = read(toy, tmp_path)
    assert [spec.kind(layer) for layer in range(3)] == ["window", "full", "window"]
    full, windowed = (spec.attention(kind).rope for kind in ("full", "window"))
    assert set(full.frequencies()) == {0.0} and full.magnitude == 1.0
    assert windowed.frequencies()[0] == 1.0 and windowed.base == 1e6
    toy.metadata["rope.freq_base_swa"] = 1e4
    assert read(toy, tmp_path).attention("window").rope.base == 1e4


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K", "F16"])
def test_a_router_may_be_quantised(tmp_path: Path, kind: str) -> None:
    toy = toy_models.qwen3moe(hidden=256)
    toy.types["blk.1.ffn_gate_inp.weight"] = kind
    assert read(toy, tmp_path).native


@pytest.mark.parametrize(
    ("make", "change", "words"),
    [
        ("glm4moe", without("blk.1.exp_probs_b.bias"), "exp_probs_b.bias is missing"),
        ("glm4moe", without("blk.0.post_attention_norm.weight"), "attention_norm.weight is miss"),
        ("glm4moe", without("blk.2.attn_k.bias"), "blk.2.attn_k.bias is missing"),
        ("glm4moe", without("blk.1.ffn_up_shexp.weight"), "ffn_up_shexp.weight is missing"),
        ("glm4moe", reshaped("blk.1.attn_q.bias", 32), "[32], not [64]"),
        ("glm4moe", typed("blk.1.exp_probs_b.bias", "F64"), "is stored as F64"),
        ("glm4moe", said("nextn_predict_layers", 4), "nextn_predict_layers is 4"),
        ("glm4moe", said("leading_dense_block_count", 4), "leading_dense_block_count is 4"),
        ("glm4moe", said("rope.dimension_count", 18), "More features are rotated"),
        ("glm4moe", said("expert_shared_count", 2000), "expert_shared_count is 2000"),
        ("minimax_m2", unsaid("expert_gating_func"), "expert_gating_func is missing"),
        ("minimax_m2", said("expert_gating_func", 0), "expert_gating_func is missing"),
        ("minimax_m2", said("expert_gating_func", 5), "expert_gating_func is 5"),
        ("minimax_m2", reshaped("blk.0.attn_q_norm.weight", 16), "[16], not [64]"),
        ("minimax_m2", reshaped("blk.1.attn_k_norm.weight", 64), "[64], not [32]"),
        ("minimax_m2", without("blk.1.exp_probs_b.bias"), "exp_probs_b.bias is missing"),
        ("minimax_m2", said("feed_forward_length", 64), "[8, 64, 32], not [8, 64, 64]"),
    ],
)
def test_a_lie_of_a_family_is_named(tmp_path: Path, make: str, change: Change, words: str) -> None:
    toy: Toy = getattr(toy_models, make)()
    change(toy)
    assert words in refusal(toy, tmp_path)


@pytest.mark.parametrize("architecture", ["dots1", "bailingmoe2"])
def test_how_experts_are_chosen_must_be_said(tmp_path: Path, architecture: str) -> None:
    toy = sibling(architecture)
    del toy.metadata["expert_gating_func"]
    assert "expert_gating_func is missing" in refusal(toy, tmp_path)


def test_another_choice_of_experts_is_left_to_llama_cpp(tmp_path: Path) -> None:
    toy = toy_models.glm4moe()
    toy.metadata["expert_gating_func"] = 4
    assert "chosen in another way" in read(toy, tmp_path).unsupported
