"""The tables of README: written between their markers, a run kept as soon as it is there, nothing hidden."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "packaging"))

import bench_tables  # noqa: E402

from ktchat import cli  # noqa: E402

TODAY = bench_tables.conditions()


def figures(**changes: Any) -> dict[str, Any]:
    return {
        "prefill_tok_s": 291.2,
        "prefill_ratio": 3.444,
        "decode_tok_s": 46.04,
        "decode_ratio": 1.7,
        "limit_ratio": 0.79,
        "read_limit_gb_s": 20.2,
        "hour": "A quiet hour: all of it.",
        "conditions": asdict(TODAY),
        **changes,
    }


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bench_tables, "KEPT", tmp_path / "kept")
    return tmp_path / "kept"


def test_a_table_says_what_it_was_measured_on_and_how_disturbed_it_was() -> None:
    table = bench_tables.text("guide", [figures()], "abc123")
    head, rule, row, empty, below = table.splitlines()
    assert head.count("|") == rule.count("|") == row.count("|") == 8 and empty == ""
    assert row == "| guide | 291 | 3.44 | 46.0 | 1.70 | 79 % | 20.2 |"
    for part in (TODAY.processor, f"{TODAY.isa} kernels", TODAY.date, "llama.cpp 0.3", "abc123"):
        assert part in below
    assert 'ARGS="--write guide"' in below and below.endswith("Every round was quiet.")
    table = bench_tables.text("guide", [figures(hour="A disturbed hour: so.")], "abc123")
    assert table.endswith("guide: A disturbed hour: so.")


def test_a_table_of_kinds_has_a_line_for_each() -> None:
    kind = {"kind": "prose", "tokens": 9, "plain_tok_s": 10.0, "lookup_tok_s": 9.9, "ratio": 0.99}
    run = figures(kinds=[kind, {**kind, "kind": "lists"}])
    lines = bench_tables.text("lookup", [run, run], "abc").splitlines()
    assert lines[2] == "| dense, prose | 9 | 10.0 | 9.9 | 0.99 |"
    assert [line.split(" | ")[0] for line in lines[3:6]] == [
        *("| dense, lists", "| experts, prose", "| experts, lists")
    ]


def test_a_table_of_lengths_has_a_line_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [
        figures(prompt=512, token_bytes=125_000_000, bound_tok_s=276.2, limit_ratio=0.85),
        figures(prompt=4096, token_bytes=140_000_000, bound_tok_s=250.1, prefill_tok_s=145.6),
    ]
    lengths[1]["hour"] = "A disturbed hour: so."
    done = subprocess.CompletedProcess([], 0, json.dumps(lengths))
    monkeypatch.setattr(bench_tables.subprocess, "run", lambda *args, **kwargs: done)
    run = bench_tables.run([])
    lines = bench_tables.text("lengths", [run, run], "abc").splitlines()
    assert lines[2] == "| qwen3-30b-a3b, 512 | 291 | 1.00 | 46.0 | 125 MB | 276 | 85 % |"
    assert lines[3] == "| qwen3-30b-a3b, 4096 | 146 | 0.50 | 46.0 | 140 MB | 250 | 79 % |"
    assert len(lines) == 8 and "A disturbed hour" in lines[-1]


def test_tables_stand_where_their_markers_are(tmp_path: Path) -> None:
    files = (tmp_path / "a.md", tmp_path / "b.md")
    files[0].write_text("# A\n")
    files[1].write_text("<!-- table: guide -->\n<!-- end of table: guide -->\n")
    assert bench_tables.place("guide", files) == files[1]
    assert bench_tables.place("types", files) == files[0]
    places = [path.read_text(encoding="utf-8") for path in bench_tables.PLACES]
    for name in ("speed", "types", "few-bits", "lengths", "lookup"):
        marks = [f"<!-- table: {name} -->", f"<!-- end of table: {name} -->"]
        assert [sum(text.count(mark) for text in places) for mark in marks] == [1, 1]


def test_it_is_written_between_its_markers_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("# A\n<!-- table: guide -->\nold\n<!-- end of table: guide -->\nbehind\n")
    bench_tables.write(path, "guide", "| new |")
    bench_tables.write(path, "guide", "| newer |")
    assert path.read_text() == (
        "# A\n<!-- table: guide -->\n| newer |\n<!-- end of table: guide -->\nbehind\n"
    )
    with pytest.raises(bench_tables.TableError, match="<!-- table: types -->"):
        bench_tables.write(path, "types", "| new |")
    path.write_text("<!-- table: guide --><!-- table: guide --><!-- end of table: guide -->")
    with pytest.raises(bench_tables.TableError, match="no place"):
        bench_tables.write(path, "guide", "| new |")


def test_a_run_is_kept_for_the_day_and_the_machine(kept: Path) -> None:
    row = bench_tables.TABLES["guide"].rows[0]
    runs: list[Sequence[str]] = []

    def bench(arguments: Sequence[str]) -> dict[str, Any]:
        runs.append(arguments)
        return figures()

    def again(fresh: bool = False) -> int:
        assert bench_tables.measured("guide", row, fresh, bench)["decode_tok_s"] == 46.04
        return len(runs)

    assert (again(), again(), again(fresh=True), again()) == (1, 1, 2, 2)
    path = kept / "guide" / "0.json"
    path.write_text(path.read_text().replace(TODAY.date, "2001-01-01"))
    assert again() == 3
    assert list(kept.rglob("*.part")) == []


def test_a_failed_run_is_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: Sequence[str]) -> dict[str, Any]:
        raise bench_tables.TableError("ktchat bench ended with 1")

    monkeypatch.setattr(bench_tables.measured, "__defaults__", (fail,))
    assert bench_tables.main(["guide", "--write", "--file", str(tmp_path / "README.md")]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.splitlines()[-1] == "ktchat bench ended with 1"
    assert bench_tables.main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in bench_tables.TABLES)


def test_every_row_is_a_command_that_there_is() -> None:
    parser = cli._parser("bench")
    for table in bench_tables.TABLES.values():
        assert table.minutes >= 1
        for row in table.rows:
            args = parser.parse_args(["bench", *row.arguments])
            assert (args.model is None) == (getattr(args, "shape", None) is not None)
