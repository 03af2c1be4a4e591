"""`ktchat run -c` behind a conversation that fills the context."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ktchat.store.conversation import Compaction, Conversation, Turn
from ktchat.store.store import Store
from tests.support.cli import Program, one_clear_line

WORDS = "word " * 30
LONG = "more " * 60
HOSTILE = "About words\x1b]52;c;SGFja2Vk\x07."


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """With a session of ten turns of 60 words, and a context of 600."""
    program = Program(tmp_path / "home")
    turns: list[Turn] = []
    for number in range(9):
        parent = turns[-1].id if turns else None
        turns.append(Turn(f"{number} {WORDS}", WORDS, state="complete", parent=parent))  # type: ignore[arg-type]
    store = Store(program.database)
    store.save_conversation(Conversation(title="old", turns=turns))
    store.close()
    return program


def run(program: Program, *arguments: str, text: str = "the reply") -> tuple[int, str, str]:
    done = program.run(
        "run", "-m", "m.gguf", "--ctx", "600", "-c", LONG, *arguments, script={"text": text}
    )
    return done.returncode, done.stdout, done.stderr


def test_in_a_pipe_asking_says_what_the_choices_are_and_changes_nothing(program: Program) -> None:
    (before,) = program.sessions()
    code, out, err = run(program)
    assert (code, out) == (1, "")
    assert one_clear_line(err)
    for words in (
        "does not fit",
        "--overflow drop",
        "--overflow summarise",
        "oldest turns",
        "without -c",
    ):
        assert words in err
    assert program.sessions() == [before]
    code, out, err = run(program, "--json", "--overflow", "stop")
    assert code == 1 and json.loads(out.splitlines()[-1])["error"]["kind"] == "ContextError"
    assert program.sessions() == [before]


def test_dropping_is_said_on_stderr(program: Program) -> None:
    code, out, err = run(program, "--overflow", "drop")
    assert (code, out) == (0, "the reply\n")
    assert "oldest turns are no longer read" in err and one_clear_line(err)
    (session,) = program.sessions()
    compaction = session.turns[-1].compaction
    assert compaction is not None and compaction.unread > 1 and not compaction.summary


def test_the_setting_holds_where_the_command_line_is_silent(program: Program) -> None:
    (program.home / "settings.toml").write_text('overflow = "summarise"\n')
    code, _, err = run(program, text=HOSTILE)
    assert code == 0 and "a summary" in err and "Summarising" in err and "\x1b" not in err
    (session,) = program.sessions()
    compaction = session.turns[-1].compaction
    assert compaction == Compaction(compaction.unread if compaction else 0, "About words.")


def test_a_message_that_is_too_long_by_itself_is_refused_in_words(program: Program) -> None:
    done = program.run(
        "run",
        "-m",
        "m.gguf",
        "--ctx",
        "100",
        "-c",
        "--overflow",
        "drop",
        "x " * 300,
        script={"text": "a"},
    )
    assert (
        done.returncode == 1
        and "Even alone it is too long" in done.stderr
        and one_clear_line(done.stderr)
    )


def test_a_reply_that_the_context_cuts_says_how_it_goes_on(program: Program) -> None:
    done = program.run("run", "-m", "m.gguf", "hi", script={"text": "half", "reason": "context"})
    assert (
        done.returncode == 0
        and "ktchat run -c goes on" in done.stderr
        and one_clear_line(done.stderr)
    )
