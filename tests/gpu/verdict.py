"""What the GPU check demands, and whether the entries of a journal reach it. Pure: knows no GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Entry = dict[str, Any]
Figures = dict[str, Any]

LAYERS_OF_SHAPE = 48
"""Of qwen3-30b-a3b, whose token is told from two counts of its layers."""
CORRECTNESS = ("kernels", "self-test", "fidelity", "suite")
"""Stages without whose success a GPU computes nothing that can be trusted."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure's bound. `figure` finds it among what a stage told: a number, None where it was not measured, and
    "open" where it cannot be here."""

    name: str
    stage: str
    figure: Callable[[Sequence[Figures]], Any]
    least: float = float("-inf")
    most: float = float("inf")

    def met(self, told: Sequence[Figures]) -> bool | None:
        """Whether the figure is there and within its bounds; None where it cannot be measured here."""
        value = self.figure(told)
        if value == "open":
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.least <= value <= self.most


def _named(name: str, key: str) -> Callable[[Sequence[Figures]], Any]:
    """`key` of the last that is called `name`; open where it does not fit."""

    def figure(told: Sequence[Figures]) -> Any:
        found = [case for case in told if case.get("name") == name and "layers" not in case]
        if found and "does_not_fit" in found[-1]:
            return "open"
        return found[-1].get(key) if found else None

    return figure


def _worst(key: str) -> Callable[[Sequence[Figures]], Any]:
    """The largest magnitude of `key`; no number is worse than any."""

    def figure(told: Sequence[Figures]) -> Any:
        values = [abs(case[key]) for case in told if key in case]
        return next((v for v in values if v != v), max(values, default=None))

    return figure


def _different(told: Sequence[Figures]) -> Any:
    replies = [case["same"] for case in told if "same" in case]
    return replies.count(False) if replies else None


def _overhead(name: str) -> Callable[[Sequence[Figures]], Any]:
    def figure(told: Sequence[Figures]) -> Any:
        traced = [case for case in told if case.get("name") == name and "token_ns" in case]
        if len(traced) != 2:
            return None
        small, large = sorted(traced, key=lambda case: case["layers"])
        return whole_model(small, large, LAYERS_OF_SHAPE)["share"]

    return figure


BARS = (
    Bar("fidelity", "fidelity", _worst("ratio"), most=1.05),
    Bar("graphs", "fidelity", _different, most=0),
    Bar("gpu", "layers", _named("gpu", "ratio"), least=0.60),
    Bar("split", "layers", _named("split", "ratio"), least=0.85),
    Bar("overhead", "layers", _overhead("split"), most=0.05),
    Bar("overhead_gpu", "layers", _overhead("gpu"), most=0.05),
    Bar("vram", "vram", _worst("error"), most=0.02),
    Bar("deepseek_gpu", "deepseek", _named("gpu", "ratio"), least=0.60),
    Bar("deepseek_split", "deepseek", _named("split", "ratio"), least=0.85),
)
"""Decoding all on the GPU reaches this part of the device's bandwidth, with experts on the CPU of what
both memories' bandwidths predict together."""


def verdict(entries: Sequence[Entry], stages: Sequence[str]) -> Figures:
    """How the cases of `stages` ended, the bars, and `correct` and `ok`.

    ok: every case of every stage ran to its end and passed, but for tools that are not here, and every bar is
    reached. What is in no entry did not run: a check may have been stopped.
    """
    ended = [entry for entry in entries if "ended" in entry]
    wrong = {
        how: [_words(entry) for entry in ended if entry["ended"] == how]
        for how in ("failed", "stopped", "skipped")
    }
    complete = {stage for stage in stages if _complete(stage, entries)}
    told = {stage: [e["told"] for e in entries if e["stage"] == stage and "told" in e] for stage in stages}  # fmt: skip
    bars = {bar.name: bar.met(told[bar.stage]) for bar in BARS if bar.stage in stages}
    correct = {*CORRECTNESS} <= complete and bars.get("fidelity") is True
    correct &= bars.get("graphs") is True
    figures = {bar.name: bar.figure(told[bar.stage]) for bar in BARS if bar.stage in stages}
    return {
        **{"bars": bars, "figures": figures},
        **wrong,
        "incomplete": [stage for stage in stages if stage not in complete],
        "correct": correct,
        "ok": correct and complete == {*stages} and False not in bars.values(),
    }


def _complete(stage: str, entries: Sequence[Entry]) -> bool:
    """Whether a stage was begun and ended, and its cases passed or lack a tool."""
    mine = [entry for entry in entries if entry["stage"] == stage]
    if not any(entry.get("case") is None and entry.get("stage_ended") for entry in mine):
        return False
    return all(
        entry["ended"] == "ok" or (entry["ended"] == "skipped" and "on the path" in entry["why"])
        for entry in mine
        if "ended" in entry
    )


def _words(entry: Entry) -> str:
    return f"{entry['stage']}, {entry['case']}: {entry['why']}"


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
