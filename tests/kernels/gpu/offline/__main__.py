"""`make check-gpu`: every kernel compiled for every target on two versions of Triton, and a table of what they take.

`python -m tests.kernels.gpu.offline [--everything] [--versions 3.6.0,3.7.1] [--jobs N] [WORD ...]`; of the
cases only those with every WORD in their names, such as "Q4_K" or "prefill". Results are kept by what they were compiled from
under build/gpu-offline; the last line is JSON, and the exit status is 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tests.kernels.gpu.offline import lanes, launched, report, units, versions

Result = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--everything", action="store_true")
    parser.add_argument("--versions", default=",".join(versions.VERSIONS))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    begin = time.monotonic()
    results: list[Result] = []
    for turn, version in enumerate(options.versions.split(",")):
        for result in _results(version, turn, options):
            results.append(result)
            _say(result, len(results))
    rows = list(_rows(results))
    sys.stdout.write("\n".join(report.table(rows)) + "\n")
    missed = list(_missed(results, rows))
    if not options.words:
        missed += [f"nothing launches {name}" for name in launched.absent(rows)]
    sys.stdout.write("".join(f"MISSED {words}\n" for words in missed))
    summary = {"units": len(results), "kernels": len(rows), "missed": len(missed)}
    summary["cpu_s"] = round(sum(result.get("cpu_s", 0) for result in results))
    summary["cached"] = sum("cached" in result for result in results)
    sys.stdout.write(json.dumps(summary | {"seconds": round(time.monotonic() - begin)}) + "\n")
    return 1 if missed or not results else 0


def _results(version: str, turn: int, options: argparse.Namespace) -> Iterator[Result]:
    """Of all units on one version, as they come; new ones are kept at once."""
    env, file = versions.environment(version), versions.CACHE / f"results-{version}.jsonl"
    chosen = [*units.units(turn, options.everything), *map(units.SAME.__add__, units.WITNESSES)]
    chosen = [unit for unit in chosen if all(word in unit for word in options.words)]
    command = ["-m", "tests.kernels.gpu.offline.worker", str(file)]
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, file.open("a") as kept:
        env["TRITON_CACHE_DIR"] = folder
        for result in lanes.results(chosen, command, env, options.jobs):
            if "key" in result and "cached" not in result:
                kept.write(json.dumps(result) + "\n")
                kept.flush()
            yield result | {"version": version}


def _rows(results: Iterable[Result]) -> Iterator[report.Row]:
    """A row for each kernel and target of the results."""
    for result in results:
        kind, _, case = units.split(result["unit"])[0].rpartition(": ")
        about = {"version": result["version"], "type": kind, "case": case}
        yield from (about | row for row in result.get("rows", ()))


def _missed(results: Iterable[Result], rows: Iterable[report.Row]) -> Iterator[str]:
    for result in results:
        about = f"{result['unit']}, triton {result['version']}"
        if "error" in result:
            yield f"{about}: {result['error']}"
        yield from (f"{about}: {words}" for words in result.get("differences", ()))
    for row in rows:
        about = f"{row['type']} {row['case']}, triton {row['version']}: {row['kernel']} on sm_{row['arch']}"
        yield from (f"{about}: {words}" for words in report.broken(row))


def _say(result: Result, number: int) -> None:
    """Progress, for the person who waits."""
    cached = "kept" if "cached" in result else f"{result.get('cpu_s', 0):.0f} s"
    ended = "FAILED" if "error" in result else cached
    sys.stdout.write(f"{number:4} triton {result['version']}  {result['unit']}: {ended}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
