"""Measures the tables of README.md and writes them between their markers.

`python packaging/bench_tables.py [--write] [--file README.md] [TABLE...]`, or `make bench-tables ARGS="--write types"`.
Each row is one run of `ktchat bench` in a process of its own; it is kept in build/bench-tables as soon as it is there,
so that a table which was interrupted goes on where it was, on the same day, machine and versions. A table stands between
`<!-- table: NAME -->` and `<!-- end of table: NAME -->`, with what it was measured on and how disturbed the hour was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.common.units import byte_size
from engine.evaluation.conditions import conditions

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "build" / "bench-tables"

Figures = dict[str, Any]
"""What `ktchat bench --json` prints."""
Column = tuple[str, Callable[[Figures], str]]


class TableError(RuntimeError):
    """A table cannot be measured or written."""


@dataclass(frozen=True)
class Row:
    """What a row is about, and the arguments of its `ktchat bench`."""

    name: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """`minutes`: about how long it takes on two cores in a quiet hour."""

    caption: str
    minutes: int
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    lines: Callable[[Row, Figures], Iterator[tuple[str, Figures]]] = lambda row, figures: iter(
        [(row.name, figures)]
    )
    """The lines of one run: their names and figures."""


def _ratio(key: str) -> Callable[[Figures], str]:
    return lambda figures: "" if figures[key] is None else f"{figures[key]:.2f}"


def _speed(key: str) -> Callable[[Figures], str]:
    return lambda figures: f"{figures[key]:.1f}" if figures[key] < 99.95 else f"{figures[key]:.0f}"


def _share(figures: Figures) -> str:
    return "" if figures["limit_ratio"] is None else f"{100 * figures['limit_ratio']:.0f} %"


def _seconds(figures: Figures) -> str:
    return f"{figures['follow_up_s']:.2f} s, {figures['follow_up_ratio']:.2f}"


SPEEDS: tuple[Column, ...] = (
    ("prefill tok/s", _speed("prefill_tok_s")),
    ("x llama.cpp", _ratio("prefill_ratio")),
    ("decode tok/s", _speed("decode_tok_s")),
    ("x llama.cpp", _ratio("decode_ratio")),
    ("of the memory's speed", _share),
    ("GB/s that it gave", lambda figures: f"{figures['read_limit_gb_s']:.1f}"),
)
LOOKUP: tuple[Column, ...] = (
    ("tokens", lambda figures: str(figures["tokens"])),
    ("tok/s without", _speed("plain_tok_s")),
    ("tok/s with lookup", _speed("lookup_tok_s")),
    ("ratio", _ratio("ratio")),
)


def _shape(name: str, layers: int, *more: str) -> tuple[str, ...]:
    return "--shape", name, "--layers", str(layers), "--vs", "llama.cpp", *more


def _kinds(row: Row, figures: Figures) -> Iterator[tuple[str, Figures]]:
    """Of `ktchat bench --speculation`: a line for each kind of text."""
    return ((f"{row.name}{kind['kind']}", kind) for kind in figures["kinds"])


BEHIND = ("--context-fill", "4000", "--gen", "32", "--follow-up", "32", "--rounds", "1")
GUIDE = (
    *("-m", "assets/ktchat-guide.gguf", "--prompt", "64", "--gen", "16"),
    *("--rounds", "2", "--vs", "llama.cpp"),
)

TABLES = {
    "types": Table(
        "qwen3-30b-a3b shapes (8 of 48 layers), a prompt of 512 tokens, 64 generated",
        25,
        SPEEDS,
        tuple(
            Row(recipe, _shape("qwen3-30b-a3b", 8, "--recipe", recipe))
            for recipe in ("Q4_K_M", "Q5_K_M", "Q6_K", "IQ4_XS", "Q8_0", "MXFP4", "Q2_K")
        ),
    ),
    "families": Table(
        "a prompt of 512 tokens, 32 generated and 32 more tokens read behind 4000; the first token's wait beside"
        " llama.cpp's",
        60,
        (*SPEEDS[:5], ("32 more tokens", _seconds)),
        tuple(
            Row(f"{name}, {layers} layers", _shape(name, layers, *BEHIND))
            for name, layers in (
                *(("gpt-oss-20b", 4), ("gemma-4-26b-a4b", 6), ("glm-4.5-air", 3)),
                *(("minimax-m2", 2), ("qwen3-next-80b", 4), ("qwen3.6-35b-a3b", 8)),
                ("deepseek-v2-lite", 8),
            )
        ),
    ),
    "lengths": Table(
        "qwen3-30b-a3b shapes (4 of 48 layers), Q4_K_M: 32 tokens generated behind so many",
        60,
        SPEEDS,
        tuple(
            Row(
                f"{length} tokens",
                _shape(
                    *("qwen3-30b-a3b", 4, "--recipe", "Q4_K_M", "--prompt", str(length)),
                    *("--gen", "32", "--rounds", "1"),
                ),
            )
            for length in (512, 4096, 16384, 32768)
        ),
    ),
    "lookup": Table(
        "ten kinds of text replayed with prompt lookup and without, qwen3-4b (dense, 8 of 36 layers) and"
        " qwen3-30b-a3b (experts, 8 of 48 layers) shapes",
        20,
        LOOKUP,
        tuple(
            Row(f"{words}, ", ("--shape", name, "--layers", "8", "--speculation", "--rounds", "1"))
            for words, name in (("dense", "qwen3-4b"), ("experts", "qwen3-30b-a3b"))
        ),
        _kinds,
    ),
    "guide": Table(
        "the built-in guide, a prompt of 64 tokens, 16 generated",
        1,
        SPEEDS,
        (Row("guide", GUIDE),),
    ),
}


def run(arguments: Sequence[str]) -> Figures:
    """The figures of one `ktchat bench`. Raises `TableError`."""
    command = [sys.executable, "-m", "ktchat", "bench", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise TableError(f"ktchat bench {' '.join(arguments)} ended with {done.returncode}")
    figures: Figures = json.loads(done.stdout)
    return figures


def measured(
    name: str, row: Row, fresh: bool, bench: Callable[[Sequence[str]], Figures] = run
) -> Figures:
    """A row's figures: those that are kept where they are of today, this machine and these versions."""
    path = KEPT / name / f"{TABLES[name].rows.index(row)}.json"
    today = asdict(conditions())
    if not fresh and path.exists():
        kept: dict[str, Any] = json.loads(path.read_text())
        if kept["arguments"] == list(row.arguments) and kept["figures"]["conditions"] == today:
            return dict(kept["figures"])
    figures = bench(row.arguments)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"arguments": row.arguments, "figures": figures}))
    part.replace(path)
    return figures


def text(name: str, rows: Sequence[Figures], commit: str) -> str:
    """The table as Markdown, and below it what it was measured on."""
    table = TABLES[name]
    heads = ["", *(head for head, _ in table.columns)]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row, figures in zip(table.rows, rows, strict=True):
        for label, one in table.lines(row, figures):
            cells = [label, *(cell(one) for _, cell in table.columns)]
            lines.append(f"| {' | '.join(cells)} |")
    made = rows[0]["conditions"]
    versions = ", ".join(
        f"{package} {number}".strip() for package, number in made["versions"].items()
    )
    where = (
        f"{made['processor']}, {made['cores']} cores, {made['isa']} kernels,"
        f" {byte_size(made['memory_bytes'])} of memory; {versions}, {commit}; {made['date']}"
    )
    hours = [figures["hour"] for figures in rows if not figures["hour"].startswith("A quiet hour")]
    disturbed = [
        f"{row.name.strip(' ,')}: {figures['hour']}"
        for row, figures in zip(table.rows, rows, strict=True)
        if figures["hour"] in hours
    ]
    caption = f'{table.caption[0].upper()}{table.caption[1:]}. {where}: `make bench-tables ARGS="--write {name}"`.'
    return "\n".join([*lines, "", " ".join([caption, *(disturbed or ["Every round was quiet."])])])


def write(path: Path, name: str, table: str) -> None:
    """Put a table between its markers. Raises `TableError` where they are not there, once, in this order."""
    begin, end = f"<!-- table: {name} -->", f"<!-- end of table: {name} -->"
    content = path.read_text(encoding="utf-8")
    before, found, rest = content.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed) or begin in rest or end in after:
        raise TableError(f"{path} has no place for it: two lines, {begin} and {end}")
    part = path.with_name(f".{path.name}.part")
    part.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")
    part.replace(path)


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or "not in git"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and perhaps write; returns the exit code."""
    parser = argparse.ArgumentParser(description="Measure the tables of README.md.")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}")
    parser.add_argument("--write", action="store_true", help="write them into the file too")
    parser.add_argument("--file", type=Path, default=ROOT / "README.md")
    parser.add_argument("--fresh", action="store_true", help="measure rows of today again")
    args = parser.parse_args(arguments)
    if unknown := set(args.tables) - TABLES.keys():
        parser.error(f"there is no table {', '.join(sorted(unknown))}: {', '.join(TABLES)}")
    if not args.tables:
        for name, table in TABLES.items():
            print(f"{name:<10} about {table.minutes} min, {len(table.rows)} runs: {table.caption}")
        return 0
    try:
        for name in args.tables:
            rows = []
            for row in TABLES[name].rows:
                print(f"{name}: {row.name.strip(' ,')}", file=sys.stderr, flush=True)
                rows.append(measured(name, row, args.fresh))
            table = text(name, rows, _commit())
            print(table, flush=True)
            if args.write:
                write(args.file, name, table)
    except TableError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
