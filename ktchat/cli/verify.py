"""`ktchat verify`: a model's logits against float32 and against llama.cpp."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.common.cells import ljust
from engine.common.units import count
from ktchat.cli import background, output
from ktchat.common.errors import UsageError
from ktchat.common.text import one_line

if TYPE_CHECKING:
    from engine.evaluation.fidelity import Comparison, Errors
    from engine.evaluation.verification import Verification

DONE, NOT_SHOWN = 0, 1
_DEVICES = {"CPU": "CPU", "GPU": "GPU", "hybrid": "GPU and the CPU"}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The arguments of `ktchat verify`."""
    parser = subparsers.add_parser(
        "verify",
        help="compare a model's logits with float32 and with llama.cpp",
        allow_abbrev=False,
    )
    parser.add_argument(
        "-m", "--model", default=argparse.SUPPRESS, metavar="FILE", help="the model to verify"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: all physical cores")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="draw what is read by this number"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def main(args: argparse.Namespace) -> int:
    """Compare and print; 0 when our logits are as good as llama.cpp's, 1 when not or when none can tell."""
    if args.model is None:
        raise UsageError("verify needs a model", "", "Use -m FILE")
    if args.threads is not None and not 1 <= args.threads <= 1024:
        raise UsageError(f"{args.threads} threads are not possible")
    if args.seed < 0:
        raise UsageError(f"{args.seed} is no seed", "", "Use 0 or more")
    result = background.run(lambda report: _verify(args, report))
    if args.json:
        output.line(json.dumps(_finite(to_dict(result))))
    else:
        for text in _table(result):
            output.line(text)
    return DONE if result.faithful else NOT_SHOWN


def _verify(args: argparse.Namespace, report: background.Report) -> Verification:
    from engine.evaluation.verify import verify

    return verify(Path(args.model), args.threads, report, seed=args.seed)


def to_dict(result: Verification) -> dict[str, Any]:
    """The result as JSON has it."""
    baseline = dataclasses.asdict(result.baseline)
    return {
        "model": result.model,
        "architecture": result.architecture,
        "quantisation": result.quantisation,
        "device": result.device,
        "seed": result.seed,
        "sequences": result.sequences,
        "tokens": result.tokens,
        "ours": dataclasses.asdict(result.ours),
        "peer": {"name": "llama.cpp", "version": result.baseline_version, **baseline},
        "ratio": result.ratio,
        "ratios": {
            "prefill": dataclasses.asdict(result.prefill),
            "decode": dataclasses.asdict(result.decode),
            "total": dataclasses.asdict(result.total),
        },
        "faithful": result.faithful,
        "verdict": result.verdict,
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity: null stands for it."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(result: Verification) -> list[str]:
    return [
        f"{one_line(result.model, 80)} · {one_line(result.architecture, 40)}"
        f" · {one_line(result.quantisation, 20)}",
        f"{result.sequences} sequences, {count(result.tokens)} tokens, against float32, on the"
        f" {_DEVICES[result.device]}; error is squared, relative to the logits",
        "",
        f"{'':<24}{'NMSE':>10}{'typical':>10}{'mean KL':>10}{'max KL':>10}{'top-1':>9}",
        *_rows("ktchat", result.ours),
        *_rows(f"llama.cpp ({result.baseline_version})", result.baseline),
        "",
        result.verdict[0].upper() + result.verdict[1:],
    ]


def _rows(name: str, comparison: Comparison) -> list[str]:
    return [
        _row(name, comparison.total),
        _row("  prompt", comparison.prefill),
        _row("  token by token", comparison.decode),
    ]


def _row(name: str, errors: Errors) -> str:
    figures = (errors.nmse, errors.typical, errors.mean_kl, errors.max_kl)
    cells = "".join(f"{figure:>10.1e}" for figure in figures)
    return f"{ljust(name, 24)}{cells}{100 * errors.top1:>7.1f} %"
