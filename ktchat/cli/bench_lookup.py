"""`ktchat bench --speculation`: ten kinds of text with prompt lookup and without."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engine.common.units import count
from ktchat.cli import background
from ktchat.common import paths
from ktchat.common.errors import UsageError
from ktchat.common.text import one_line

if TYPE_CHECKING:
    import argparse

    from engine.evaluation.lookup import LookupResult, Pair


def check(args: argparse.Namespace) -> None:
    """Raises `UsageError` for options that say nothing of this."""
    if args.rounds < 1:
        raise UsageError(f"rounds {args.rounds} is not possible", "", "Use 1 or more")
    if args.vs is not None or args.trace is not None or args.follow_up or args.restore is not None:
        raise UsageError(
            "--speculation measures that alone",
            "",
            "Leave out --vs, --trace, --follow-up and --restore",
        )
    if args.device == "gpu":
        raise UsageError("Drafts are verified on the CPU only", "", "Leave out --device gpu")


def measure(args: argparse.Namespace, path: Path, report: background.Report) -> LookupResult:
    """The measurement. A shape has no vocabulary: its tokens are the guide's."""
    from engine.evaluation.lookup import bench_lookup

    vocabulary = None if args.shape is None else paths.guide_model()
    return bench_lookup(
        *(path, args.rounds), threads=args.threads, vocabulary=vocabulary, report=report
    )


def table(result: LookupResult) -> list[str]:
    """The result in lines."""
    costs = ", ".join(f"{size} tokens {cost:.2f}" for size, cost in result.costs.items())
    return [
        f"{one_line(result.model, 80)} · {one_line(result.quantisation, 20)}"
        f" · {result.threads} threads",
        "",
        f"{'':<16}{'tokens':>8}{'without':>16}{'lookup':>16}{'ratio':>8}{'drafts right':>16}",
        *(
            f"{kind.kind:<16}{count(kind.tokens):>8}{f'{kind.plain_tok_s:,.1f} tok/s':>16}"
            f"{f'{kind.lookup_tok_s:,.1f} tok/s':>16}{kind.ratio:>8.2f}{_right(kind.counted):>16}"
            for kind in result.kinds
        ),
        "",
        f"The least ratio is {result.least_ratio:.3f}."
        + (f" A pass costs, in passes of one token: {costs}." if costs else ""),
        *(
            f"not counted: {kind.kind} {pair.plain_tok_s:,.1f} and {pair.lookup_tok_s:,.1f} tok/s:"
            f" {pair.disturbance.words}"
            for kind in result.kinds
            if len(kind.counted) < len(kind.pairs)
            for pair in kind.pairs
            if not pair.disturbance.quiet
        ),
        result.hour,
    ]


def _right(pairs: tuple[Pair, ...]) -> str:
    return f"{pairs[-1].accepted} of {pairs[-1].drafted}"
