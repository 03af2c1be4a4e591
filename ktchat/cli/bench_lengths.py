"""`ktchat bench --lengths`: how speed falls with the length of a conversation, and what limits it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.common.units import byte_size, count
from ktchat.cli import background, output
from ktchat.common.errors import UsageError
from ktchat.common.text import one_line

if TYPE_CHECKING:
    from engine.evaluation.bench_result import BenchResult, Load

LONGEST = 1 << 24


def run(args: argparse.Namespace, load: Load, model: Callable[[background.Report], Path]) -> int:
    """Measure and print; returns the exit code. Raises `UsageError`."""
    loads = [replace(load, prompt=length) for length in _lengths(args.lengths)]
    if load.fill or load.follow_up or args.trace is not None:
        raise UsageError("--lengths goes without --context-fill, --follow-up and --trace")
    results = background.run(lambda report: _measure(args, loads, model(report), report))
    if args.json:
        output.line(json.dumps([result.to_dict() for result in results]))
    else:
        for text in table(results):
            output.line(text)
    return 0


def _lengths(text: str) -> list[int]:
    try:
        lengths = [int(part) for part in text.split(",")]
    except ValueError:
        lengths = []
    if not lengths or not all(1 <= length <= LONGEST for length in lengths):
        raise UsageError(f"{one_line(text, 40)} are no lengths", "", "Use --lengths 512,4096,16384")
    return lengths


def _measure(
    args: argparse.Namespace, loads: Sequence[Load], path: Path, report: background.Report
) -> list[BenchResult]:
    from engine.evaluation.bench import bench_each

    return bench_each(
        path,
        loads,
        versus=args.vs is not None,
        threads=args.threads,
        device=args.device,
        kv=args.kv,
        report=report,
    )


def table(results: Sequence[BenchResult]) -> list[str]:
    """A line for each length: speeds, prefill beside that of the first length, decode beside its bound."""
    first = results[0]
    versus = bool(first.baselines)
    head = f"{'tokens':>8}{'prefill':>16}{'of first':>10}{'decode':>16}{'a token':>11}{'bound':>16}{'of it':>7}"
    lines = [
        f"{one_line(first.model, 80)} · {one_line(first.quantisation, 20)} · KV cache {first.kv}"
        f" · {first.threads} threads · median of {len(first.rounds)} rounds",
        "",
        head + (f"{'× llama.cpp':>20}" if versus else ""),
    ]
    for result in results:
        part = "" if result.limit_ratio is None else f"{100 * result.limit_ratio:.0f} %"
        line = (
            f"{count(result.load.prompt):>8}{_speed(result.prefill_tok_s)}"
            f"{result.prefill_tok_s / first.prefill_tok_s:>10.2f}{_speed(result.decode_tok_s)}"
            f"{byte_size(result.token_bytes):>11}{_speed(result.bound_tok_s)}{part:>7}"
        )
        if versus:
            figures = result.to_dict()
            line += f"{figures['prefill_ratio']:>10.2f}{figures['decode_ratio']:>10.2f}"
        lines.append(line)
    lines += [
        "",
        f"a token: weights and KV cache that decoding one reads; bound: at {first.read_limit_gb_s:.1f} GB/s",
    ]
    return lines


def _speed(tok_s: float) -> str:
    return f"{f'{tok_s:,.1f} tok/s':>16}"
