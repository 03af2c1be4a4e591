"""What `ktchat bench` prints of a measurement: both sides, what follows from them, and how quiet it was."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from engine.common.cells import ljust
from engine.common.units import byte_size, count
from ktchat.common.text import one_line

if TYPE_CHECKING:
    from engine.evaluation.bench_result import BenchResult


def lines(result: BenchResult) -> list[str]:
    """The result in lines."""
    load = result.load
    figures = result.to_dict()
    threads = f"{result.threads} threads"
    if result.device != "CPU":
        threads = result.device if result.device == "GPU" else f"GPU and {threads}"
    limit = ""
    if result.limit_ratio is not None:
        part = f"{100 * result.limit_ratio:.0f} %"
        limit = f", {part} of the {result.read_limit_gb_s:.1f} GB/s that memory gives"
    out = [
        f"{one_line(result.model, 80)} · {one_line(result.quantisation, 20)}"
        f" · {byte_size(result.weights_bytes)}",
        f"prompt {count(load.prompt)}, generated {count(load.generate)} with"
        f" {count(load.before)} before · {threads}"
        f" · median of {len(result.counted)} rounds",
        "",
        f"{'':<20}{'prefill':>16}{'decode':>16}",
        _row("ktchat", result.prefill_tok_s, result.decode_tok_s),
    ]
    peer = figures["peer"]
    if peer is not None:
        name = f"{peer['name']} ({peer['version']})"
        out.append(_row(name, peer["prefill_tok_s"], peer["decode_tok_s"]))
        out.append(
            f"{'ratio':<20}{figures['prefill_ratio']:>16.2f}{figures['decode_ratio']:>16.2f}"
        )
    out += [
        "",
        f"A token reads {byte_size(result.token_bytes)}: {result.decode_gb_s:.1f} GB/s" + limit,
    ]
    if peer is not None:
        out.append(f"decode ratio by round: {_spread(result.decode_ratios)}")
        out.append(f"prefill ratio by round: {_spread(result.prefill_ratios)}")
    if result.follow_up_s is not None:
        out.append(
            f"{count(load.follow_up)} more tokens after {count(load.decoded)}: first token in"
            f" {result.follow_up_s:.2f} s" + _of_its(result.follow_up_ratio)
        )
    if result.second_turn_s is not None:
        out.append(
            f"The same where the {count(load.generate)} before are left out, as thinking is:"
            f" {result.second_turn_s:.2f} s" + _of_its(result.second_turn_ratio)
        )
    return [*out, *_left_out(result), result.hour]


def _left_out(result: BenchResult) -> list[str]:
    """The rounds that do not count, with what they gave."""
    if len(result.counted) == len(result.rounds):
        return []
    return [
        f"not counted: prefill {one.ours.prefill_tok_s:,.1f}, decode {one.ours.decode_tok_s:,.1f} tok/s:"
        f" {one.disturbance.words}"
        for one in result.rounds
        if not one.disturbance.quiet
    ]


def _of_its(ratio: float | None) -> str:
    return f", {ratio:.2f} of llama.cpp's" if ratio else ""


def _row(name: str, prefill: float, decode: float) -> str:
    return f"{ljust(name, 20)}" + "".join(
        f"{f'{speed:,.1f} tok/s':>16}" for speed in (prefill, decode)
    )


def _spread(ratios: list[float]) -> str:
    listed = " ".join(f"{ratio:.2f}" for ratio in ratios)
    return f"{listed} (median {statistics.median(ratios):.2f})"
