"""Sessions on the command line: searched, exported as a page, imported; a run of which nothing stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ktchat.store.conversation import Conversation, Turn
from ktchat.store.store import Store
from tests.support.cli import Program, one_clear_line


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "home")


def save(program: Program, *turns: Turn, title: str) -> Conversation:
    conversation = Conversation(title=title, turns=list(turns), updated=1e9)
    store = Store(program.database)
    store.save_conversation(conversation)
    store.close()
    return conversation


def test_of_a_run_that_is_not_saved_nothing_stays(program: Program) -> None:
    done = program.run("run", "--no-save", "-m", "m.gguf", "hi", script={"text": "Hello there."})
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello there.\n", "")
    assert not program.database.parent.exists() or list(program.database.parent.iterdir()) == []
    done = program.run("run", "--no-save", "-c", "hi", script={"text": "x"})
    assert done.returncode == 2 and one_clear_line(done.stderr)


def test_words_are_found_with_the_session_and_the_line(program: Program) -> None:
    saved = save(program, Turn("about 混合专家", "They\npurr."), title="cats \x1b[31m")
    done = program.run("sessions", "search", "purr", "专家")
    assert done.stdout == f"{saved.id[:8]}  2001-09-09  cats\n          You: about 混合专家\n"
    done = program.run("sessions", "search", "purr", "--json")
    (hit,) = json.loads(done.stdout)
    assert (hit["session"], hit["part"], hit["line"]) == (saved.id, "reply", "purr.")
    assert program.run("sessions", "search", "dogs").stdout == "Nothing has these words.\n"


def test_a_session_goes_to_another_machine(program: Program, tmp_path: Path) -> None:
    saved = save(program, Turn("a", "one", state="complete"), title="t")  # type: ignore[arg-type]
    path = tmp_path / "t.json"
    program.run("sessions", "export", saved.id, "-o", str(path))
    other = Program(tmp_path / "other")
    done = other.run("sessions", "import", str(path), str(tmp_path / "absent.json"))
    assert done.returncode == 1 and one_clear_line(done.stderr)
    assert done.stdout == "t.json: 1 session imported.\n"
    (session,) = other.sessions()
    assert [(t.prompt, t.reply) for t in session.turns] == [("a", "one")]
    done = other.run("sessions", "import", str(path))
    assert done.stdout == "t.json: 0 sessions imported · 1 there already.\n"


def test_a_page_has_nothing_of_elsewhere_and_no_script(program: Program, tmp_path: Path) -> None:
    evil = '<script>alert(1)</script> <img src="http://x/y"> ![p](http://x/p) [l](javascript:alert) \x1b[2J'
    saved = save(program, Turn(evil, f"{evil}\n\n```html\n{evil}\n```", evil), title=f"t {evil}")
    path = tmp_path / "t.html"
    program.run("sessions", "export", saved.id, "-o", str(path))
    page = path.read_text()
    assert page.startswith("<!doctype html>") and "&lt;script&gt;" in page
    for bad in ("<script", "<img", 'href="javascript', "\x1b", "src="):
        assert bad not in page.replace("&lt;img src=", "")
    assert "default-src 'none'" in page
