"""`ktchat --plain` with the real engine and a tiny model: a reply, stopped while it is read or written, a context that is full."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.plain.chats import CTRL_C, ENTER, PROMPT, RUNNING, Chat, saved
from tests.support.tiny import tiny_model
from tests.tui.terminal import Terminal


class RealChat(Chat):
    """The program as it is."""

    def __init__(self, home: Path, *options: str) -> None:
        Terminal.__init__(self, "-m", "ktchat", "--plain", *options, home=home)
        RUNNING.append(self)
        self.home, self._seen = home, 0


def test_a_tiny_model_answers_and_is_stopped(tmp_path: Path) -> None:
    model = tmp_path / "Tiny-Model-F32.gguf"
    shutil.copy(tiny_model("qwen3moe", tmp_path / "made"), model)
    (tmp_path / "settings.toml").write_text("max_tokens = 24\nseed = 7\n")
    chat = RealChat(tmp_path, "-m", str(model), "--ctx", "512")
    chat.next("loading Tiny-Model-F32")
    chat.next("ktchat: model: ")
    chat.next(PROMPT)
    chat.say("hello", "ktchat: reply", "ktchat: end")
    chat.say("/set max_tokens 0", "max_tokens: 0")
    chat.type("tell me more" + ENTER)
    chat.next("ktchat: reply")
    chat.type(CTRL_C)
    chat.next("ktchat: end")
    chat.next(PROMPT)
    chat.say("/temp 0", "temperature 0 (this session)")
    chat.say("/show", "ktchat: you, turn 2 of 2")
    chat.type("word " * 600 + ENTER)
    chat.next("does not fit into the context")
    chat.next("Number, or Enter to leave all as it was: ")
    chat.type(ENTER)
    chat.next("all stays as it was")
    chat.next(PROMPT)
    assert chat.leave() == 0
    assert b"\x1b" not in chat.output
    assert [turn.raw_prompt for turn in saved(tmp_path)[0].turns] == ["hello", "tell me more"]


def test_the_session_of_the_last_time_goes_on(tmp_path: Path) -> None:
    model = tiny_model("qwen3moe", tmp_path / "made")
    (tmp_path / "settings.toml").write_text("max_tokens = 8\nseed = 7\n")
    for turns in (1, 2):
        chat = RealChat(tmp_path, "-m", str(model))
        chat.next(f"session “hello”, {turns - 1} turn" if turns > 1 else "a new session")
        chat.next(PROMPT)
        chat.say("hello", "ktchat: end")
        assert chat.leave() == 0
        assert len(saved(tmp_path)[0].turns) == turns


def test_a_file_that_is_no_model_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF")
    chat = RealChat(tmp_path, "-m", str(tmp_path / "broken.gguf"))
    chat.next("ktchat: error: ")
    chat.next(PROMPT)
    chat.type("hello" + ENTER)
    chat.next("error: no model is loaded: /model opens one")
    chat.next("You: hello")
    chat.say("\x15/model 1", "ktchat: model: ")
    assert chat.leave() == 0
