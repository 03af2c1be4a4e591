"""What the GPU check demands, and how its time is shared out. Pure: knows no GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LIMIT = 480
"""Seconds for everything."""

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the check. `kept` seconds of the whole no part before it may take."""

    name: str
    kept: float
    run: Callable[[float], Figures]
    """Called with its deadline; its figures: what it measured, "cut" and "failed" where there is any."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure's bound, of the issue of the hybrid."""

    name: str
    path: tuple[str, ...]
    """Where the figure stands in all figures."""
    least: float = float("-inf")
    most: float = float("inf")

    def met(self, figures: Mapping[str, Any]) -> bool | None:
        """Whether the figure is there and within its bounds; None where it could not be measured here."""
        value: Any = figures
        for key in self.path:
            value = value.get(key) if isinstance(value, Mapping) else None
            if isinstance(value, Mapping) and "does_not_fit" in value:
                return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.least <= value <= self.most


BARS = (
    Bar("fidelity", ("fidelity", "worst_ratio"), most=1.05),
    Bar("graphs", ("fidelity", "different_replies"), most=0),
    Bar("gpu", ("speed", "gpu", "ratio"), least=0.60),
    Bar("split", ("speed", "split", "ratio"), least=0.85),
    Bar("deepseek_gpu", ("deepseek", "gpu", "ratio"), least=0.60),
    Bar("deepseek_split", ("deepseek", "split", "ratio"), least=0.85),
    Bar("overhead", ("overhead", "split", "share"), most=0.05),
    Bar("overhead_gpu", ("overhead", "gpu", "share"), most=0.05),
    Bar("vram", ("vram", "worst_error"), most=0.02),
)
"""Decoding all on the GPU reaches this part of the device's bandwidth, with experts on the CPU of what
both memories' bandwidths predict together."""


def deadlines(sections: Sequence[Section], begin: float) -> list[float]:
    """When each section has to end, so that those after it have their seconds."""
    out, after = [], 0.0
    for section in reversed(sections):
        out.append(begin + LIMIT - after)
        after += section.kept
    return out[::-1]


def verdict(figures: Figures) -> Figures:
    """The figures with `correct`, `bars`, `cut` and `ok`.

    ok: everything ran to its end, passed, and reached its bar.
    """
    sections = {name: part for name, part in figures.items() if isinstance(part, dict)}
    cut = [name for name, part in sections.items() if part.get("cut")]
    failed = [name for name, part in sections.items() if part.get("failed")]
    bars = {bar.name: bar.met(figures) for bar in BARS}
    correct = not {"tests", "fidelity"} & {*cut, *failed}
    correct &= sections.get("tests", {}).get("passed") is True
    correct &= bars["fidelity"] is True and bars["graphs"] is True
    ok = correct and False not in bars.values() and not cut and not failed
    return figures | {"correct": correct, "bars": bars, "cut": cut, "failed": failed, "ok": ok}


def whole_model(small: Figures, large: Figures, layers: int) -> Figures:
    """A token of `layers` layers from tokens of fewer, in straight lines: its ns, overhead and share.

    A shape cut to a few layers has short tokens, in which what happens once a token weighs too much.
    Overhead that seems to fall with layers is taken as constant.
    """
    span = large["layers"] - small["layers"]
    more = layers - large["layers"]
    token = large["token_ns"] + more * (large["token_ns"] - small["token_ns"]) / span
    slope = max(0.0, (large["overhead_ns"] - small["overhead_ns"]) / span)
    overhead = large["overhead_ns"] + more * slope
    return {"layers": layers, "token_ns": token, "overhead_ns": overhead, "share": overhead / token}


def layers_that_fit(
    sizes: Callable[[int], tuple[int, int]],
    most: int,
    *,
    disk: int,
    ram: int,
    vram: int,
    file_bytes: float,
) -> int:
    """The most layers, at most `most`, whose file and whose parts have room; 0 when not one fits.

    `sizes(layers)` are the bytes of routed experts and of everything else; `ram` holds the experts,
    `vram` the rest, `disk` both. `file_bytes`: what can be written and read in the time there is.
    """
    for layers in range(most, 0, -1):
        experts, rest = sizes(layers)
        whole = experts + rest
        if experts <= ram and rest <= vram and whole <= min(disk, file_bytes):
            return layers
    return 0
