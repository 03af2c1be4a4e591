"""Routed experts in a file's metadata: how many, how wide, and how a token's are chosen.

Which keys are read and what holds without them is an architecture's (`engine.spec.architectures`); as in llama.cpp's
`load_arch_hparams`.
"""

from __future__ import annotations

from engine.spec.architectures import ARCHITECTURES, Architecture
from engine.spec.metadata import MAX_EXPERTS, MAX_WIDTH, Keys
from engine.spec.recurrent import has_in_a_layer
from engine.spec.spec import MoeSpec
from kernels.parameters import Gating


def experts_spec(
    keys: Keys, known: Architecture, total: int, layers: int, ffn: int
) -> MoeSpec | None:
    """The routed experts of a model with `layers` of `total` blocks in use; None: it has none."""
    experts = keys.number("expert_count", 0, MAX_EXPERTS, 0)
    used = max(keys.per_layer("expert_used_count", 0, experts, 0, total))
    if (experts > 0) != (used > 0):
        raise keys.fault(f"{keys.path('expert_used_count')} is {used} of {experts} experts")
    if not experts:
        keys.number("expert_group_count", 0, 0, 0)
    if not experts or (known.experts == "never" and keys.architecture in ARCHITECTURES):
        return None
    groups, top_groups = _expert_groups(keys, experts, used)
    width = max(keys.per_layer(known.expert_width, 0, MAX_WIDTH, 0, total)) or ffn // used
    read = known.expert_keys
    scale = 0.0
    if "expert_weights_scale" in read:
        scale = keys.real("expert_weights_scale", 0.0, 1e3, 0.0)
    normalise = known.normalise
    if "expert_weights_norm" in read:
        normalise = keys.file.flag(keys.path("expert_weights_norm"), False)
    dense = "leading_dense_block_count"
    return MoeSpec(
        experts=experts,
        top_k=used,
        width=width,
        shared_width=_shared_width(keys, known, width, ffn),
        shared_gate=known.shared_gate,
        leading_dense=keys.number(dense, 0, layers, 0) if dense in read else 0,
        gating=_gating(keys, known, layers),
        normalise=normalise,
        scale=scale or 1.0,
        groups=groups,
        top_groups=top_groups,
        bias=known.score_bias
        or has_in_a_layer(keys.file, "exp_probs_b.bias", lambda layer: layer < layers),
        biases=known.biases,
        dense=known.dense_beside_experts,
        scales=has_in_a_layer(keys.file, "ffn_down_exps.scale", lambda layer: layer < layers),
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
    """Of all shared experts together; those with a gate of their own are one."""
    each = width
    if "expert_shared_feed_forward_length" in known.expert_keys:
        default = ffn if known.shared_gate else width
        each = keys.number("expert_shared_feed_forward_length", 0, MAX_WIDTH, 0) or default
    if known.shared_always:
        return each
    if "expert_shared_count" in known.expert_keys:
        return each * keys.number("expert_shared_count", 0, MAX_EXPERTS, 0)
    return each if known.shared_gate else 0


def _gating(keys: Keys, known: Architecture, layers: int) -> Gating:
    number = 0
    if "expert_gating_func" in known.expert_keys:
        number = keys.number("expert_gating_func", 0, 4, 0)
    if number:
        return "sigmoid" if number == 2 else "softmax"
    if known.gating == "said":
        raise keys.fault(f"{keys.path('expert_gating_func')} is missing")
    # GLM-4.7-Flash files were written before the key existed.
    flash = known.latent and layers in (47, 48) and keys.vocabulary == 154880
    return "sigmoid" if flash else known.gating
