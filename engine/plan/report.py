"""A plan in words, as bars and as JSON: plain text of any width.

Whoever draws it may colour the bars' characters.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from engine.common.cells import cells, cut, ljust
from engine.common.units import byte_size, rate, short_count
from engine.plan.memory_plan import DevicePlan, MemoryPlan

FULL, OPEN, SLIVER = "▇", "░", "▏"
"""A cell that is used, one that stays free, and less than half a cell."""
MIN_WIDTH = 40


def words(plan: MemoryPlan) -> list[str]:
    """The plan in short lines: whether it fits, where, how fast, why."""
    lines = [_headline(plan)]
    if plan.fits:
        lines.append(
            f"Context {short_count(plan.context)}; the longest that fits is {short_count(plan.max_context)}"
        )
    else:
        lines += [
            f"At a context of {short_count(plan.context)}: needs {byte_size(device.used)} of {device.kind},"
            f" {byte_size(device.total)} are free"
            for device in plan.devices
            if device.short
        ]
        if plan.max_context:
            lines.append(f"The longest context that fits is {short_count(plan.max_context)}")
    lines += _speed(plan)
    lines += plan.why
    if plan.no_gpu:
        lines.append(f"The GPU is not used: {plan.no_gpu}")
    if plan.gpu_fix:
        lines.append(f"To use it: {plan.gpu_fix}")
    if plan.assumed:
        lines.append(f"{plan.machine}: {plan.assumed}")
    return lines


def _headline(plan: MemoryPlan) -> str:
    name = f"{plan.model} {plan.quantisation}".strip()
    if not plan.fits:
        return f"{name} does not fit: {plan.fit_words}"
    places = {
        "GPU": "runs on the GPU",
        "hybrid": "runs on GPU and CPU",
        "CPU": "runs on the CPU",
    }
    return f"{name} {places[plan.verdict]}"


def _speed(plan: MemoryPlan) -> list[str]:
    if plan.decode_tok_s is None:
        words = plan.bound_words
        return [words[0].upper() + words[1:]] if words and plan.fits else []
    # Nothing has been measured on GPUs yet.
    foretold = "predicted" if plan.placement is None else "predicted, not yet measured on a GPU"
    how = "measured here" if plan.measured else foretold
    lines = [f"Writes {rate(plan.decode_tok_s, plan.measured)} ({how}), {plan.bound_words}"]
    if plan.prefill_tok_s is not None:
        read = rate(plan.prefill_tok_s, plan.prefill_measured)
        how = "measured here" if plan.prefill_measured else foretold
        lines.append(f"Reads {read} of prompt ({how}), {plan.prefill_bound_words}")
    return lines


def bars(plan: MemoryPlan, width: int = 80) -> list[str]:
    """A bar a device and a line a part, at most `width` cells wide.

    A device's bar is as long as its free memory; what is missing goes beyond it.
    """
    width = max(MIN_WIDTH, width)
    lines: list[str] = []
    for device in plan.devices:
        lines += _device(device, width)
    return lines


def _device(device: DevicePlan, width: int) -> list[str]:
    scale = max(device.total, device.used, 1)
    free = max(0, device.total - device.used)
    title = f"{device.kind} {byte_size(device.total)} free" if device.total else device.kind
    if device.kind == "VRAM":
        title = f"{device.name} · {byte_size(device.total)} free"
    state = f"short by {byte_size(device.short)}" if device.short else f"{byte_size(free)} left"
    lines = [f"{cut(title, width - cells(state) - 3)} · {state}"]
    parts = [(segment.label, segment.bytes) for segment in device.segments]
    name_width = max(cells(label) for label, _ in parts) if parts else 0
    room = width - name_width - 2 - 10
    for label, count in parts:
        length = round(count / scale * room)
        bar = (OPEN if label == "reserve" else FULL) * length or SLIVER
        lines.append(cut(f"  {ljust(label, name_width)} {byte_size(count):>8} {bar}", width))
    return lines


def to_dict(plan: MemoryPlan) -> dict[str, Any]:
    """The plan as JSON has it, with what follows from it."""
    out = dataclasses.asdict(plan)
    out |= {"fits": plan.fits, "fit_words": plan.fit_words, "words": words(plan)}
    out |= {"short_bytes": plan.short_bytes, "short_of": plan.short_of}
    for device, entry in zip(plan.devices, out["devices"], strict=True):
        entry |= {"used": device.used, "short": device.short}
        entry["segments"] = [segment._asdict() for segment in device.segments]
    return out
