"""Which models the native runtime runs: what one of our architectures must have, and what it may not need."""

from __future__ import annotations

from engine.spec.architectures import ARCHITECTURES
from engine.spec.metadata import MAX_LAYERS, MAX_VOCAB, MAX_WIDTH, Keys
from engine.spec.spec import ModelSpec


def check_native(keys: Keys, spec: ModelSpec) -> None:
    """What an architecture of ours must have; llama.cpp aborts or throws where it has not."""
    known = ARCHITECTURES[spec.architecture]
    keys.real("attention.layer_norm_rms_epsilon", 0.0, 1.0)
    sizes = (spec.heads, spec.kv_heads, spec.head_dim, spec.value_dim, spec.vocab, spec.rope.dim)
    dense = spec.moe is None or spec.moe.leading_dense > 0
    rules: tuple[tuple[bool, str], ...] = (
        (min(sizes) > 0, "It has no attention heads or no vocabulary"),
        (spec.vocab <= MAX_VOCAB, f"Its vocabulary has {spec.vocab} tokens"),
        (not dense or spec.ffn > 0, f"{keys.path('feed_forward_length')} is missing"),
        (spec.moe is None or spec.moe.width > 0, "Its experts have no width"),
        (known.experts != "always" or spec.moe is not None, "It has no experts"),
        (known.rope_factors != "must" or spec.rope.has_factors, "rope_freqs.weight is missing"),
    )
    for of in spec.attentions:
        rules += (
            (of.heads % max(1, of.kv_heads) == 0, "Its KV heads do not divide its heads"),
            (of.rope.dim % 2 == 0, f"{keys.path('rope.dimension_count')} is odd"),
        )
        if spec.mla is None:
            rules += (
                (of.kv_heads > 0, "It has no KV heads"),
                (of.head_dim == of.value_dim, "Its keys and values differ in length"),
                (0 < of.rope.dim <= of.head_dim, "More features are rotated than a head has"),
            )
    if spec.mla is not None:
        rules += ((spec.mla.nope > 0, "Its rotated features leave no others in a key"),)
    for holds, why in rules:
        if not holds:
            raise keys.fault(why)


def missing_feature(keys: Keys, spec: ModelSpec) -> str:
    """What the native runtime does not do; such a model is llama.cpp's."""
    known = ARCHITECTURES[spec.architecture]
    features: tuple[tuple[bool, str], ...] = (
        (bool(keys.uneven), f"{keys.uneven} differs from layer to layer"),
        (spec.rope.scaling == "longrope", "it needs LongRoPE"),
        (spec.rope.has_factors and known.rope_factors == "never", "it has rope factors"),
        (
            keys.number("embedding_length_per_layer_input", 0, MAX_WIDTH, 0) > 0,
            "it has embeddings for each layer",
        ),
        (
            keys.number("attention.shared_kv_layers", 0, MAX_LAYERS, 0) > 0,
            "its layers share KV caches",
        ),
        (
            spec.mla is not None and keys.real("attention.temperature_scale", -1e6, 1e6, 0.0) != 0,
            "it needs attention temperature scaling",
        ),
        (
            "expert_gating_func" in known.expert_keys
            and keys.number("expert_gating_func", 0, 4, 0) > 2,
            "its experts are chosen in another way",
        ),
    )
    return next((why for there, why in features if there), "")
