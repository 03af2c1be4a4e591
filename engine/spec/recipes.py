"""Which type llama.cpp's quantiser gives each tensor of a model."""

from __future__ import annotations

from dataclasses import dataclass

from engine.spec.shapes import Shape
from kernels.quants import BY_NAME, QuantType

_SMALLER_BLOCK = {
    **dict.fromkeys(
        ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"
    ),
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    **dict.fromkeys(
        (
            *("IQ1_KT", "IQ2_K", "IQ2_KS", "IQ2_KL", "IQ2_KT", "IQ3_K", "IQ3_KS", "IQ3_KT"),
            *("IQ4_K", "IQ4_KS", "IQ4_KSS", "IQ4_KT"),
        ),
        "IQ4_NL",
    ),
    **dict.fromkeys(("IQ5_K", "IQ5_KS"), "Q6_0"),
    "IQ6_K": "Q8_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
"""What llama.cpp's quantiser takes for rows that no blocks of 256 fit into."""


def fitting_type(kind: QuantType, cols: int) -> QuantType:
    """`kind`, or what llama.cpp takes in its place when rows of `cols` elements hold no such blocks."""
    for name in (kind.name, _SMALLER_BLOCK.get(kind.name, "F16")):
        if cols % BY_NAME[name].block == 0:
            return BY_NAME[name]
    return BY_NAME["F16"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """A mix of types, as `llama-quantize` calls it (llama-quant.cpp; without an importance matrix but where the type
    needs one).
    """

    file_type: int
    """general.file_type"""
    base: str
    better: str = ""
    """attn_v, or attn_qkv, and ffn_down in the layers that get more bits."""
    output: str = "Q6_K"
    down: str = ""
    """ffn_down in every layer."""
    attention_output: str = ""
    value: str = ""
    """attn_v in every layer of a model with at least 4 query heads a KV head."""
    value_few: str = ""
    """attn_v in every layer of other models."""
    first_down: str = ""
    """ffn_down in the first layers, one in `first_share` of all."""
    first_share: int = 8
    first_value: str = ""
    """attn_v in the first two layers."""
    mixtral_output: str = ""
    """attn_output in models with 8 experts."""
    experts: str = ""
    """Routed experts, all three matrices."""
    embedding: str = ""
    """token_embd in models whose output is a matrix of its own."""
    query_key: str = ""
    """attn_q and attn_k."""
    few_bits: bool = False
    """A mix of one or two bits: models with 4 experts have attn_v as those with many query heads, and 8 experts get
    no more.
    """


RECIPES: dict[str, Recipe] = {
    "Q4_K_M": Recipe(15, "Q4_K", better="Q6_K", mixtral_output="Q5_K"),
    "Q5_K_M": Recipe(17, "Q5_K", better="Q6_K"),
    "Q6_K": Recipe(18, "Q6_K"),
    "Q8_0": Recipe(7, "Q8_0", output="Q8_0"),
    "MXFP4": Recipe(38, "Q8_0", output="Q8_0", experts="MXFP4"),
    "Q2_K": Recipe(
        10, "Q2_K", down="Q3_K", value="Q4_K", value_few="Q3_K", attention_output="Q3_K",
        mixtral_output="Q5_K",
    ),
    **{
        name: Recipe(
            number, name, output="Q5_K", embedding="Q2_K", first_down="Q2_K", value="Q4_K", value_few="Q2_K",
            attention_output="IQ2_XXS" if name.startswith("IQ1") else "", mixtral_output="Q5_K", few_bits=True,
        )
        for number, name in ((24, "IQ1_S"), (31, "IQ1_M"), (19, "IQ2_XXS"), (20, "IQ2_XS"))
    },
    "IQ2_M": Recipe(
        29, "IQ2_S", output="Q5_K", embedding="IQ3_S", first_down="IQ3_S", value="Q4_K", value_few="IQ3_S",
        attention_output="IQ3_S", mixtral_output="Q5_K", few_bits=True,
    ),
    "IQ3_XXS": Recipe(
        23, "IQ3_XXS", output="Q5_K", embedding="IQ3_S", value="Q4_K", query_key="IQ2_S",
        attention_output="IQ3_S", mixtral_output="Q5_K",
    ),
    "IQ3_S": Recipe(26, "IQ3_S", value="Q4_K", mixtral_output="Q5_K"),
    "TQ1_0": Recipe(36, "TQ1_0", embedding="Q4_K"),
    "TQ2_0": Recipe(37, "TQ2_0", embedding="Q4_K"),
    "IQ4_XS": Recipe(30, "IQ4_XS", value="Q5_K", first_down="Q5_K", mixtral_output="Q5_K"),
    # Of ik_llama.cpp's one type is in all matrices but the output.
    **{
        name: Recipe(number, name)
        for number, name in (
            (135, "Q6_0"), (138, "IQ2_K"), (139, "IQ3_K"), (140, "IQ4_K"), (141, "IQ5_K"), (142, "IQ6_K"),
            (145, "IQ4_KS"), (147, "IQ2_KS"), (148, "IQ4_KSS"), (150, "IQ5_KS"), (154, "IQ3_KS"), (155, "IQ2_KL"),
            (151, "IQ2_KT"), (152, "IQ3_KT"), (153, "IQ4_KT"), (156, "IQ1_KT"),
        )
    },
}  # fmt: skip


def tensor_type(
    recipe: Recipe, shape: Shape, name: str, layer: int, layers: int, cols: int
) -> QuantType:
    """The type of a matrix; `layer` counts from 0 of `layers`. Routers and biases are F32."""
    if "ffn_gate_inp" in name or "ssm_conv1d" in name or name.endswith(".bias"):
        return BY_NAME["F32"]
    if recipe.experts and "_exps." in name:
        return fitting_type(BY_NAME[recipe.experts], cols)
    part = name.removesuffix(".weight").split(".")[-1]
    chosen = ""
    if part == "output" or (part == "token_embd" and shape.tied):
        chosen = recipe.output if cols % 256 == 0 else "Q8_0"
    elif part == "token_embd":
        chosen = recipe.embedding
    elif part in ("attn_v", "attn_kv_b", "attn_qkv"):
        few = shape.heads // shape.kv_heads_of(0) < 4 and not (
            recipe.few_bits and shape.experts >= 4
        )
        chosen = recipe.value_few if few else recipe.value
        chosen = recipe.first_value if recipe.first_value and layer < 2 else chosen
        chosen = recipe.better if recipe.better and _more_bits(layer, layers) else chosen
        chosen = "Q8_0" if shape.experts == 8 and not recipe.few_bits else chosen
    elif part == "attn_k" and shape.experts == 8:
        chosen = "Q4_K" if recipe.few_bits else "Q8_0"
    elif part in ("attn_q", "attn_k"):
        chosen = recipe.query_key
    elif part.startswith("ffn_down"):
        first = layer < layers // recipe.first_share
        chosen = recipe.first_down if recipe.first_down and first else recipe.down
        chosen = recipe.better if recipe.better and _more_bits(layer, layers) else chosen
    elif part == "attn_output":
        chosen = recipe.mixtral_output if shape.experts == 8 else recipe.attention_output
    return fitting_type(BY_NAME[chosen or recipe.base], cols)


def _more_bits(layer: int, layers: int) -> bool:
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
