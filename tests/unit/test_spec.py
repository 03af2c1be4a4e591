"""The spec: arithmetic of known models, every rule of llama.cpp's, and files that lie."""

from __future__ import annotations

import dataclasses
import math
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import KtchatError, ModelFileError, UnsupportedModelError
from engine.gguf.file import GGUFFile
from engine.spec.architectures import is_native
from engine.spec.reader import read_spec
from engine.spec.rope import RopeSpec
from engine.spec.spec import ModelSpec
from tests.support import tiny, toy_models
from tests.support.toy_models import Toy
from tests.unit.test_gguf import mutate

Change = Callable[[Toy], Any]


def read(toy: Toy, folder: Path) -> ModelSpec:
    with GGUFFile.open(toy.write(folder)) as file:
        return read_spec(file)


def refusal(toy: Toy, folder: Path, kind: type[KtchatError] = ModelFileError) -> str:
    with pytest.raises(kind) as caught:
        read(toy, folder)
    error = caught.value
    assert type(error) is kind and error.todo and "toy.gguf" in str(error)
    return str(error)


# Known models, in numbers that their makers published.


def test_qwen3_30b_a3b_in_numbers(tmp_path: Path) -> None:
    toy = toy_models.qwen3moe(48, 2048, 32, 4, 128, 128, 8, 768, 151936, 40960)
    toy.matrix_type = "Q4_K"
    spec = read(toy, tmp_path)
    assert spec.native and spec.moe_layers == 48
    assert spec.parameters == pytest.approx(30.5e9, rel=0.005)
    # Published: 3.3 billion active, the embedding included.
    assert spec.active_parameters + spec.vocab * spec.hidden == pytest.approx(3.35e9, rel=0.01)
    assert spec.kv_bytes_per_token == 48 * 4 * 256 * 2
    matrices = spec.parameters - spec.groups["norms"].parameters
    assert spec.weights_bytes == pytest.approx(matrices * 144 / 256, rel=0.005)


def test_deepseek_v3_in_numbers(tmp_path: Path) -> None:
    sizes = (61, 7168, 128, 3, 18432, 256, 8, 2048, 1, 1536, 512, 128, 64, 128, 129280, 163840)
    toy = toy_models.deepseek2(*sizes)
    toy.matrix_type = "Q8_0"
    toy.metadata |= {"expert_group_count": 8, "expert_group_used_count": 4}
    spec = read(toy, tmp_path)
    assert spec.native
    assert spec.parameters == pytest.approx(671e9, rel=0.002)
    assert spec.active_parameters + spec.vocab * spec.hidden == pytest.approx(37.5e9, rel=0.02)
    assert spec.kv_bytes_per_token == 70272
    assert (spec.head_dim, spec.value_dim, spec.kv_heads) == (192, 128, 1)


def test_mixtral_8x7b_in_numbers(tmp_path: Path) -> None:
    toy = toy_models.llama(32, 4096, 32, 8, 14336, 32000, 8, 2, 32768)
    toy.matrix_type = "Q8_0"
    spec = read(toy, tmp_path)
    assert spec.parameters == pytest.approx(46.7e9, rel=0.002)
    assert spec.active_parameters == pytest.approx(12.8e9, rel=0.01)
    assert spec.moe is not None and spec.moe.width == 14336 and spec.ffn == 0


def test_groups_hold_every_byte_once(tmp_path: Path) -> None:
    path = toy_models.deepseek2().write(tmp_path)
    with GGUFFile.open(path) as file:
        spec = read_spec(file)
        assert sum(size.bytes for size in spec.groups.values()) == file.weights_bytes
    groups = {group: size.parameters for group, size in spec.groups.items()}
    assert groups["experts"] == 2 * 8 * 3 * 64 * 32
    assert groups["shared"] == 2 * 3 * 64 * 32
    assert groups["router"] == 2 * (8 * 64 + 8)
    assert groups["dense"] == 3 * 64 * 96
    assert groups["embedding"] == groups["output"] == 96 * 64
    assert set(groups) == {*groups} - {"other", "unused"}


def test_active_bytes_count_what_a_token_reads(tmp_path: Path) -> None:
    spec = read(toy_models.qwen3moe(), tmp_path)
    sizes = {group: size.bytes for group, size in spec.groups.items()}
    read_always = sizes["attention"] + sizes["router"] + sizes["norms"] + sizes["output"]
    assert spec.active_bytes_per_token == read_always + sizes["experts"] // 4 + 64 * 4
    tied = toy_models.qwen3moe()
    del tied.tensors["output.weight"]
    assert read(tied, tmp_path).active_bytes_per_token == read_always + sizes["experts"] // 4


# Fields.


@pytest.mark.parametrize(("architecture", "variant"), tiny.MODELS)
def test_every_tiny_model_is_native(tmp_path: Path, architecture: str, variant: str) -> None:
    with GGUFFile.open(tiny.tiny_model(architecture, tmp_path, variant=variant)) as file:
        spec = read_spec(file)
    assert spec.native, spec.unsupported
    assert spec.name == f"tiny {architecture} {variant}"
    assert spec.template and spec.context == 1024


def test_routing_per_architecture(tmp_path: Path) -> None:
    made = {}
    for toy in (toy_models.qwen3moe(), toy_models.qwen2moe(), toy_models.llama(experts=4, top_k=2)):
        spec = read(toy, tmp_path)
        assert spec.native, spec.unsupported
        assert spec.moe is not None and not spec.moe.bias
        made[toy.architecture] = spec.moe.to_routing()
    assert made["qwen3moe"].normalise and made["llama"].normalise
    assert not made["qwen2moe"].normalise
    assert {routing.gating for routing in made.values()} == {"softmax"}
    assert {routing.scale for routing in made.values()} == {1.0}


def test_routing_of_deepseek(tmp_path: Path) -> None:
    toy = toy_models.deepseek2()
    toy.metadata |= {"expert_group_count": 4, "expert_group_used_count": 2}
    moe = read(toy, tmp_path).moe
    assert moe is not None and moe.bias and moe.leading_dense == 1 and moe.shared_width == 32
    routing = moe.to_routing()
    assert (routing.gating, routing.scale, routing.normalise) == ("sigmoid", 2.5, True)
    assert (routing.groups, routing.top_groups, routing.top_k) == (4, 2, 2)


def test_deepseek_defaults_are_those_of_old_files(tmp_path: Path) -> None:
    toy = toy_models.deepseek2()
    for key in ("expert_gating_func", "expert_weights_norm", "expert_weights_scale"):
        del toy.metadata[key]
    moe = read(toy, tmp_path).moe
    assert moe is not None
    assert (moe.gating, moe.normalise, moe.scale) == ("softmax", False, 1.0)


def test_layers_tell_the_lite_models_without_query_compression(tmp_path: Path) -> None:
    toy = toy_models.deepseek2(layers=27, q_lora=0)
    toy.metadata["attention.q_lora_rank"] = 1536
    spec = read(toy, tmp_path)
    assert spec.native and spec.mla is not None and spec.mla.q_lora == 0


def test_both_forms_of_latent_projections(tmp_path: Path) -> None:
    split, joined = (read(toy_models.deepseek2(split=split), tmp_path) for split in (True, False))
    assert split.native and joined.native
    assert split.mla is not None and joined.mla is not None
    assert split.mla.split and not joined.mla.split
    assert dataclasses.replace(split.mla, split=False) == joined.mla
    assert split.softmax_scale == joined.softmax_scale == 1 / math.sqrt(24)


def test_shared_experts_of_qwen2moe(tmp_path: Path) -> None:
    spec = read(toy_models.qwen2moe(), tmp_path)
    assert spec.qkv_bias and not spec.qk_norm
    assert spec.moe is not None and spec.moe.shared_gate and spec.moe.shared_width == 48


def test_layers_for_further_tokens_are_left_out(tmp_path: Path) -> None:
    toy = toy_models.deepseek2()
    toy.metadata["block_count"] = 4
    toy.metadata["nextn_predict_layers"] = 1
    toy.tensors["blk.3.nextn.eh_proj.weight"] = (64, 128)
    spec = read(toy, tmp_path)
    assert spec.native and (spec.layers, spec.extra_layers) == (3, 1)
    assert spec.groups["unused"].parameters == 64 * 128
    assert spec.weights_bytes == sum(
        size.bytes for group, size in spec.groups.items() if group != "unused"
    )


def test_the_quantisation_has_a_name(tmp_path: Path) -> None:
    toy = toy_models.qwen3moe()
    toy.matrix_type = "Q8_0"
    assert read(toy, tmp_path).quantisation == "Q8_0"
    toy.metadata["general.file_type"] = 15
    assert read(toy, tmp_path).quantisation == "Q4_K_M"


def test_a_model_without_a_name_is_called_as_its_file(tmp_path: Path) -> None:
    assert read(toy_models.qwen3moe(), tmp_path).name == "toy"


# Rope.


def test_plain_rope_turns_by_powers_of_its_base(tmp_path: Path) -> None:
    spec = read(toy_models.qwen3moe(), tmp_path)
    rope = spec.rope.to_rope()
    assert rope.frequencies == pytest.approx([1e6 ** (-2 * i / 16) for i in range(8)])
    assert (rope.interleaved, rope.magnitude, rope.offset) == (False, 1.0, 0)


def test_linear_scaling_divides_the_angles() -> None:
    plain, linear = RopeSpec(64), RopeSpec(64, scaling="linear", factor=4.0)
    assert linear.frequencies() == pytest.approx([value / 4 for value in plain.frequencies()])
    assert linear.magnitude == 1.0
    none = RopeSpec(64, scaling="none", factor=4.0)
    assert none.frequencies() == plain.frequencies()


def ggml_rope(spec: RopeSpec, position: int) -> list[tuple[float, float]]:
    """cos and sin as ggml's rope_yarn computes them, in its order and its float32."""
    f32 = np.float32
    scale = f32(1) / f32(spec.factor)
    extrapolate = f32(1) if spec.scaling == "yarn" else f32(0)
    mscale = f32(1)
    if extrapolate:
        mscale = f32(1) / (f32(1) + f32(0.1) * np.log(f32(spec.factor)))
        if not spec.log_multiplier:
            mscale *= f32(1) + f32(0.1) * np.log(f32(spec.factor))
    mscale *= f32(spec.attention_factor)

    def corrected(turns: float) -> np.float32:
        span = f32(spec.original_context) / (f32(turns) * 2 * f32(math.pi))
        return f32(spec.dim) * np.log(span) / (2 * np.log(f32(spec.base)))

    low = max(f32(0), np.floor(corrected(32))) if extrapolate else f32(0)
    high = min(f32(spec.dim - 1), np.ceil(corrected(1))) if extrapolate else f32(0)
    step = f32(spec.base) ** f32(-2 / spec.dim)
    theta, out = f32(position), []
    for pair in range(spec.dim // 2):
        full = theta / f32(spec.factors[pair]) if spec.factors else theta
        angle, magnitude = scale * full, mscale
        if extrapolate:
            y = (f32(pair) - low) / max(f32(0.001), high - low)
            mix = (f32(1) - min(f32(1), max(f32(0), y))) * extrapolate
            angle = angle * (f32(1) - mix) + full * mix
            magnitude = mscale * (f32(1) + f32(0.1) * np.log(f32(1) / scale))
        out.append((float(np.cos(angle) * magnitude), float(np.sin(angle) * magnitude)))
        theta *= step
    return out


@pytest.mark.parametrize(
    "spec",
    [
        RopeSpec(64, 10000.0),
        RopeSpec(128, 1e6, scaling="linear", factor=2.5),
        RopeSpec(64, 10000.0, True, "yarn", 40.0, 4096, log_multiplier=0.0707),
        RopeSpec(64, 10000.0, True, "yarn", 40.0, 4096, log_multiplier=0.1),
        RopeSpec(64, 50000.0, True, "yarn", 32.0, 4096, log_multiplier=0.1),
        RopeSpec(128, 1e6, False, "yarn", 4.0, 32768),
        RopeSpec(128, 1e6, False, "yarn", 4.0, 32768, attention_factor=1.25),
        RopeSpec(16, 500000.0, True, factors=(1.0, 1.0, 1.5, 2.0, 4.0, 8.0, 8.0, 8.0)),
    ],
    ids=lambda spec: f"{spec.scaling}-{spec.factor:g}-{spec.log_multiplier:g}",
)
def test_rope_is_ggmls(spec: RopeSpec) -> None:
    rope = spec.to_rope()
    for position in (0, 1, 17, 300):
        ours = [
            (math.cos(position * f) * rope.magnitude, math.sin(position * f) * rope.magnitude)
            for f in rope.frequencies
        ]
        assert np.allclose(ours, ggml_rope(spec, position), atol=1e-4)


def test_gpt_oss_does_not_round_the_ramp_of_yarn() -> None:
    rope = RopeSpec(64, 150000.0, False, "yarn", 32.0, 4096, whole_pairs=False)
    assert rope._corrected_pairs() == pytest.approx((8.09278, 17.39802), abs=1e-4)
    rounded = dataclasses.replace(rope, whole_pairs=True)
    assert rounded._corrected_pairs() == (8, 18)


@pytest.mark.parametrize(("multiplier", "mscale"), [(0.0707, 0.707), (0.1, 1.0)])
def test_deepseeks_score_scale(tmp_path: Path, multiplier: float, mscale: float) -> None:
    toy = toy_models.deepseek2()
    toy.metadata |= {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 40.0,
        "rope.scaling.original_context_length": 4096,
        "rope.scaling.yarn_log_multiplier": multiplier,
    }
    spec = read(toy, tmp_path)
    wanted = (0.1 * mscale * math.log(40) + 1) ** 2 / math.sqrt(24)
    assert spec.softmax_scale == pytest.approx(wanted, rel=1e-6)
    assert spec.rope.magnitude == pytest.approx(1.0, rel=1e-6)


def test_rope_factors_come_from_their_tensor(tmp_path: Path) -> None:
    with GGUFFile.open(tiny.tiny_model("llama", tmp_path, variant="rope-freqs")) as file:
        spec = read_spec(file)
        assert spec.rope.has_factors
        values = file.tensor("rope_freqs.weight").data.view(np.float32)
    assert spec.rope.factors == pytest.approx(values.tolist())


# Files that lie.


def without(name: str) -> Change:
    return lambda toy: toy.tensors.pop(name)


def reshaped(name: str, *shape: int) -> Change:
    return lambda toy: toy.tensors.update({name: shape})


def typed(name: str, kind: str) -> Change:
    return lambda toy: toy.types.update({name: kind})


def said(key: str, value: Any) -> Change:
    return lambda toy: toy.metadata.update({key: value})


def unsaid(key: str) -> Change:
    return lambda toy: toy.metadata.pop(key)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("blk.1.attn_k.weight"), "blk.1.attn_k.weight is missing"),
        (without("output_norm.weight"), "output_norm.weight is missing"),
        (without("blk.0.attn_q_norm.weight"), "blk.0.attn_q_norm.weight is missing"),
        (without("blk.1.ffn_up_exps.weight"), "blk.1.ffn_up_exps.weight is missing"),
        (reshaped("blk.0.attn_q.weight", 64, 128), "[64, 128], not [64, 64]"),
        (reshaped("token_embd.weight", 32, 64), "[32, 64], not [96, 64]"),
        (reshaped("blk.1.ffn_gate_inp.weight", 64, 8), "[64, 8], not [8, 64]"),
        (reshaped("blk.1.ffn_down_exps.weight", 8, 32, 64), "[8, 32, 64], not [8, 64, 32]"),
        (reshaped("blk.0.attn_norm.weight", 32), "[32], not [64]"),
        (reshaped("blk.0.attn_norm.weight", 64, 1), "[64, 1], not [64]"),
        (typed("blk.1.ffn_gate_inp.weight", "F64"), "blk.1.ffn_gate_inp.weight is stored as F64"),
        (typed("blk.1.ffn_gate_inp.weight", "I8"), "ffn_gate_inp.weight is stored as I8"),
        (typed("blk.0.attn_norm.weight", "Q8_0"), "attn_norm.weight is stored as Q8_0"),
        (typed("blk.0.attn_q.weight", "F64"), "attn_q.weight is stored as F64"),
        (typed("blk.0.attn_q.weight", "Q8_1"), "attn_q.weight is stored as Q8_1"),
        (typed("blk.0.attn_q.weight", "I32"), "attn_q.weight is stored as I32"),
        (typed("token_embd.weight", "I8"), "token_embd.weight is stored as I8"),
        (unsaid("block_count"), "qwen3moe.block_count is missing"),
        (unsaid("context_length"), "qwen3moe.context_length is missing"),
        (unsaid("attention.layer_norm_rms_epsilon"), "rms_epsilon is missing"),
        (unsaid("attention.head_count"), "no attention heads"),
        (said("block_count", 0), "block_count is 0"),
        (said("block_count", 4000000000), "block_count is 4000000000"),
        (said("block_count", "two"), "block_count is two"),
        (said("block_count", 3), "blk.2.attn_norm.weight is missing"),
        (said("nextn_predict_layers", 2), "nextn_predict_layers is 2"),
        (said("attention.head_count", 3), "KV heads do not divide"),
        (said("attention.head_count_kv", 0), "no attention heads"),
        (said("attention.key_length", 14), "differ in length"),
        (said("attention.value_length", 32), "differ in length"),
        (said("rope.dimension_count", 32), "More features are rotated"),
        (said("attention.layer_norm_rms_epsilon", -1.0), "rms_epsilon is -1"),
        (said("attention.layer_norm_rms_epsilon", math.nan), "is nan"),
        (said("rope.freq_base", 0.0), "rope.freq_base is 0"),
        (said("rope.scaling.type", "zigzag"), "rope.scaling.type is zigzag"),
        (said("rope.scaling.factor", -2.0), "rope.scaling.factor is -2"),
        (said("rope.scaling.factor", 1e-9), "rope.scaling.factor is 1e-09"),
        (said("expert_count", 0), "expert_used_count is 2"),
        (said("expert_count", 70000), "expert_count is 70000"),
        (said("expert_used_count", 9), "expert_used_count is 9"),
        (said("expert_used_count", 0), "expert_used_count is 0"),
        (said("expert_used_count", [2, 2, 2]), "has 3 values for 2 layers"),
        (said("expert_group_count", 3), "expert_group_used_count is missing"),
        (said("expert_group_count", 8), "expert_group_count is 8"),
        (said("context_length", 0), "context_length is 0"),
        (said("embedding_length", 0), "embedding_length is 0"),
        (said("vocab_size", 4000000), "not [4000000, 64]"),
    ],
)
def test_a_lie_is_named(tmp_path: Path, change: Change, words: str) -> None:
    toy = toy_models.qwen3moe()
    change(toy)
    assert words in refusal(toy, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("blk.0.attn_kv_a_norm.weight"), "attn_kv_a_norm.weight is missing"),
        (without("blk.2.attn_v_b.weight"), "blk.2.attn_v_b.weight is missing"),
        (without("blk.1.exp_probs_b.bias"), "blk.1.exp_probs_b.bias is missing"),
        (without("blk.0.ffn_up.weight"), "blk.0.ffn_up.weight is missing"),
        (typed("blk.1.exp_probs_b.bias", "F64"), "exp_probs_b.bias is stored as F64"),
        (unsaid("attention.value_length_mla"), "needs value_length_mla"),
        (unsaid("attention.kv_lora_rank"), "kv_lora_rank is missing"),
        (said("rope.dimension_count", 24), "leave no others"),
        (said("rope.dimension_count", 7), "is odd"),
        (said("leading_dense_block_count", 4), "leading_dense_block_count is 4"),
        (said("expert_gating_func", 9), "expert_gating_func is 9"),
        (said("expert_weights_scale", math.inf), "is inf"),
        (said("expert_shared_count", 5000), "expert_shared_count is 5000"),
    ],
)
def test_a_lie_of_a_latent_model_is_named(tmp_path: Path, change: Change, words: str) -> None:
    toy = toy_models.deepseek2()
    change(toy)
    assert words in refusal(toy, tmp_path)


@pytest.mark.parametrize(("groups", "used"), [(3, 2), (8, 1), (4, 4), (4, 0), (4, 1)])
def test_groups_must_go_with_experts(tmp_path: Path, groups: int, used: int) -> None:
    toy = toy_models.deepseek2(top_k=3)
    toy.metadata |= {"expert_group_count": groups, "expert_group_used_count": used}
    assert "expert_group" in refusal(toy, tmp_path)


def test_rope_factors_must_divide(tmp_path: Path) -> None:
    toy = toy_models.llama()
    toy.tensors["rope_freqs.weight"] = (8,)
    assert "divides by zero" in refusal(toy, tmp_path)


def test_a_router_in_float64_is_refused_whatever_the_architecture(tmp_path: Path) -> None:
    toy = toy_models.qwen3moe()
    toy.architecture = "granitemoe"
    assert not read(toy, tmp_path).native
    toy.types["blk.0.ffn_gate_inp.weight"] = "F64"
    message = refusal(toy, tmp_path)
    assert "blk.0.ffn_gate_inp.weight is stored as F64" in message
    assert "Use another version" in message


def test_a_short_tensor_is_never_trusted(tmp_path: Path) -> None:
    path = toy_models.qwen3moe().write(tmp_path)
    with path.open("r+b") as stream:
        stream.truncate(path.stat().st_size - 64)
    with pytest.raises(ModelFileError, match="incomplete"):
        GGUFFile.open(path)


# What is not ours.


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (reshaped("blk.0.attn_output.bias", 64), "blk.0.attn_output.bias"),
        (reshaped("blk.1.attn_qkv.weight", 128, 64), "blk.1.attn_qkv.weight"),
        (reshaped("blk.0.ffn_gate_exps.scale", 8), "blk.0.ffn_gate_exps.scale"),
        (reshaped("rope_factors_long.weight", 8), "rope_factors_long.weight"),
        (said("rope.scaling.type", "longrope"), "LongRoPE"),
        (said("attention.head_count_kv", [2, 1]), "differs from layer to layer"),
    ],
)
def test_what_we_do_not_run_is_left_to_llama_cpp(
    tmp_path: Path, change: Change, words: str
) -> None:
    toy = toy_models.llama(experts=4, top_k=2)
    change(toy)
    spec = read(toy, tmp_path)
    assert not spec.native and words in spec.unsupported


def test_a_foreign_architecture_has_a_spec(tmp_path: Path) -> None:
    toy = toy_models.qwen3moe()
    toy.architecture = "brandnew"
    spec = read(toy, tmp_path)
    assert not spec.native and not is_native("brandnew") and is_native("deepseek2")
    assert (spec.layers, spec.hidden, spec.heads, spec.context) == (2, 64, 4, 512)
    assert spec.moe is not None and spec.moe.top_k == 2
    assert spec.active_bytes_per_token < spec.weights_bytes
    assert spec.kv_bytes_per_token == 2 * 2 * 2 * 32


def test_foreign_heads_may_differ_from_layer_to_layer(tmp_path: Path) -> None:
    toy = toy_models.llama()
    toy.architecture = "deci"
    toy.metadata["attention.head_count_kv"] = [2, 0]
    assert read(toy, tmp_path).kv_bytes_per_token == 2 * 2 * 32


def test_mutated_models_give_a_spec_or_a_typed_error(tmp_path: Path) -> None:
    rng = random.Random(11)
    toys = (toy_models.deepseek2(1, 8, 2, 0, 8, 4, 2, 4, 1, 4, 4, 4, 2, 4, 8), toy_models.llama(1))
    whole = [toy.write(tmp_path).read_bytes() for toy in toys]
    path = tmp_path / "mutant.gguf"
    outcomes = {"spec": 0, "error": 0}
    for number in range(1500):
        data = whole[number % 2]
        head = data[: len(data) // 2] if number % 2 == 0 else data[:4096]
        path.write_bytes(mutate(rng, head) + data[len(head) :])
        try:
            with GGUFFile.open(path) as file:
                spec = read_spec(file)
                assert spec.active_bytes_per_token >= 0
                if spec.native:
                    assert all(math.isfinite(value) for value in spec.rope.frequencies())
            outcomes["spec"] += 1
        except (ModelFileError, UnsupportedModelError):
            outcomes["error"] += 1
    assert min(outcomes.values()) > 30


def test_a_spec_needs_no_torch_and_no_llama_cpp() -> None:
    script = (
        "import sys, engine.spec.spec, engine.spec.reader, engine.gguf.file\n"
        "assert not {'torch', 'llama_cpp', 'jinja2', 'gguf'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])
