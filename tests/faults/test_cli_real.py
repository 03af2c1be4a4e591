"""The command line over the real engine and a tiny random model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from engine.common.figures import Figures
from kernels.cpu.build import build
from tests.support.cli import Program, one_clear_line
from tests.support.clock import PATIENCE, assert_within, until, within
from tests.support.tiny import tiny_model

pytestmark = pytest.mark.xdist_group("clock")


@pytest.fixture(scope="module")
def model(models: Path) -> Path:
    build()  # a library older than its sources would be built in the middle of a test
    return tiny_model("qwen3moe", models)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "home")


def children(pid: int) -> list[int]:
    """Child processes that are alive."""
    tasks = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in tasks.read_text().split()]


def gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def held(program: Program, model: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A run in the middle of its reply, and its engine, which is stopped (SIGSTOP) there.

    A random model may end its reply at once: then the next run is taken.
    """
    for seed in range(20):
        process = program.start(
            *("run", "-m", str(model), "--json", "--temperature", "5", "--top-k", "0"),
            *("--seed", str(seed), "hi"),
            start_new_session=True,
        )
        assert process.stdout is not None
        seen = b""
        while b'"text"' not in seen and (chunk := os.read(process.stdout.fileno(), 4096)):
            seen += chunk
        engines = children(process.pid)
        for pid in engines:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(0.1)
        os.set_blocking(process.stdout.fileno(), False)
        while chunk := process.stdout.read(65536) or b"":
            seen += chunk
        os.set_blocking(process.stdout.fileno(), True)
        if engines and process.poll() is None and b'"finished"' not in seen:
            return process, engines
        process.kill()
        process.communicate()
    raise AssertionError("no reply was long enough")


def test_a_reply_and_its_continuation(program: Program, model: Path) -> None:
    arguments = ("-m", str(model), "--seed", "3", "--max-tokens", "12", "--json")
    done = program.run("run", *arguments, "hello")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert events[-1]["event"] == "finished" and events[-1]["figures"]["seed"] == 3
    again = program.run("run", "-c", *arguments, "and then?")
    assert again.returncode == 0, again.stderr
    (session,) = program.sessions()
    assert [turn.prompt for turn in session.turns] == ["hello", "and then?"]
    assert session.model_path == str(model)
    first, second = (turn.figures for turn in session.turns)
    assert first and second and second.prompt_tokens > first.prompt_tokens
    assert (
        0
        < first.prompt_tokens - 1
        <= second.restored_tokens
        <= second.cached_tokens
        < second.prompt_tokens
    )
    kv = program.home / "kv"
    files = [path for path in kv.rglob("*") if path.suffix in (".page", ".end")]
    assert files and {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (kv, files[0].parent)} == {0o700}
    assert "answer at once" in program.run("sessions", "list").stdout
    size = sum(path.stat().st_size for path in files)
    cleared = json.loads(program.run("sessions", "cache", "--clear", "--json").stdout)
    assert cleared == {"path": str(kv), "bytes": 0, "freed": size}
    assert not any(path.exists() for path in files)
    assert "0 B on the disk" in program.run("sessions", "cache").stdout
    assert "answer at once" not in program.run("sessions", "list").stdout


def test_the_same_seed_gives_the_same_reply(program: Program, model: Path) -> None:
    arguments = ("run", "-m", str(model), "--seed", "5", "--max-tokens", "16", "hello")
    replies = {program.run(*arguments).stdout for _ in range(2)}
    assert len(replies) == 1


def test_the_first_word_comes_soon(program: Program, model: Path) -> None:
    program.run("run", "-m", str(model), "--max-tokens", "1", "hi")
    times = []
    for _ in range(3):
        start = time.monotonic()
        process = program.start("run", "-m", str(model), "--max-tokens", "400", "hi")
        assert process.stdout is not None and process.stdout.read(1)
        times.append(time.monotonic() - start)
        process.kill()
        process.communicate()
    assert_within(min(times), 1.5)


def test_a_prompt_longer_than_the_context_is_refused_with_the_numbers(
    program: Program, model: Path
) -> None:
    done = program.run("run", "-m", str(model), input="many words " * 5000)
    assert done.returncode == 1 and done.stdout == ""
    assert one_clear_line(done.stderr) and any(char.isdigit() for char in done.stderr)
    assert "does not fit into the context" in done.stderr
    assert not program.sessions()  # nothing was begun with it


@pytest.mark.parametrize("part", [0.001, 0.1, 0.5, 0.999])
def test_a_truncated_model_is_refused(
    program: Program, model: Path, tmp_path: Path, part: float
) -> None:
    data = model.read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(data[: int(len(data) * part)])
    done = program.run("run", "-m", str(cut), "hi")
    assert done.returncode == 1 and done.stdout == ""
    assert one_clear_line(done.stderr) and "cut.gguf" in done.stderr


def test_ctrl_c_ends_the_engine_too(program: Program, model: Path) -> None:
    process, engines = held(program, model)
    start = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    for pid in engines:
        os.kill(pid, signal.SIGCONT)
    _, err = process.communicate(timeout=PATIENCE)
    in_time = time.monotonic() - start < 1
    assert (process.returncode, err) == (130, b"")
    with within(2):
        until(lambda: all(gone(pid) for pid in engines))
    # A random model may have said its last token when it was held, and only not have told so.
    state = program.sessions()[0].turns[0].state
    assert state in ("stopped", "complete") or not in_time


def test_ctrl_c_ends_an_engine_that_hangs(program: Program, model: Path) -> None:
    process, engines = held(program, model)
    with within(2.5):
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    with within(2):
        until(lambda: all(gone(pid) for pid in engines))
    turn = program.sessions()[0].turns[0]
    assert turn.state in ("stopped", "interrupted") and turn.raw_reply


def test_a_killed_program_leaves_no_engine_behind(program: Program, model: Path) -> None:
    process, engines = held(program, model)
    process.kill()
    process.communicate()
    for pid in engines:
        os.kill(pid, signal.SIGCONT)
    with within(2):
        until(lambda: all(gone(pid) for pid in engines))


def test_a_killed_engine_is_one_clear_line_and_what_came_is_kept(
    program: Program, model: Path
) -> None:
    process, engines = held(program, model)
    for pid in engines:
        os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and one_clear_line(err.decode())
    turn = program.sessions()[0].turns[0]
    assert turn.state == "failed" and turn.raw_reply and turn.error is not None


def test_the_speed_of_a_run_replaces_the_prediction(program: Program, model: Path) -> None:
    assert not json.loads(program.run("plan", str(model), "--json").stdout)["measured"]
    for seed in range(20):  # a random model may end its reply at once
        done = program.run(
            *("run", "-m", str(model), "--json", "--temperature", "5", "--top-k", "0"),
            *("--seed", str(seed), "--max-tokens", "16", "hi"),
        )
        figures = json.loads(done.stdout.splitlines()[-1])["figures"]
        if figures["reply_tokens"] >= 8:
            break
    plan = json.loads(program.run("plan", str(model), "--json").stdout)
    reached = Figures(**figures).one_by_one_tok_s
    assert plan["measured"] and plan["decode_tok_s"] == pytest.approx(reached, rel=0.01)
    assert any("(measured here)" in line for line in plan["words"])
