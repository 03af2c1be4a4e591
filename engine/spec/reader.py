"""From a GGUF file's metadata to a `ModelSpec`, with llama.cpp's keys, defaults and rules.

The keys are those of `llama-arch.cpp`, their meaning that of `src/models/*.cpp`. Every number is
bounded here; tensors are checked in `engine.spec.tensors`.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal, cast, get_args

import numpy as np

from engine.errors import ModelFileError
from engine.gguf.file import GGUFFile, LazyArray
from engine.gguf.header import DOWNLOAD, shown
from engine.spec.features import check_native, missing_feature
from engine.spec.metadata import (
    FILE_TYPES,
    MAX_CONTEXT,
    MAX_EXPERTS,
    MAX_HEADS,
    MAX_LAYERS,
    MAX_VOCAB,
    MAX_WIDTH,
    Keys,
)
from engine.spec.other_files import refuse_other_files
from engine.spec.recurrent import delta_layout, delta_net, has_in_a_layer
from engine.spec.rope import RopeSpec, Scaling
from engine.spec.spec import ARCHITECTURES, Architecture, MlaSpec, ModelSpec, MoeSpec
from engine.spec.tensors import check_tensors, check_types, tensor_sizes

MAX_FACTORS = 4096


def read_spec(file: GGUFFile) -> ModelSpec:
    """The spec of an open file, whose tensors are checked on the way.

    Raises `ModelFileError` when the file lies or misses something, `UnsupportedModelError` when
    it holds no language model that can talk, or one in types that only others read.
    """
    name = file.string("general.architecture")
    refuse_other_files(file, name)
    keys = Keys(file, name)
    spec = _shape(keys, ARCHITECTURES.get(name, Architecture()))
    check_types(file, name in ARCHITECTURES)
    if name not in ARCHITECTURES:
        unsupported = "its architecture is not one of ours"
    else:
        check_native(keys, spec)
        unsupported = missing_feature(keys, spec) or check_tensors(file, spec)
        if unsupported:
            check_types(file, native=False)
    sizes = tensor_sizes(file, spec)
    return dataclasses.replace(
        spec,
        unsupported=unsupported,
        groups=sizes.groups,
        layer_groups=sizes.layers,
        name=_name(file),
    )


def _name(file: GGUFFile) -> str:
    value = file.metadata.get("general.name")
    return value if isinstance(value, str) and value.strip() else file.path.stem


def _shape(keys: Keys, known: Architecture) -> ModelSpec:
    """Everything but names and tensors; with guesses for architectures that are not ours."""
    file = keys.file
    total = keys.number("block_count", 1, MAX_LAYERS)
    extra = keys.number("nextn_predict_layers", 0, total - 1, 0)
    layers = total - extra
    hidden = keys.number("embedding_length", 1, MAX_WIDTH)
    heads = max(keys.per_layer("attention.head_count", 0, MAX_HEADS, 0, total))
    kv_heads = keys.per_layer("attention.head_count_kv", 0, MAX_HEADS, heads, total)[:layers]
    usual = hidden // heads if heads else 0
    head_dim = keys.number("attention.key_length", 0, MAX_WIDTH, usual)
    value_dim = keys.number("attention.value_length", 0, MAX_WIDTH, usual)
    ffn = max(keys.per_layer("feed_forward_length", 0, MAX_WIDTH, 0, total))
    rope = _rope(keys, head_dim, known)
    mla = _mla(keys, layers, rope, head_dim, value_dim) if known.latent else None
    moe = _moe(keys, known, total, layers, ffn)
    delta, recurrent = delta_net(keys, known, layers)
    if mla is not None:
        head_dim, value_dim, kv_heads = mla.nope + mla.rope, mla.value, [1] * layers
        kv_row = layers * (mla.kv_lora + mla.rope)
    else:
        cached = [n for i, n in enumerate(kv_heads) if not (recurrent and recurrent[i])]
        kv_row = sum(cached) * (head_dim + value_dim)
    return ModelSpec(
        architecture=keys.architecture,
        name="",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=max(kv_heads),
        head_dim=head_dim,
        value_dim=value_dim,
        ffn=ffn if moe is None or moe.leading_dense else 0,
        vocab=_vocab(keys),
        context=keys.number("context_length", 1, MAX_CONTEXT),
        eps=keys.real("attention.layer_norm_rms_epsilon", 0.0, 1.0, 1e-5),
        rope=rope,
        mla=mla,
        moe=moe,
        qk_norm=known.qk_norm,
        qkv_bias=any(has_in_a_layer(file, f"attn_{part}.bias") for part in ("q", "qkv")),
        tied="output.weight" not in file.tensors,
        softmax_scale=_score_scale(rope, head_dim, known),
        quantisation=_quantisation(file),
        template=_template(file),
        extra_layers=extra,
        kv_bytes_per_token=2 * kv_row,
        delta=delta,
        recurrent=recurrent,
        attention_gate=known.attention_gate,
        ffn_norm=known.ffn_norm,
        fused_qkv=_is_fused(file, "attn_qkv", "attn_q", recurrent),
        fused_gate_up=_is_fused(file, "ffn_gate_up_exps", "ffn_gate_exps"),
        delta_layout=delta_layout(file),
    )


def _is_fused(file: GGUFFile, fused: str, part: str, left_out: Sequence[bool] = ()) -> bool:
    """Whether one matrix holds what others hold apart; layers that are left out have another use for it."""

    def counts(layer: int) -> bool:
        return layer >= len(left_out) or not left_out[layer]

    whole = has_in_a_layer(file, f"{fused}.weight", counts)
    return whole and not has_in_a_layer(file, f"{part}.weight", counts)


def _score_scale(rope: RopeSpec, head_dim: int, known: Architecture) -> float:
    if not head_dim:
        return 0.0
    return rope.latent_scale(head_dim) if known.latent else 1.0 / math.sqrt(head_dim)


def _rope(keys: Keys, head_dim: int, known: Architecture) -> RopeSpec:
    scaling = keys.file.string(keys.path("rope.scaling.type"), "linear")
    if scaling not in get_args(Scaling):
        raise keys.fault(f"{keys.path('rope.scaling.type')} is {shown(scaling, 40)}")
    factor = 0.0
    for key in ("rope.scaling.factor", "rope.scale_linear"):
        factor = factor or keys.real(key, 0.0, 1e6, 0.0)
    if 0 < factor < 1e-3:
        raise keys.fault(f"{keys.path('rope.scaling.factor')} is {factor:g}")
    context = keys.number("context_length", 1, MAX_CONTEXT)
    original = keys.number("rope.scaling.original_context_length", 0, MAX_CONTEXT, context)
    return RopeSpec(
        dim=keys.number("rope.dimension_count", 0, MAX_WIDTH, head_dim),
        base=keys.real("rope.freq_base", 1.5, 1e15, 10000.0),
        interleaved=known.interleaved,
        scaling=cast(Scaling, scaling),
        factor=factor or 1.0,
        original_context=original or context,
        attention_factor=keys.real("rope.scaling.attn_factor", 0.0, 1e3, 1.0),
        log_multiplier=(
            keys.real("rope.scaling.yarn_log_multiplier", 0.0, 10.0, 0.0) if known.latent else 0.0
        ),
        factors=_factors(keys.file),
    )


def _factors(file: GGUFFile) -> tuple[float, ...]:
    info = file.tensors.get("rope_freqs.weight")
    if info is None or info.type.name != "F32" or info.elements > MAX_FACTORS:
        return ()
    values = file.tensor(info.name).data.view(np.float32)
    if not np.isfinite(values).all() or not (values > 1e-6).all():
        raise ModelFileError(
            f"{shown(file.path.name)} is damaged", "rope_freqs.weight divides by zero", DOWNLOAD
        )
    return tuple(float(value) for value in values)


def _mla(keys: Keys, layers: int, rope: RopeSpec, head_dim: int, value_dim: int) -> MlaSpec:
    """deepseek2.cpp: lite variants are known by their layers; old files have no *_mla keys."""
    split = keys.has("attention.key_length_mla")
    if split != keys.has("attention.value_length_mla"):
        raise keys.fault(f"{keys.path('attention.key_length_mla')} needs value_length_mla")
    if split:
        head_dim = keys.number("attention.key_length_mla", 1, MAX_WIDTH)
        value_dim = keys.number("attention.value_length_mla", 1, MAX_WIDTH)
    lite = layers in (26, 27) or (layers == 48 and _vocab(keys) == 128256)
    return MlaSpec(
        q_lora=0 if lite else keys.number("attention.q_lora_rank", 0, MAX_WIDTH, 0),
        kv_lora=keys.number("attention.kv_lora_rank", 1, MAX_WIDTH),
        nope=head_dim - rope.dim,
        rope=rope.dim,
        value=value_dim,
        split=split,
    )


def _moe(keys: Keys, known: Architecture, total: int, layers: int, ffn: int) -> MoeSpec | None:
    experts = keys.number("expert_count", 0, MAX_EXPERTS, 0)
    used = max(keys.per_layer("expert_used_count", 0, experts, 0, total))
    if (experts > 0) != (used > 0):
        raise keys.fault(f"{keys.path('expert_used_count')} is {used} of {experts} experts")
    if not experts:
        keys.number("expert_group_count", 0, 0, 0)
    if not experts or (known.experts == "never" and keys.architecture in ARCHITECTURES):
        return None
    groups, top_groups = _expert_groups(keys, experts, used)
    width = max(keys.per_layer("expert_feed_forward_length", 0, MAX_WIDTH, 0, total))
    if keys.architecture == "llama" or not width:
        width = ffn if keys.architecture == "llama" else ffn // used
    scale = keys.real("expert_weights_scale", 0.0, 1e3, 0.0) if known.latent else 1.0
    normalise = known.normalise
    if known.latent:
        normalise = keys.file.flag(keys.path("expert_weights_norm"), False)
    return MoeSpec(
        experts=experts,
        top_k=used,
        width=width,
        shared_width=_shared_width(keys, known, width, ffn),
        shared_gate=known.shared_gate,
        leading_dense=keys.number("leading_dense_block_count", 0, layers, 0) if known.latent else 0,
        gating=_gating(keys, layers) if known.latent else "softmax",
        normalise=normalise,
        scale=scale or 1.0,
        groups=groups,
        top_groups=top_groups,
        bias=any(name.endswith(".exp_probs_b.bias") for name in keys.file.tensors),
    )


def _expert_groups(keys: Keys, experts: int, used: int) -> tuple[int, int]:
    groups = keys.number("expert_group_count", 0, experts - 1, 0)
    if groups <= 1:
        return 1, 1
    top_groups = keys.number("expert_group_used_count", 1, groups - 1)
    if experts % groups or experts // groups < 2 or used > top_groups * (experts // groups):
        raise keys.fault(
            f"{keys.path('expert_group_count')}: {groups} groups, {top_groups} of them used, do not"
            f" go with {used} of {experts} experts"
        )
    return groups, top_groups


def _shared_width(keys: Keys, known: Architecture, width: int, ffn: int) -> int:
    if known.shared_gate:
        return keys.number("expert_shared_feed_forward_length", 0, MAX_WIDTH, ffn) or ffn
    if known.latent:
        return width * keys.number("expert_shared_count", 0, MAX_EXPERTS, 0)
    return 0


def _gating(keys: Keys, layers: int) -> Literal["softmax", "sigmoid"]:
    number = keys.number("expert_gating_func", 0, 4, 0)
    if number == 0:
        # GLM-4.7-Flash files were written before the key existed.
        return "sigmoid" if layers in (47, 48) and _vocab(keys) == 154880 else "softmax"
    return "sigmoid" if number == 2 else "softmax"


def _vocab(keys: Keys) -> int:
    tokens = keys.file.metadata.get("tokenizer.ggml.tokens")
    size = len(tokens) if isinstance(tokens, LazyArray) else 0
    size = size or keys.number("vocab_size", 0, MAX_VOCAB, 0)
    embedding = keys.file.tensors.get("token_embd.weight")
    return size or (embedding.shape[0] if embedding else 0)


def _quantisation(file: GGUFFile) -> str:
    number = file.metadata.get("general.file_type")
    if isinstance(number, int) and number & 1023 in FILE_TYPES:
        return FILE_TYPES[number & 1023]
    sizes: Counter[str] = Counter()
    for info in file.tensors.values():
        sizes[info.type.name] += info.nbytes
    return sizes.most_common(1)[0][0]


def _template(file: GGUFFile) -> str | None:
    value = file.metadata.get("tokenizer.chat_template")
    return value if isinstance(value, str) else None
