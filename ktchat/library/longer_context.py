"""Whether the model that is loaded could have a longer context on this machine, and what that takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.common.units import count
from ktchat.library.plans import machine

if TYPE_CHECKING:
    from engine.plan.memory_plan import MemoryPlan
    from engine.protocol import Load, Loaded


@dataclass(frozen=True, slots=True)
class LongerContext:
    """Tokens of context, and the bytes that it takes more; or why there is none."""

    tokens: int = 0
    more_bytes: int = 0
    prefill_tok_s: float | None = None
    """How fast the model reads, measured or predicted."""
    obstacle: str = ""


def longer_context(loaded: Loaded, load: Load, needed: int) -> LongerContext:
    """The context to load the model with, as `load` has models loaded, for `needed` tokens: twice the present one
    or more, as long as the model was trained for it and it fits.

    Blocks, up to a second the first time. Raises `KtchatError`.
    """
    if loaded.origin:
        return LongerContext(obstacle="the server has set the context")
    from engine.gguf.file import GGUFFile
    from engine.plan.planner import make_plan
    from engine.spec.reader import read_spec

    with GGUFFile.open(Path(loaded.path)) as file:
        spec = read_spec(file)
    hardware = machine(measure=False, device=load.device)
    present = make_plan(spec, hardware, loaded.context, load.device, load.kv)
    hardware = hardware.freeing(_ram(present))  # of GPUs it is counted as free already
    speed = present.prefill_tok_s
    tokens = loaded.context
    while tokens < needed:
        tokens *= 2
    tokens = min(tokens, spec.context)
    if tokens < needed:
        return LongerContext(
            prefill_tok_s=speed, obstacle=f"the model was trained for {count(spec.context)} tokens"
        )
    plan = make_plan(spec, hardware, tokens, load.device, load.kv)
    if not plan.fits and plan.max_context >= needed:
        plan = make_plan(spec, hardware, plan.max_context, load.device, load.kv)
    if not plan.fits:
        return LongerContext(
            prefill_tok_s=speed, obstacle=f"{count(plan.context)} tokens: {plan.fit_words}"
        )
    return LongerContext(plan.context, max(0, _resident(plan) - _resident(present)), speed)


def _ram(plan: MemoryPlan) -> int:
    return sum(device.resident for device in plan.devices if device.kind == "RAM")


def _resident(plan: MemoryPlan) -> int:
    return sum(device.resident for device in plan.devices)
