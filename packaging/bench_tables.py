"""Measures the tables of README.md and packaging/docs/speed.md and writes them between their markers.

`python packaging/bench_tables.py [--write] [--file FILE] [TABLE...]`, or `make bench-tables ARGS="--write types"`.
Each row is one run of `ktchat bench` in a process of its own; it is kept in build/bench-tables as soon as it is there,
so that a table which was interrupted goes on where it was, on the same day, machine and versions. A table stands between
`<!-- table: NAME -->` and `<!-- end of table: NAME -->`, with what it was measured on and how disturbed the hour was.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench_rows import TABLES, Figures, Row

from engine.common.units import byte_size
from engine.evaluation.conditions import conditions

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "build" / "bench-tables"
PLACES = (ROOT / "README.md", ROOT / "packaging" / "docs" / "speed.md")


class TableError(RuntimeError):
    """A table cannot be measured or written."""


def run(arguments: Sequence[str]) -> Figures:
    """The figures of one `ktchat bench`. Raises `TableError`."""
    command = [sys.executable, "-m", "ktchat", "bench", *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise TableError(f"ktchat bench {' '.join(arguments)} ended with {done.returncode}")
    figures: Figures | list[Figures] = json.loads(done.stdout)
    if not isinstance(figures, list):
        return figures
    disturbed = [one["hour"] for one in figures if not one["hour"].startswith("A quiet hour")]
    return {**figures[0], "hour": (disturbed or [figures[0]["hour"]])[0], "lengths": figures}


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


def place(name: str, files: Sequence[Path] = PLACES) -> Path:
    """The file that has a table's marker, or the first: `write` says what it lacks."""
    marker = f"<!-- table: {name} -->"
    return next((path for path in files if marker in path.read_text(encoding="utf-8")), files[0])


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or "not in git"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and perhaps write; returns the exit code."""
    parser = argparse.ArgumentParser(description="Measure the tables of README.md and speed.md.")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}")
    parser.add_argument("--write", action="store_true", help="write them into the file too")
    parser.add_argument("--file", type=Path, help="the file, where not the one that has the marker")
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
                write(args.file or place(name), name, table)
    except TableError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
