"""`ktchat bench`: a model's speed, against the memory's limit and against llama.cpp."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktchat.cli import background, bench_lookup, bench_model, bench_restore, bench_table, output
from ktchat.common.errors import UsageError
from ktchat.common.text import one_line

if TYPE_CHECKING:
    from engine.evaluation.bench_result import BenchResult, Load
    from engine.evaluation.trace import Trace


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The arguments of `ktchat bench`."""
    parser = subparsers.add_parser(
        "bench",
        help="measure speed, against the memory's limit and against llama.cpp",
        allow_abbrev=False,
    )
    parser.add_argument(
        "-m", "--model", default=argparse.SUPPRESS, metavar="FILE", help="the model to measure"
    )
    parser.add_argument(
        "--shape",
        metavar="NAME",
        help="measure random weights in the shape of a known model (--shape list names them)",
    )
    parser.add_argument(
        "--layers", type=int, metavar="N", help="layers of the shape (default: a few GB of them)"
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="types of the shape's weights (default: those of its usual files)",
    )
    parser.add_argument(
        "--prompt", type=int, default=512, metavar="N", help="tokens read at once (default: 512)"
    )
    parser.add_argument(
        "--gen", type=int, default=64, metavar="N", help="tokens generated (default: 64)"
    )
    parser.add_argument(
        "--context-fill",
        type=int,
        default=0,
        metavar="N",
        help="tokens in the context, at least, before the first is generated",
    )
    parser.add_argument(
        "--lengths",
        metavar="N,N,…",
        help="instead of --prompt: a table of prompts of these lengths, with what limits each",
    )
    parser.add_argument(
        "--kv", choices=["f16", "q8"], default="f16", help="how the context is kept (default: f16)"
    )
    parser.add_argument(
        "--follow-up",
        type=int,
        default=0,
        metavar="N",
        help="also time the first token after N more tokens at the end of that context",
    )
    parser.add_argument(
        "--restore",
        type=int,
        metavar="N",
        help="instead: a session of N tokens brought back from the disk, against reading it again",
    )
    parser.add_argument(
        "--speculation",
        action="store_true",
        help="instead: ten kinds of text with prompt lookup and without",
    )
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="repetitions (default: 5)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: all physical cores")
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "gpu"],
        default="auto",
        help="what computes; auto: the GPU where one can be used (default: auto)",
    )
    parser.add_argument(
        "--vs", choices=["llama.cpp"], help="measure llama.cpp too, in the same rounds"
    )
    parser.add_argument(
        "--trace",
        metavar="FILE",
        help="also write what a chunk of the prompt and a few tokens spend their time on, for"
        " ui.perfetto.dev",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def main(args: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    if args.shape == "list":
        return bench_model.list_shapes()
    if (args.model is None) == (args.shape is None):
        raise UsageError("bench measures either a model or a shape", "", "Use -m FILE or --shape")
    if args.model is not None and (args.layers is not None or args.recipe is not None):
        raise UsageError("--layers and --recipe belong to --shape")
    load = _load(args)
    if args.speculation:
        return _alone(args, bench_lookup)
    if args.restore is not None:
        return _alone(args, bench_restore)
    if args.lengths is not None:
        from ktchat.cli import bench_lengths

        return bench_lengths.run(args, load, lambda report: bench_model.file(args, report))
    target = Path(args.trace) if args.trace is not None else None
    if target is not None:
        from engine.evaluation.trace import check_writable

        check_writable(target)
    result = background.run(lambda report: _measure(args, load, report))
    if args.json:
        output.line(json.dumps(result.to_dict()))
    else:
        for text in bench_table.lines(result):
            output.line(text)
    if target is not None and result.trace is not None:
        _keep_trace(target, result, result.trace, silent=args.json)
    return 0


def _alone(args: argparse.Namespace, part: Any) -> int:
    """One of the measurements that stand alone, a module with `check`, `measure` and `table`."""
    part.check(args)
    result = background.run(
        lambda report: part.measure(args, bench_model.file(args, report), report)
    )
    if args.json:
        output.line(json.dumps(result.to_dict()))
    else:
        for text in part.table(result):
            output.line(text)
    return 0


def _keep_trace(target: Path, result: BenchResult, trace: Trace, silent: bool) -> None:
    from engine.evaluation.bench_trace import SAMPLE, TOKENS
    from engine.evaluation.trace import write_trace

    overhead, sampling = trace.overhead, trace.share(SAMPLE)
    content = trace.to_dict(
        model=result.model,
        quantisation=result.quantisation,
        threads=result.threads,
        overhead=overhead,
    )
    write_trace(target, content)
    if silent:
        return
    output.line()
    output.line(
        f"overhead {100 * overhead:.1f} % of a token's {trace.token_ns / 1e6:.1f} ms, sampling"
        f" ({100 * sampling:.1f} %) included: neither native ops nor a device work meanwhile"
    )
    output.line(
        f"trace of {TOKENS} tokens and a chunk of the prompt: {one_line(str(target), 200)}"
        " (ui.perfetto.dev or chrome://tracing opens it)"
    )


def _load(args: argparse.Namespace) -> Load:
    from engine.errors import RequestError
    from engine.evaluation.bench_result import Load

    if args.threads is not None and not 1 <= args.threads <= 1024:
        raise UsageError(f"{args.threads} threads are not possible")
    try:
        return Load(args.prompt, args.gen, args.rounds, args.context_fill, args.follow_up)
    except RequestError as error:
        raise UsageError(error.what, error.why, error.todo) from error


def _measure(args: argparse.Namespace, load: Load, report: background.Report) -> BenchResult:
    from engine.evaluation.bench import bench

    path = bench_model.file(args, report)
    result = bench(
        path,
        load,
        versus=args.vs is not None,
        threads=args.threads,
        traced=args.trace is not None,
        device=args.device,
        kv=args.kv,
        report=report,
    )
    if args.model is not None and args.threads is None:
        _keep(path, result)
    return result


def _keep(path: Path, result: BenchResult) -> None:
    """Plans of this model say from now on what was measured."""
    from engine.plan.speed import record_run
    from engine.protocol import Figures

    load = result.load
    turn = Figures(
        prompt_tokens=load.prompt,
        reply_tokens=load.generate + 1,
        prefill_seconds=load.prompt / result.prefill_tok_s,
        decode_seconds=load.generate / result.decode_tok_s,
    )
    record_run(path, turn, result.device)
