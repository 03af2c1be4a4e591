"""A model's tensors from its architecture numbers alone: shapes, types, and the spec they make.

For a catalogue entry whose file nobody has read yet. The types are those that llama.cpp's quantiser
chooses; the catalogue marks such sizes as computed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import cache

from engine.catalog import further
from engine.catalog.numbers import Numbers
from engine.spec.architectures import ARCHITECTURES, known_architecture
from engine.spec.recipes import RECIPES, Recipe, tensor_type
from engine.spec.rope import RopeSpec
from engine.spec.shapes import Named, Shape, Windows, tensor_shapes
from engine.spec.spec import AttentionSpec, Group, GroupSize, MlaSpec, ModelSpec, MoeSpec
from engine.spec.tensors import Sizes, group_of
from kernels.gpu.sizes import device_bytes
from kernels.quants import BY_NAME, QuantType, resident_bytes

_EXTRA_RECIPES: dict[str, Recipe] = {
    "Q3_K_M": Recipe(
        12, "Q3_K", down="Q4_K", first_down="Q5_K", first_share=16, value="Q4_K", value_few="Q4_K",
        first_value="Q5_K", attention_output="Q4_K", mixtral_output="Q5_K",
    ),
    "F16": Recipe(1, "F16", output="F16"),
    "UD-Q2_K_XL": Recipe(10, "Q2_K", down="Q3_K", value="Q5_K", attention_output="Q5_K"),
    "UD-Q4_K_M": RECIPES["Q4_K_M"],
    "UD-Q4_K_XL": Recipe(15, "Q4_K", better="Q6_K", attention_output="Q5_K"),
    "UD-Q5_K_XL": Recipe(17, "Q5_K", better="Q6_K"),
    "Q2_K_L": Recipe(10, "Q2_K", down="Q3_K", value="Q4_K", value_few="Q3_K", output="Q8_0"),
}  # fmt: skip
MIXES: dict[str, Recipe] = {**RECIPES, **_EXTRA_RECIPES}
"""Quantisations whose sizes can be computed; those named UD only roughly."""


def spec_of(numbers: Numbers, name: str, quant: str, listed: int = 0) -> ModelSpec:
    """The spec of a model in the quantisation `quant`, one of `MIXES`.

    `listed` is the size of the files where it is known: routed experts make up the difference to
    what is computed.
    """
    sizes = _sizes(numbers, quant)
    groups, layers = sizes.groups, sizes.layers
    if listed:
        groups, layers = _fitted(sizes, listed)
    known = known_architecture(numbers.architecture)
    moe = MoeSpec(
        numbers.experts,
        numbers.top_k,
        numbers.expert_width,
        numbers.shared_width,
        leading_dense=numbers.dense_layers,
        bias=numbers.router_bias,
        biases=known.biases,
        dense=known.dense_beside_experts,
    )
    mla = None
    if numbers.kv_lora:
        mla = MlaSpec(
            numbers.q_lora, numbers.kv_lora, numbers.nope, numbers.rope, numbers.value, split=True
        )
    native = numbers.architecture in ARCHITECTURES
    windows = tuple(map(numbers.has_window, range(numbers.layers))) if native else ()
    windows = windows if any(windows) else ()
    return ModelSpec(
        architecture=numbers.architecture,
        name=name,
        layers=numbers.layers,
        hidden=numbers.hidden,
        heads=numbers.heads,
        kv_heads=1 if mla else numbers.kv_heads,
        head_dim=numbers.nope + numbers.rope if mla else numbers.head,
        value_dim=numbers.value if mla else numbers.head,
        ffn=numbers.ffn,
        vocab=numbers.vocab,
        context=numbers.context,
        eps=1e-6,
        rope=RopeSpec(numbers.rope or numbers.head),
        mla=mla,
        moe=moe,
        qk_norm=known.norms_of_queries(numbers.qk_norm),
        qkv_bias=numbers.biases,
        tied=numbers.tied,
        softmax_scale=0.0,
        quantisation=quant,
        template=None,
        extra_layers=numbers.extra_layers,
        unsupported="" if native else "its architecture is not one of ours",
        kv_bytes_per_token=numbers.kv_bytes_per_token,
        delta=numbers.delta,
        recurrent=tuple(map(numbers.is_recurrent, range(numbers.layers))) if numbers.delta else (),
        attention_gate=numbers.delta is not None,
        windowed=_windowed(numbers) if windows else None,
        windows=windows,
        ffn_norm=known.ffn_norm,
        delta_layout="ba" if numbers.architecture == "qwen3next" else "split",
        groups=groups,
        layer_groups=layers,
        sinks=known.sinks,
        output_bias=known.biases,
        activation=known.activation,
        post_norm=known.post_norm,
        value_norm=known.value_norm,
    )


def _windowed(numbers: Numbers) -> AttentionSpec:
    head = numbers.window_head or numbers.head
    kv_heads = numbers.window_kv_heads or numbers.kv_heads
    return AttentionSpec(numbers.heads, kv_heads, head, head, RopeSpec(head), 0.0, numbers.window)


def group_sizes(numbers: Numbers, quant: str) -> dict[Group, GroupSize]:
    """Bytes and parameters of each group of tensors."""
    return _sizes(numbers, quant).groups


@cache
def _sizes(numbers: Numbers, quant: str) -> Sizes:
    total = Sizes(numbers.layers)
    for name, sizes, kind, used in tensors(numbers, quant):
        count = 1
        for size in sizes:
            count *= size
        cols = sizes[-1]
        counted = GroupSize(
            count // cols * kind.row_bytes(cols),
            count,
            resident_bytes(kind, count // cols, cols),
            device_bytes(name, kind, sizes),
        )
        total.add(name, group_of(name) if used else "unused", counted)
    return total


def tensors(numbers: Numbers, quant: str) -> Iterator[tuple[str, tuple[int, ...], QuantType, bool]]:
    """(name, shape, type, whether it is read) of every tensor."""
    shape, total = _shape(numbers), numbers.layers + numbers.extra_layers
    for name, sizes in further.whole(numbers):
        yield name, sizes, _type(numbers, quant, shape, name, 0, sizes), True
    usual = _by_layer(shape, total)
    for layer in range(total):
        added = [(f"blk.{layer}.{name}", sizes) for name, sizes in further.added(numbers, layer)]
        for name, sizes in [*usual[layer], *added]:
            kind = _type(numbers, quant, shape, name, layer, sizes)
            yield name, sizes, kind, layer < numbers.layers


def _by_layer(shape: Shape, layers: int) -> list[list[Named]]:
    found: list[list[Named]] = [[] for _ in range(layers)]
    for named, layer in tensor_shapes(shape, layers):
        if named[0].startswith("blk."):
            found[layer].append(named)
    return found


def _shape(numbers: Numbers) -> Shape:
    windows = None
    if numbers.window:
        of = _windowed(numbers)
        windows = Windows(of.window, of.kv_heads, of.head_dim)
    return Shape(
        numbers.architecture,
        layers=numbers.layers,
        some_layers=1,
        hidden=numbers.hidden,
        heads=numbers.heads,
        kv_heads=max(1, numbers.kv_heads),
        head=numbers.head,
        ff=numbers.ffn,
        dense_layers=numbers.dense_layers,
        experts=numbers.experts,
        top_k=numbers.top_k,
        expert_ff=numbers.expert_width,
        shared_ff=numbers.shared_width,
        q_latent=numbers.q_lora,
        latent=numbers.kv_lora,
        nope=numbers.nope,
        rope=numbers.rope,
        value=numbers.value,
        qk_norm=numbers.qk_norm,
        qkv_bias=numbers.biases,
        tied=numbers.tied,
        delta=numbers.delta,
        attention_every=numbers.linear_every or numbers.full_every or 1,
        windows=windows,
        settings={"expert_gating_func": 2} if numbers.router_bias else {},
    )


def _type(
    numbers: Numbers, quant: str, shape: Shape, name: str, layer: int, sizes: tuple[int, ...]
) -> QuantType:
    if len(sizes) == 1 or not name.endswith(".weight"):
        return BY_NAME["F32"]
    layers = numbers.layers + numbers.extra_layers
    if numbers.value_is_key and name.endswith("attn_v.weight"):  # counted are those there are
        layer, layers = sum(map(numbers.has_window, range(layer))), numbers.window_layers
    return tensor_type(MIXES[quant], shape, name, layer, layers, sizes[-1])


def _fitted(
    sizes: Sizes, listed: int
) -> tuple[dict[Group, GroupSize], tuple[dict[Group, GroupSize], ...]]:
    """Groups whose bytes sum to `listed`: the routed experts take the difference."""
    others = sum(size.bytes for group, size in sizes.groups.items() if group != "experts")
    experts = max(1, listed - others)
    factor = experts / sizes.groups["experts"].bytes

    def scaled(groups: dict[Group, GroupSize]) -> dict[Group, GroupSize]:
        if "experts" not in groups:
            return groups
        now = groups["experts"]
        fitted = dataclasses.replace(
            now,
            bytes=round(now.bytes * factor),
            resident=round(now.resident * factor),
            device=round(now.device * factor),
        )
        return {**groups, "experts": fitted}

    whole = scaled(sizes.groups)
    whole["experts"] = dataclasses.replace(whole["experts"], bytes=experts)
    return whole, tuple(scaled(layer) for layer in sizes.layers)
