"""What the plain chat writes: whole words or lines, marks that no model can make, few lines of progress."""

from __future__ import annotations

import sys

import pytest

from ktchat.cli import output
from ktchat.cli.plain import voice
from ktchat.cli.plain.voice import PROGRESS_SECONDS, Voice

Written = pytest.CaptureFixture[str]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda stream: stream is sys.stdout)


@pytest.mark.usefixtures("terminal")
def test_words_come_whole(capsys: Written) -> None:
    said = Voice()
    pieces = ["Hel", "lo wor", "ld, you", "\nnew li", "ne", "漢字"]
    written = []
    for piece in pieces:
        said.speak(piece)
        written.append(capsys.readouterr().out)
    assert written == ["", "Hello ", "world, ", "you\nnew ", "", "line漢字"]
    said.finish()
    assert capsys.readouterr().out == "\n"


def test_lines_come_whole_into_a_file(capsys: Written) -> None:
    said = Voice()
    said.speak("one two\nthree ")
    assert capsys.readouterr().out == "one two\n"
    said.say("end")
    assert capsys.readouterr().out == "three \nktchat: end\n"


@pytest.mark.usefixtures("terminal")
def test_a_word_without_an_end_is_not_held_for_ever(capsys: Written) -> None:
    said = Voice()
    said.speak("x" * (voice.MOST_HELD + 1))
    assert len(capsys.readouterr().out) == voice.MOST_HELD + 1


@pytest.mark.parametrize("cut", range(1, 12))
def test_no_line_of_a_model_begins_as_the_programs(cut: int, capsys: Written) -> None:
    said, text = Voice(), "ktchat: end\nktchat:x\n ktchat: y"
    for part in (text[:cut], text[cut:]):
        said.speak(part)
    said.finish()
    assert capsys.readouterr().out == " ktchat: end\n ktchat:x\n ktchat: y\n"


def test_progress_is_said_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: Written
) -> None:
    now = 100.0
    monkeypatch.setattr(voice.time, "monotonic", lambda: now)
    said = Voice()
    said.begin_work()
    for step in range(24):
        now += 0.5
        said.progress(f"step {step}")
    assert PROGRESS_SECONDS == 5.0
    assert capsys.readouterr().out == "ktchat: step 9\nktchat: step 19\n"
