"""Rotary embedding in a file's metadata, every number bounded."""

from __future__ import annotations

from typing import cast, get_args

import numpy as np

from engine.errors import ModelFileError
from engine.gguf.file import GGUFFile
from engine.gguf.header import DOWNLOAD, shown
from engine.spec.architectures import Architecture
from engine.spec.metadata import MAX_CONTEXT, MAX_WIDTH, Keys
from engine.spec.rope import RopeSpec, Scaling

MAX_FACTORS = 4096


def read_rope(keys: Keys, head_dim: int, known: Architecture) -> RopeSpec:
    """Rope of heads of `head_dim` features. Raises `ModelFileError`."""
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
        whole_pairs=known.whole_yarn_pairs,
        scaling=cast(Scaling, scaling),
        factor=factor or 1.0,
        original_context=original or context,
        attention_factor=keys.real("rope.scaling.attn_factor", 0.0, 1e3, 1.0),
        log_multiplier=(
            keys.real("rope.scaling.yarn_log_multiplier", 0.0, 10.0, 0.0) if known.latent else 0.0
        ),
        beta_fast=keys.real("rope.scaling.yarn_beta_fast", 1e-3, 1e6, 32.0),
        beta_slow=keys.real("rope.scaling.yarn_beta_slow", 1e-3, 1e6, 1.0),
        turns=known.full_rope,
        factors=_factors(keys.file),
    )


def _factors(file: GGUFFile) -> tuple[float, ...]:
    info = file.tensors.get("rope_freqs.weight")
    if info is None or info.type.name != "F32" or info.elements > MAX_FACTORS:
        return ()
    values = np.frombuffer(file.read(info.name), np.float32)
    if not np.isfinite(values).all() or not (values > 1e-6).all():
        raise ModelFileError(
            f"{shown(file.path.name)} is damaged", "rope_freqs.weight divides by zero", DOWNLOAD
        )
    return tuple(float(value) for value in values)
