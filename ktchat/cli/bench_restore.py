"""`ktchat bench --restore N`: a session of N tokens that is opened again, against reading it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engine.common.units import byte_size, count
from ktchat.cli import background
from ktchat.common import paths
from ktchat.common.errors import UsageError
from ktchat.common.text import one_line

if TYPE_CHECKING:
    import argparse

    from engine.evaluation.restoring import RestoreResult


def check(args: argparse.Namespace) -> None:
    """Raises `UsageError` for options that say nothing of this."""
    if args.restore < 1:
        raise UsageError(f"restore {args.restore} is not possible", "", "Use 1 or more")
    if args.vs is not None or args.trace is not None or args.follow_up:
        raise UsageError(
            "--restore measures that alone", "", "Leave out --vs, --trace, --follow-up"
        )


def measure(args: argparse.Namespace, path: Path, report: background.Report) -> RestoreResult:
    """The measurement; its files lie beside the saved sessions meanwhile."""
    from engine.evaluation.restoring import bench_restore

    return bench_restore(
        *(path, args.restore, paths.data_folder()),
        threads=args.threads,
        device=args.device,
        report=report,
    )


def table(result: RestoreResult) -> list[str]:
    """The result in lines."""
    came = "the disk" if result.cold else "the disk or the system's memory"
    to_the_bit = "the same to the bit" if result.same else "not the same to the bit"
    return [
        f"{one_line(result.model, 80)} · {one_line(result.quantisation, 20)} · {result.device}",
        f"{count(result.tokens)} tokens and {count(result.more)} more",
        "",
        f"read        first token in {result.read_s:.2f} s",
        f"restored    first token in {result.first_token_s:.2f} s: {count(result.restored)} from"
        f" {came}, {count(result.tokens + result.more - result.restored)} read",
        f"            {100 * result.share:.2f} % of reading; logits {to_the_bit}",
        f"written     {byte_size(result.kv_bytes)} in {result.write_s:.1f} s, after the reply",
    ]
