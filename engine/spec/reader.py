"""From a GGUF file's metadata to a `ModelSpec`, with llama.cpp's keys, defaults and rules.

The keys are those of `llama-arch.cpp`, their meaning that of `src/models/*.cpp`. Every number is
bounded here; tensors are checked in `engine.spec.tensors`.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

from engine.common.model_names import model_name
from engine.errors import UnsupportedModelError
from engine.gguf.file import GGUFFile
from engine.gguf.header import shown
from engine.spec.architectures import ARCHITECTURES, Architecture, known_architecture
from engine.spec.experts import experts_spec
from engine.spec.features import check_native, missing_feature
from engine.spec.metadata import (
    FILE_TYPES,
    MAX_CONTEXT,
    MAX_HEADS,
    MAX_LAYERS,
    MAX_WIDTH,
    Keys,
)
from engine.spec.other_files import refuse_other_files
from engine.spec.recurrent import delta_layout, delta_net, has_in_a_layer
from engine.spec.rope import RopeSpec
from engine.spec.rope_reader import read_rope
from engine.spec.spec import MlaSpec, ModelSpec
from engine.spec.tensors import check_tensors, check_types, tensor_sizes
from engine.spec.windows import window_layers, windowed
from kernels.quants import IK_TYPES

_HEADS = ("embedding_length", "attention.head_count")


def read_spec(file: GGUFFile) -> ModelSpec:
    """The spec of an open file, whose tensors are checked on the way.

    Raises `ModelFileError` when the file lies or misses something, `UnsupportedModelError` when
    it holds no language model that can talk, or one in types that only others read.
    """
    name = file.string("general.architecture")
    refuse_other_files(file, name)
    keys = Keys(file, name)
    spec = _shape(keys, known_architecture(name))
    check_types(file, name in ARCHITECTURES)
    if name not in ARCHITECTURES:
        unsupported = "its architecture is not one of ours"
    else:
        check_native(keys, spec)
        unsupported = missing_feature(keys, spec) or check_tensors(file, spec)
        if unsupported:
            check_types(file, native=False)
    ik_types = any(info.type.name in IK_TYPES for info in file.tensors.values())
    if unsupported and ik_types:
        raise UnsupportedModelError(
            f"{shown(file.path.name)} is quantised for ik_llama.cpp",
            f"Our engine cannot run it: {unsupported}; llama.cpp, which could, does not know its types",
            "Take a version in one of llama.cpp's types, such as Q4_K_M",
        )
    sizes = tensor_sizes(file, spec)
    return dataclasses.replace(
        spec,
        unsupported=unsupported,
        ik_types=ik_types,
        groups=sizes.groups,
        layer_groups=sizes.layers,
        name=model_name(file.metadata.get("general.name"), file.path.name),
    )


def _shape(keys: Keys, known: Architecture) -> ModelSpec:
    """Everything but names and tensors; with guesses for architectures that are not ours."""
    file = keys.file
    total = keys.number("block_count", 1, MAX_LAYERS)
    extra = keys.number("nextn_predict_layers", 0, total - 1, 0)
    layers = total - extra
    hidden = keys.number("embedding_length", 1, MAX_WIDTH)
    heads = max(keys.per_layer("attention.head_count", 0, MAX_HEADS, 0, total))
    windows = window_layers(keys, known, layers)
    kv_heads = keys.per_layer("attention.head_count_kv", 0, MAX_HEADS, heads, total, windows)
    kv_heads = kv_heads[:layers]
    usual = hidden // heads if heads else 0
    head_dim = keys.number("attention.key_length", 0, MAX_WIDTH, usual)
    value_dim = keys.number("attention.value_length", 0, MAX_WIDTH, usual)
    ffn = max(keys.per_layer("feed_forward_length", 0, MAX_WIDTH, 0, total))
    rope = read_rope(keys, head_dim, known)
    mla = _mla(keys, layers, rope, head_dim, value_dim) if known.latent else None
    moe = experts_spec(keys, known, total, layers, ffn)
    delta, recurrent = delta_net(keys, known, layers)
    bounded = [*recurrent] or [*windows] or [False] * layers
    cached = [n for i, n in enumerate(kv_heads) if not bounded[i]]
    kv_row = sum(cached) * (head_dim + value_dim)
    if mla is not None:
        head_dim, value_dim, cached = mla.nope + mla.rope, mla.value, [1]
        kv_row = layers * (mla.kv_lora + mla.rope)

    def has(name: str) -> bool:
        """In a layer that is run."""
        return has_in_a_layer(file, name, range(layers).__contains__)

    def attends(name: str) -> bool:
        """In a layer with attention; recurrent ones have another use for attn_qkv."""
        return has_in_a_layer(
            file, name, lambda at: at < layers and not (recurrent and recurrent[at])
        )

    spec = ModelSpec(
        architecture=keys.architecture,
        name="",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=max(cached or kv_heads),
        head_dim=head_dim,
        value_dim=value_dim,
        ffn=ffn if moe is None or moe.leading_dense or moe.dense else 0,
        vocab=keys.vocabulary,
        context=keys.number("context_length", 1, MAX_CONTEXT),
        eps=keys.real("attention.layer_norm_rms_epsilon", 0.0, 1.0, 1e-5),
        rope=rope,
        mla=mla,
        moe=moe,
        qk_norm=known.norms_of_queries(attends("attn_q_norm.weight")),
        qkv_bias=attends("attn_q.bias") or attends("attn_qkv.bias"),
        tied="output.weight" not in file.tensors,
        softmax_scale=_score_scale(keys, known, rope, head_dim, layers),
        quantisation=_quantisation(file),
        template=_template(file),
        extra_layers=extra,
        kv_bytes_per_token=2 * kv_row,
        delta=delta,
        recurrent=recurrent,
        attention_gate=known.attention_gate,
        sinks=known.sinks,
        output_bias=known.biases,
        ffn_norm=known.ffn_norm,
        post_norm=known.post_norm,
        value_norm=known.value_norm,
        activation=known.activation,
        embedding_factor=math.sqrt(hidden) if known.scaled_embedding else 1.0,
        logit_cap=keys.real("final_logit_softcapping", 0.0, 1e6, 0.0) if known.post_norm else 0.0,
        output_scales=known.post_norm and has("layer_output_scale.weight"),
        keys_are_values=known.value_norm and _keys_are_values(file, windows, False),
        fused_qkv=attends("attn_qkv.weight") and not attends("attn_q.weight"),
        fused_qkv_bias=attends("attn_qkv.bias"),
        fused_gate_up=has("ffn_gate_up_exps.weight") and not has("ffn_gate_exps.weight"),
        delta_layout=delta_layout(file),
    )
    return _with_windows(keys, known, spec, windows, kv_heads) if windows else spec


def _with_windows(
    keys: Keys,
    known: Architecture,
    spec: ModelSpec,
    windows: tuple[bool, ...],
    kv_heads: Sequence[int],
) -> ModelSpec:
    """The spec with what differs in layers that see a window."""
    in_windows = max(n for n, there in zip(kv_heads, windows, strict=True) if there)
    of = windowed(keys, known, spec.attention("full"), in_windows)
    same = known.value_norm and _keys_are_values(keys.file, windows, True)
    of = dataclasses.replace(of, keys_are_values=same)
    return dataclasses.replace(spec, windowed=of, windows=windows)


def _keys_are_values(file: GGUFFile, windows: Sequence[bool], in_windows: bool) -> bool:
    """Whether layers of a kind have keys and no values."""

    def counts(layer: int) -> bool:
        return (layer < len(windows) and windows[layer]) == in_windows

    keys, values = (has_in_a_layer(file, f"attn_{name}.weight", counts) for name in "kv")
    return keys and not values


def _score_scale(
    keys: Keys, known: Architecture, rope: RopeSpec, head_dim: int, layers: int
) -> float:
    if not head_dim or known.softmax_scale:
        return known.softmax_scale
    if layers == known.large_layers:  # gemma3.cpp: the one size that does it otherwise
        hidden, heads = (keys.number(key, 1, MAX_WIDTH) for key in _HEADS)
        return 1.0 / math.sqrt(hidden // heads)
    return rope.latent_scale(head_dim) if known.latent else 1.0 / math.sqrt(head_dim)


def _mla(keys: Keys, layers: int, rope: RopeSpec, head_dim: int, value_dim: int) -> MlaSpec:
    """deepseek2.cpp: lite variants are known by their layers; old files have no *_mla keys."""
    split = keys.has("attention.key_length_mla")
    if split != keys.has("attention.value_length_mla"):
        raise keys.fault(f"{keys.path('attention.key_length_mla')} needs value_length_mla")
    if split:
        head_dim = keys.number("attention.key_length_mla", 1, MAX_WIDTH)
        value_dim = keys.number("attention.value_length_mla", 1, MAX_WIDTH)
    lite = layers in (26, 27) or (layers == 48 and keys.vocabulary == 128256)
    return MlaSpec(
        q_lora=0 if lite else keys.number("attention.q_lora_rank", 0, MAX_WIDTH, 0),
        kv_lora=keys.number("attention.kv_lora_rank", 1, MAX_WIDTH),
        nope=head_dim - rope.dim,
        rope=rope.dim,
        value=value_dim,
        split=split,
    )


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
