"""A model's tensors from its architecture numbers alone: shapes, types, and the spec they make.

For a catalogue entry whose file nobody has read yet. The types are those that llama.cpp's quantiser
chooses; the catalogue marks such sizes as computed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from engine.spec.architectures import ARCHITECTURES, Architecture
from engine.spec.recipes import RECIPES, Recipe, tensor_type
from engine.spec.rope import RopeSpec
from engine.spec.shapes import Named, Shape, tensor_shapes
from engine.spec.spec import Group, GroupSize, MlaSpec, ModelSpec, MoeSpec
from engine.spec.tensors import Sizes, group_of
from kernels.gpu.sizes import device_bytes
from kernels.quants import BY_NAME, QuantType, resident_bytes
from kernels.recurrent import DeltaNet

_EXTRA_RECIPES: dict[str, Recipe] = {
    "Q3_K_M": Recipe(
        12, "Q3_K", down="Q4_K", first_down="Q5_K", value="Q5_K", value_few="Q4_K",
        attention_output="Q4_K", mixtral_output="Q5_K",
    ),
    "F16": Recipe(1, "F16", output="F16"),
    "MXFP4": Recipe(38, "Q8_0", output="Q8_0"),
    "UD-Q2_K_XL": Recipe(10, "Q2_K", down="Q3_K", value="Q5_K", attention_output="Q5_K"),
    "UD-Q4_K_XL": Recipe(15, "Q4_K", better="Q6_K", attention_output="Q5_K"),
    "UD-Q5_K_XL": Recipe(17, "Q5_K", better="Q6_K"),
    "Q2_K_L": Recipe(10, "Q2_K", down="Q3_K", value="Q4_K", value_few="Q3_K", output="Q8_0"),
}  # fmt: skip
MIXES: dict[str, Recipe] = {**RECIPES, **_EXTRA_RECIPES}
"""Quantisations whose sizes can be computed; those named UD only roughly."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """A model's architecture numbers, in features; what it does not have is 0."""

    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head: int
    vocab: int
    context: int
    experts: int
    top_k: int
    expert_width: int
    ffn: int = 0
    """Width of the dense network of the first `dense_layers` layers."""
    dense_layers: int = 0
    shared_width: int = 0
    q_lora: int = 0
    kv_lora: int = 0
    nope: int = 0
    rope: int = 0
    value: int = 0
    qk_norm: bool = False
    biases: bool = False
    """Attention's projections have biases, and in gpt-oss the experts too."""
    linear_every: int = 0
    """Of so many layers only the last has attention; the others are gated delta nets (Qwen3-Next)."""
    linear_heads: int = 32
    """Value heads of a gated delta net; it has 16 key heads, all of 128 features, and a convolution of 4."""
    extra_layers: int = 0
    """Layers behind the last that predict further tokens and are not read."""

    @property
    def delta(self) -> DeltaNet | None:
        """The gated delta net of its recurrent layers."""
        if not self.linear_every:
            return None
        tiled = self.architecture != "qwen3next"
        return DeltaNet(16, self.linear_heads, 128, 128, 4, tiled)

    def is_recurrent(self, layer: int) -> bool:
        """Whether a layer is a gated delta net in place of attention."""
        return bool(self.linear_every) and (layer + 1) % self.linear_every != 0

    @property
    def attention_layers(self) -> int:
        """Layers with a KV cache."""
        return self.layers // self.linear_every if self.linear_every else self.layers

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes a token takes in the KV cache in float16."""
        row = self.kv_lora + self.rope if self.kv_lora else 2 * self.kv_heads * self.head
        return 2 * self.attention_layers * row


def spec_of(numbers: Numbers, name: str, quant: str, listed: int = 0) -> ModelSpec:
    """The spec of a model in the quantisation `quant`, one of `MIXES`.

    `listed` is the size of the files where it is known: routed experts make up the difference to
    what is computed.
    """
    sizes = _sizes(numbers, quant)
    groups, layers = sizes.groups, sizes.layers
    if listed:
        groups, layers = _fitted(sizes, listed)
    known = ARCHITECTURES.get(numbers.architecture, Architecture())
    moe = MoeSpec(
        numbers.experts,
        numbers.top_k,
        numbers.expert_width,
        numbers.shared_width,
        leading_dense=numbers.dense_layers,
    )
    mla = None
    if numbers.kv_lora:
        mla = MlaSpec(
            numbers.q_lora, numbers.kv_lora, numbers.nope, numbers.rope, numbers.value, split=True
        )
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
        tied=False,
        softmax_scale=0.0,
        quantisation=quant,
        template=None,
        extra_layers=numbers.extra_layers,
        unsupported=(
            "" if numbers.architecture in ARCHITECTURES else "its architecture is not one of ours"
        ),
        kv_bytes_per_token=numbers.kv_bytes_per_token,
        delta=numbers.delta,
        recurrent=tuple(map(numbers.is_recurrent, range(numbers.layers))) if numbers.delta else (),
        attention_gate=numbers.delta is not None,
        ffn_norm=known.ffn_norm,
        delta_layout="ba" if numbers.architecture == "qwen3next" else "split",
        groups=groups,
        layer_groups=layers,
    )


def group_sizes(numbers: Numbers, quant: str) -> dict[Group, GroupSize]:
    """Bytes and parameters of each group of tensors."""
    return _sizes(numbers, quant).groups


@cache
def _sizes(numbers: Numbers, quant: str) -> Sizes:
    total = Sizes(numbers.layers)
    for name, sizes, kind, used in _tensors(numbers, quant):
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


def _tensors(
    numbers: Numbers, quant: str
) -> Iterator[tuple[str, tuple[int, ...], QuantType, bool]]:
    """(name, shape, type, whether it is read) of every tensor."""
    shape = _shape(numbers)
    total = numbers.layers + numbers.extra_layers
    named = [item for item in tensor_shapes(shape, total) if item[0][0].startswith("blk.")]
    embeddings: list[Named] = [
        ("token_embd.weight", (numbers.vocab, numbers.hidden)),
        ("output.weight", (numbers.vocab, numbers.hidden)),
        ("output_norm.weight", (numbers.hidden,)),
    ]
    for (name, sizes), layer in [*((item, 0) for item in embeddings), *named]:
        kind = _type(numbers, quant, name, layer, sizes)
        yield name, sizes, kind, layer < numbers.layers
    for layer in range(total):
        for name, sizes in _further(numbers, layer):
            full = f"blk.{layer}.{name}"
            kind = _type(numbers, quant, full, layer, sizes)
            yield full, sizes, kind, layer < numbers.layers


def _shape(numbers: Numbers) -> Shape:
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
        delta=numbers.delta,
        attention_every=numbers.linear_every or 1,
    )


def _type(numbers: Numbers, quant: str, name: str, layer: int, sizes: tuple[int, ...]) -> QuantType:
    if len(sizes) == 1 or name.endswith(".bias"):
        return BY_NAME["F32"]
    if quant == "MXFP4" and "_exps" in name:
        return BY_NAME["MXFP4"]
    cols = sizes[-1]
    return tensor_type(MIXES[quant], _shape(numbers), name, layer, numbers.layers, cols)


def _further(numbers: Numbers, layer: int) -> list[Named]:
    """Tensors of a layer that the benchmark's shapes do not have."""
    out: list[Named] = []
    hidden = numbers.hidden
    if numbers.architecture == "gpt-oss":
        width = numbers.expert_width
        out += [
            ("attn_output.bias", (hidden,)),
            ("attn_sinks.weight", (numbers.heads,)),
            ("ffn_gate_inp.bias", (numbers.experts,)),
            ("ffn_gate_exps.bias", (numbers.experts, width)),
            ("ffn_up_exps.bias", (numbers.experts, width)),
            ("ffn_down_exps.bias", (numbers.experts, hidden)),
        ]
    return out


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
