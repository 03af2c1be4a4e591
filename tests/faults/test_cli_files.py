"""`ktchat run -f FILE`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import Program
from tests.support.pdf import drawn, pdf

ECHO: dict[str, object] = {}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "home")


def test_files_go_with_the_message_and_are_kept(program: Program, tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_bytes("Größe".encode("latin-1"))
    (tmp_path / "p.pdf").write_bytes(pdf(drawn("Hello experts")))
    files = ["-f", str(tmp_path / "a b.txt"), "--file", str(tmp_path / "p.pdf")]
    script = {"text": "A reply."}
    done = program.run("run", *files, "Why?", script=script, input="from a pipe")
    assert (done.returncode, done.stdout) == (0, "A reply.\n"), done.stderr
    (session,) = program.sessions()
    (turn,) = session.turns
    assert [item.name for item in turn.attachments] == ["a b.txt", "p.pdf"]
    assert turn.message == (
        "File: a b.txt\n```\nGröße\n```\n\n"
        "Text of the PDF: p.pdf\n```\n[page 1]\nHello experts\n```\n\nWhy?\n\nfrom a pipe"
    )
    done = program.run("run", "-c", "--json", "-f", str(tmp_path), script=script)
    started = json.loads(next(line for line in done.stdout.splitlines() if '"started"' in line))
    assert [item["name"] for item in started["attachments"]] == [f"{tmp_path.name}/"]
    assert len(program.sessions()[0].turns) == 2


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("missing.txt", "missing.txt was not attached. There is no such file.", 1),
        ("x.png", "x.png was not attached. It is no text but a picture.", 1),
        ("m.gguf", "m.gguf is a model. -f attaches texts. Name it with -m: -m m.gguf", 2),
    ],
)
def test_what_cannot_be_attached_is_told_before_a_model_is_loaded(
    program: Program, tmp_path: Path, name: str, words: str, code: int
) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    (tmp_path / "m.gguf").write_bytes(b"GGUF\x03\0\0\0")
    done = program.run("run", "-f", str(tmp_path / name), "Why?", script={"text": "A reply."})
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert not program.database.exists() or program.sessions() == []
