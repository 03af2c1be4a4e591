"""A plan in words and as bars, plain text of any width.

Knows nothing of terminals: whoever draws it may colour the bars' letters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.plan.memory_plan import DevicePlan, MemoryPlan

FULL, OPEN, SLIVER = "▇", "░", "▏"
"""A cell that is used, one that stays free, and less than half a cell."""
MIN_WIDTH = 40
FAST = 1000
"""Tokens a second from which a prediction is not told more exactly."""


def size(count: int) -> str:
    """Bytes in decimal units, short: `12 GB`, `1.4 GB`, `380 MB`."""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    digits = 1 if unit in ("GB", "TB") and value < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def gb_s(speed: float) -> str:
    """A reading speed: `42 GB/s`, `4.2 GB/s`."""
    return f"{speed:.0f} GB/s" if speed >= 9.95 else f"{speed:.1f} GB/s"


def tokens(count: int) -> str:
    """A context: `512`, `32k`, `1M`."""
    if count >= 1 << 20:
        return f"{count / (1 << 20):.3g}M"
    return f"{count / 1024:.3g}k" if count >= 1024 else str(count)


def rate(tok_s: float, measured: bool) -> str:
    """`18.4 tok/s` or `2 120 tok/s` when measured, `~18 tok/s` or `> 1000 tok/s` when predicted.

    Models that fit the processor's cache are faster than what the memory's speed foretells.
    """
    if measured:
        return (
            f"{tok_s:.1f} tok/s" if tok_s < 99.95 else f"{round(tok_s):,} tok/s".replace(",", " ")
        )
    if tok_s >= FAST:
        return f"> {FAST} tok/s"
    return f"~{tok_s:.0f} tok/s" if tok_s >= 9.95 else f"~{tok_s:.1f} tok/s"


def words(plan: MemoryPlan) -> list[str]:
    """The plan in short lines: whether it fits, where, how fast, why."""
    lines = [_headline(plan)]
    if plan.fits:
        lines.append(
            f"Context {tokens(plan.context)}; the longest that fits is {tokens(plan.max_context)}"
        )
    else:
        lines += [
            f"At a context of {tokens(plan.context)}: needs {size(device.used)} of {device.kind},"
            f" {size(device.total)} are free"
            for device in plan.devices
            if device.short
        ]
        if plan.max_context:
            lines.append(f"The longest context that fits is {tokens(plan.max_context)}")
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
    """A bar a device and a line a part, at most `width` characters wide.

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
    title = f"{device.kind} {size(device.total)} free" if device.total else device.kind
    if device.kind == "VRAM":
        title = f"{device.name} · {size(device.total)} free"
    state = f"short by {size(device.short)}" if device.short else f"{size(free)} left"
    lines = [f"{title[: width - len(state) - 3]} · {state}"]
    parts = [(segment.label, segment.bytes) for segment in device.segments]
    name_width = max(len(label) for label, _ in parts) if parts else 0
    room = width - name_width - 2 - 10
    for label, count in parts:
        cells = round(count / scale * room)
        bar = (OPEN if label == "reserve" else FULL) * cells or SLIVER
        lines.append(f"  {label:<{name_width}} {size(count):>8} {bar}"[:width])
    return lines
