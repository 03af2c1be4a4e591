"""The matrices of a gated network or of routed experts, however a file holds them."""

from __future__ import annotations

from engine.model.weights import WeightLoader
from kernels.recurrent import W


def gate_up_down(load: WeightLoader[W], prefix: str, suffix: str) -> tuple[W, W, W]:
    """A network's three matrices, or stacks of them."""
    gate, up, down = (load.matrix(f"{prefix}{name}{suffix}.weight") for name in _FFN)
    return gate, up, down


def routed_experts(load: WeightLoader[W], prefix: str, width: int, fused: bool) -> tuple[W, W, W]:
    """The same of routed experts, whose gates and ups may be one stack."""
    if not fused:
        return gate_up_down(load, prefix, "_exps")
    parts = slice(0, width), slice(width, 2 * width)
    gate, up = load.rows(prefix + "gate_up_exps.weight", parts)
    return gate, up, load.matrix(prefix + "down_exps.weight")


def expert_biases(load: WeightLoader[W], prefix: str) -> tuple[W, W, W]:
    """The biases of their gates, ups and downs."""
    gate, up, down = (load.expert_biases(f"{prefix}{name}_exps.bias") for name in _FFN)
    return gate, up, down


_FFN = ("gate", "up", "down")
