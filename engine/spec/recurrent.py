"""Gated delta nets in a file's metadata: their sizes, which layers have them, how their projections are stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from engine.gguf.file import GGUFFile
from engine.gguf.values import LazyArray
from engine.spec.architectures import Architecture
from engine.spec.metadata import MAX_HEADS, MAX_WIDTH, Keys
from kernels.recurrent import MAX_KERNEL, DeltaNet


def delta_net(
    keys: Keys, known: Architecture, layers: int
) -> tuple[DeltaNet | None, tuple[bool, ...]]:
    """The net, and which layers have it; (None, ()) for architectures without."""
    if not known.delta_net:
        return None, ()
    key = keys.number("ssm.state_size", 1, MAX_WIDTH)
    key_heads = keys.number("ssm.group_count", 1, MAX_HEADS)
    value_heads = keys.number("ssm.time_step_rank", 1, MAX_HEADS)
    inner = keys.number("ssm.inner_size", 1, MAX_WIDTH)
    if value_heads % key_heads or inner % value_heads:
        raise keys.fault(
            f"{keys.path('ssm.time_step_rank')}: {value_heads} value heads do not go with"
            f" {key_heads} key heads and a width of {inner}"
        )
    net = DeltaNet(
        key_heads=key_heads,
        value_heads=value_heads,
        key=key,
        value=inner // value_heads,
        kernel=keys.number("ssm.conv_kernel", 2, MAX_KERNEL),
        tiled=known.delta_net == "tiled",
    )
    return net, _recurrent(keys, layers)


def _recurrent(keys: Keys, layers: int) -> tuple[bool, ...]:
    """Given for each layer, else every layer but each fourth (`full_attention_interval`)."""
    value = keys.file.metadata.get(keys.path("attention.recurrent_layers"))
    if isinstance(value, LazyArray) and len(value) >= layers:
        return tuple(bool(value[layer]) for layer in range(layers))
    interval = keys.number("full_attention_interval", 1, layers, min(4, layers))
    return tuple((layer + 1) % interval != 0 for layer in range(layers))


def delta_layout(file: GGUFFile) -> Literal["split", "ba", "joined"]:
    """Older files hold alpha and beta as one matrix, the oldest queries, keys, values and z too."""
    if has_in_a_layer(file, "ssm_in.weight"):
        return "joined"
    return "ba" if has_in_a_layer(file, "ssm_ba.weight") else "split"


def has_in_a_layer(
    file: GGUFFile, name: str, counts: Callable[[int], bool] = lambda layer: True
) -> bool:
    """Whether a layer that counts has a tensor of this name."""
    for full in file.tensors:
        prefix, _, rest = full.removeprefix("blk.").partition(".")
        if rest == name and full.startswith("blk.") and prefix.isdigit() and counts(int(prefix)):
            return True
    return False
