"""`ktchat run --endpoint`: replies, errors in words, and a key that is in nothing but its own file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ktchat.library.keys import Keys
from ktchat.library.servers import VARIABLE
from tests.support.cli import Program, one_clear_line
from tests.support.model_server import (
    Answer,
    ModelServer,
    delta,
    events,
    model_server,
    refusal,
)

KEY = "sk-k3y.of+the/tests=0123456789"


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "home")


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as found:
        yield found


def test_a_reply_of_a_server(program: Program, server: ModelServer) -> None:
    done = program.run("run", "--endpoint", server.url, "-v", "hello")
    assert (done.returncode, done.stdout) == (0, "Hello there.\n"), done.stderr
    assert f"127.0.0.1:{server.port}" in done.stderr and "3 tokens" in done.stderr
    server.says("And", " on.")
    done = program.run("run", "-c", "go on")
    assert (done.returncode, done.stdout) == (0, "And on.\n"), done.stderr
    (session,) = program.sessions()
    model = f"tiny · 127.0.0.1:{server.port}"
    assert [turn.model for turn in session.turns] == [model, model]
    assert session.model_path == f"{server.url}#tiny"
    assert len(server.replies[-1].body["messages"]) == 3


def test_options_that_make_no_sense(program: Program) -> None:
    for arguments, words in (
        (("--endpoint", "http://h", "-m", "x.gguf"), "Leave out -m or --endpoint"),
        (("--remote-model", "x"), "goes with --endpoint"),
        (("--endpoint", f"http://me:{KEY}@h"), "It holds a password"),
        (("--endpoint", "ftp://h"), "neither http nor https"),
    ):
        done = program.run("run", *arguments, "hi")
        assert done.returncode == 2 and one_clear_line(done.stderr), done.stderr
        assert words in done.stderr and KEY not in done.stderr


def test_options_stand_before_and_behind_the_command(program: Program, server: ModelServer) -> None:
    server.serves("a", "b")
    done = program.run("--endpoint", server.url, "run", "--remote-model", "b", "hi")
    assert done.stdout == "Hello there.\n", done.stderr
    assert server.replies[0].body["model"] == "b"
    done = program.run("run", "--endpoint", server.url, "hi")
    assert done.returncode == 1 and "has 2 models" in done.stderr and one_clear_line(done.stderr)


def test_what_fails_is_one_line(program: Program, server: ModelServer) -> None:
    for answer in (refusal(401, "no"), refusal(429, "slow", Retry_After="9"), refusal(500, "boom")):
        server.answers.append(answer)
        done = program.run("run", "--endpoint", server.url, "--no-save", "hi")
        assert done.returncode == 1 and one_clear_line(done.stderr) and done.stdout == ""
    server.close()
    done = program.run("run", "--endpoint", server.url, "hi")
    assert done.returncode == 1 and "cannot be reached" in done.stderr


def test_what_came_before_a_stream_broke_is_printed_and_kept(
    program: Program, server: ModelServer
) -> None:
    server.answers.append(Answer([events(delta(content="So far"))], cut=True))
    done = program.run("run", "--endpoint", server.url, "hi")
    assert (done.returncode, done.stdout) == (1, "So far\n") and "broke off" in done.stderr
    assert program.sessions()[0].turns[0].raw_reply == "So far"


def test_the_key_is_nowhere_but_in_its_file(
    program: Program, server: ModelServer, tmp_path: Path
) -> None:
    """Kept in the file: found there and nowhere else, whatever goes wrong and whatever is printed."""
    Keys(program.home / "keys.json").keep(server.url.removesuffix("/v1"), KEY)
    outputs = _everything_that_prints(program, server, tmp_path)
    assert all(r.headers["authorization"] == f"Bearer {KEY}" for r in server.requests)
    assert KEY not in outputs
    assert _files_with(program.home) == ["keys.json"]


def test_the_key_of_the_environment_is_kept_nowhere(
    program: Program, server: ModelServer, tmp_path: Path
) -> None:
    program.variables[VARIABLE] = KEY
    outputs = _everything_that_prints(program, server, tmp_path)
    assert all(r.headers["authorization"] == f"Bearer {KEY}" for r in server.requests)
    assert KEY not in outputs and _files_with(program.home) == []
    # It is for the server that the command line names: no other one gets it.
    with model_server() as other:
        home = program.home
        (home / "servers.toml").write_text(f'[[server]]\naddress = "{other.url}"\n')
        text = (home / "settings.toml").read_text() if (home / "settings.toml").exists() else ""
        assert KEY not in text
        done = program.run("run", "--endpoint", other.url, "hi", env={VARIABLE: ""})
        assert done.returncode == 0 and "authorization" not in other.requests[-1].headers


def test_a_key_in_clear_is_refused_with_words(program: Program) -> None:
    program.variables[VARIABLE] = KEY
    done = program.run("run", "--endpoint", "http://192.0.2.1:9/v1", "hi")
    assert done.returncode == 1 and "was not sent" in done.stderr and one_clear_line(done.stderr)
    assert KEY not in done.stderr


def _everything_that_prints(program: Program, server: ModelServer, tmp_path: Path) -> str:
    """All outputs of replies, failures in which the server echoes the key, and exports."""
    endpoint = ("--endpoint", server.url)
    server.answers += [
        Answer([events(delta(content="a reply")), b"data: {"], cut=True),
        refusal(401, f"Incorrect API key provided: {KEY}"),
        refusal(400, f"Authorization: Bearer {KEY} is odd"),
        Answer([events({"error": {"message": f"failed for {KEY}"}})]),
    ]
    said = []
    for arguments in (
        *[("run", *endpoint, "-v", "hi")] * 4,
        ("run", *endpoint, "--json", "hi"),
        ("sessions", "list"),
    ):
        done = program.run(*arguments)
        said.append(done.stdout + done.stderr)
    for session, form in zip(program.sessions(), ("json", "markdown", "html"), strict=False):
        done = program.run("sessions", "export", session.id, "--format", form)
        said.append(done.stdout + done.stderr)
    assert any("…" in text for text in said) and json.dumps(said)
    return "\n".join(said)


def _files_with(folder: Path) -> list[str]:
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            if KEY.encode() in (Path(place) / name).read_bytes():
                found.append(name)
    return found
