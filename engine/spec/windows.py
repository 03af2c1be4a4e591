"""Layers that see a window of positions only, and what else differs between them and the others."""

from __future__ import annotations

from dataclasses import replace

from engine.gguf.values import LazyArray
from engine.spec.architectures import Architecture
from engine.spec.attention import AttentionSpec
from engine.spec.metadata import MAX_CONTEXT, MAX_WIDTH, Keys

WINDOW, PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"


def window_layers(keys: Keys, known: Architecture, layers: int) -> tuple[bool, ...]:
    """Which layers see a window; empty where none does. Raises `ModelFileError`."""
    if not known.window_every or (known.window_optional and not keys.has(WINDOW)):
        return ()
    if not keys.number(WINDOW, 0 if known.window_optional else 1, MAX_CONTEXT):
        return ()
    pattern = keys.file.metadata.get(keys.path(PATTERN))
    if isinstance(pattern, LazyArray):
        if len(pattern) < layers or pattern.element not in ("bool", "u32", "i32"):
            raise keys.fault(f"{keys.path(PATTERN)} has {len(pattern)} values for {layers} layers")
        there = tuple(bool(value) for value in pattern.numpy()[:layers])
    else:
        every = keys.number(PATTERN, 0, MAX_WIDTH, known.window_every)
        there = tuple(not every or layer % every < every - 1 for layer in range(layers))
    return there if any(there) else ()


def windowed(keys: Keys, known: Architecture, full: AttentionSpec, kv_heads: int) -> AttentionSpec:
    """Attention of those layers, `full` being that of the others. Raises `ModelFileError`."""
    rope = full.rope
    if not known.full_rope:
        base = keys.real("rope.freq_base_swa", 1.5, 1e15, rope.base)
        rope = replace(rope, turns=True, base=base)
    if known.window_rope:
        rope = replace(
            rope,
            dim=keys.number("rope.dimension_count_swa", 0, MAX_WIDTH, rope.dim),
            base=keys.real("rope.freq_base_swa", 1.5, 1e15, 10000.0),
            scaling="none",
            factors=(),
        )
    return replace(
        full,
        kv_heads=kv_heads,
        head_dim=keys.number("attention.key_length_swa", 1, MAX_WIDTH, full.head_dim),
        value_dim=keys.number("attention.value_length_swa", 1, MAX_WIDTH, full.value_dim),
        rope=rope,
        window=keys.number(WINDOW, 1, MAX_CONTEXT),
    )
