"""Long work of a command runs in a thread: results, errors and progress come out."""

import signal

import pytest

from engine.errors import KtchatError
from ktchat.cli import background, output


def test_the_result_comes_back() -> None:
    assert background.run(lambda report: 42) == 42


def test_an_error_is_raised_in_the_caller() -> None:
    def fail(report: background.Report) -> None:
        raise KtchatError("No luck")

    with pytest.raises(KtchatError, match="No luck"):
        background.run(fail)


def test_the_handler_of_interrupts_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    background.run(lambda report: None)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("columns", [80, 20])
def test_progress_is_one_line_on_a_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    line = background._Line()
    line.draw("measuring llama.cpp", 1, 4)
    line.draw("measuring llama.cpp", 1, 4)
    line.clear()
    shown = capsys.readouterr().err
    text = "measuring llama.cpp  25 %  0 s"[: columns - 1]
    assert shown == f"\r\x1b[K{text}\r\x1b[K"


def test_a_long_stage_says_how_long_still(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(output, "is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(background.time, "monotonic", lambda: now)
    line = background._Line()
    line.draw("float32", 0, 4)
    now += 30
    line.draw("float32", 1, 4)
    assert capsys.readouterr().err.endswith("float32  25 %  30 s, about 1 min 30 s left")
    now += 30
    line.draw("float32", 0, 0)
    assert capsys.readouterr().err.endswith("float32  60 s")


def test_nothing_is_drawn_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    line = background._Line()
    line.draw("measuring", 1, 4)
    line.clear()
    assert capsys.readouterr().err == ""
