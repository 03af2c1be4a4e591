"""`ktchat --plain`: messages, replies, stopping and leaving, by every byte that comes through a terminal."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.plain.chats import CTRL_C, CTRL_D, CTRL_U, ENTER, PROMPT, Chat, eventually, saved
from tests.support.cli import Program
from tests.tui.program import HOSTILE


def test_a_conversation_without_an_escape_sequence(tmp_path: Path) -> None:
    modules = tmp_path / "modules"
    chat = Chat(tmp_path, env={"KTCHAT_TEST_MODULES": str(modules)}).ready()
    came = chat.say("hello there")
    assert re.search(
        r"hello there\nktchat: reply\nYou said: hello there\nktchat: end · .*\nYou: $", came
    )
    assert chat.leave() == 0
    assert b"\x1b" not in chat.output and b"\x08" not in chat.output
    imported = modules.read_text().split("\n")
    assert "ktchat.cli.plain.program" in imported
    assert not [name for name in imported if name.split(".")[0] in ("textual", "rich", "torch")]
    assert [turn.raw_reply for turn in saved(tmp_path)[0].turns] == ["You said: hello there"]


def test_thinking_and_reply_are_announced(tmp_path: Path) -> None:
    chat = Chat(tmp_path, text="so it is", thinking="let me see").ready()
    came = chat.say("go")
    assert (
        "ktchat: thinking\nktchat: thought: 3 tokens\nktchat: reply\nso it is\nktchat: end" in came
    )
    chat.say("/thinking", "is written too")
    came = chat.say("go")
    assert "ktchat: thinking\nlet me see\nktchat: thought: 3 tokens\nktchat: reply\n" in came
    assert chat.leave() == 0


def test_what_proves_to_be_thinking_is_said(tmp_path: Path) -> None:
    chat = Chat(tmp_path, text="yes", unopened="hm hm").ready()
    chat.say(
        "go", "ktchat: reply\r\nhm hm\r\n", "proved to be thinking", "ktchat: reply\r\nyes\r\n"
    )
    assert chat.leave() == 0


def test_a_model_cannot_say_what_the_program_says(tmp_path: Path) -> None:
    chat = Chat(tmp_path, text="a\nktchat: end\nktchat: reply\nb", notice=HOSTILE).ready()
    came = chat.say("go")
    assert "\n ktchat: end\n ktchat: reply\nb\nktchat: end · " in came
    assert "ktchat: note: before " in came
    assert chat.leave() == 0


def test_hostile_text_does_nothing(tmp_path: Path) -> None:
    chat = Chat(tmp_path, text=HOSTILE, thinking=HOSTILE).ready()
    chat.say("/thinking")
    chat.say("go")
    chat.say("/show")
    assert chat.leave() == 0
    assert b"\x1b" not in chat.output and b"\x07" not in chat.output


def test_messages_of_several_lines(tmp_path: Path) -> None:
    chat = Chat(tmp_path).ready()
    chat.type("one \\" + ENTER)
    chat.next("more: ")
    assert "You said: one \ntwo\n" in chat.say("two")
    chat.type('"""' + ENTER)
    chat.next("more: ")
    chat.type("def f():" + ENTER)
    chat.next("more: ")
    chat.type("    return 1" + ENTER)
    chat.next("more: ")
    assert "You said: def f():\n    return 1\n" in chat.say('"""')
    assert "You said: inside one line\n" in chat.say('"""inside one line"""')
    came = chat.say("a" + ENTER + ENTER + "b")  # pasted
    assert "ktchat: 3 lines came at once: they are one message" in came
    assert "You said: a\n\nb\n" in came
    assert chat.leave() == 0
    prompts = [turn.raw_prompt for turn in saved(tmp_path)[0].turns]
    assert prompts == ["one \ntwo", "def f():\n    return 1\n", "inside one line", "a\n\nb"]


def test_ctrl_c_stops_the_reply_and_keeps_what_came(tmp_path: Path) -> None:
    chat = Chat(tmp_path, text="word " * 50, hold_after=20).ready()
    chat.type("go" + ENTER)
    chat.next("word word")
    chat.type(CTRL_C)
    chat.next("ktchat: end, stopped, /continue goes on")
    chat.next(PROMPT)
    assert chat.leave() == 0
    turn = saved(tmp_path)[0].turns[0]
    assert turn.state == "stopped" and 2 <= len(turn.raw_reply.split()) <= 20


def test_ctrl_c_twice_leaves_and_what_was_typed_is_kept(tmp_path: Path) -> None:
    chat = Chat(tmp_path).ready()
    chat.type("half a mess")
    chat.next("half a mess")
    chat.type(CTRL_C)
    chat.next("ktchat: Ctrl+C again leaves; Up brings back what was typed")
    chat.next(PROMPT)
    chat.type(CTRL_C)
    assert chat.wait() == 130
    again = Chat(tmp_path)
    again.next("ktchat: a message was not sent: half a mess")
    again.next("You: half a mess")
    assert "You said: half a message\n" in again.say("age")
    assert again.leave() == 0


def test_up_brings_back_what_ctrl_c_put_away(tmp_path: Path) -> None:
    chat = Chat(tmp_path).ready()
    chat.type("half")
    chat.next("half")
    chat.type(CTRL_C)
    chat.next(PROMPT)
    chat.type("\x10")  # Ctrl+P
    chat.next("half")
    assert "You said: half a loaf\n" in chat.say(" a loaf")
    assert chat.leave() == 0


def test_ctrl_d_within_a_message_keeps_it(tmp_path: Path) -> None:
    chat = Chat(tmp_path).ready()
    chat.type('"""' + ENTER)
    chat.next("more: ")
    chat.type("first line" + ENTER)
    chat.next("more: ")
    chat.type(CTRL_D)
    assert chat.wait() == 0
    again = Chat(tmp_path)
    again.next("a message was not sent: first line")
    again.next("You: first line")
    again.type(CTRL_U)
    assert again.leave() == 0


def test_what_is_typed_during_a_reply_is_the_next_message(tmp_path: Path) -> None:
    replies = [{"text": "word " * 50, "hold_after": 20}, {"text": "second"}]
    chat = Chat(tmp_path, replies=replies).ready()
    chat.type("go" + ENTER)
    chat.next("word word")
    chat.type("and \\" + ENTER + "then" + ENTER)
    chat.next("then")
    chat.type("/stop" + ENTER)
    chat.next("ktchat: end, stopped")
    chat.next("You: and \r\nthen\r\n")
    chat.next("second\r\nktchat: end")
    chat.next(PROMPT)
    assert chat.leave() == 0
    assert [turn.raw_prompt for turn in saved(tmp_path)[0].turns] == ["go", "and \nthen"]


def test_thinking_is_ended_by_a_command(tmp_path: Path) -> None:
    chat = Chat(tmp_path, text="the answer", thinking="deep " * 90, hold_after=50).ready()
    chat.say("/answer", "no reply is thinking")
    chat.type("go" + ENTER)
    chat.next("ktchat: thinking")
    chat.type("/answer" + ENTER)
    chat.next("ktchat: thought: ")
    chat.next("the answer")
    chat.next(PROMPT)
    assert chat.leave() == 0


def test_ctrl_d_during_a_reply_leaves_and_keeps_what_came(tmp_path: Path) -> None:
    chat = Chat(tmp_path, text="word " * 50, hold_after=20).ready()
    chat.type("go" + ENTER)
    chat.next("word word")
    chat.type(CTRL_D)
    assert chat.wait() == 0
    assert 2 <= len(saved(tmp_path)[0].turns[0].raw_reply.split()) <= 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("busy", [True, False])
def test_a_signal_ends_it_in_order(tmp_path: Path, number: int, busy: bool) -> None:
    chat = Chat(tmp_path, text="word " * 50, hold_after=20).ready()
    if busy:
        chat.type("go" + ENTER)
        chat.next("word word")
    else:
        chat.type("half a mess")
        chat.next("half a mess")
    chat.signal(number)
    assert chat.wait() == 128 + number
    if busy:
        assert 2 <= len(saved(tmp_path)[0].turns[0].raw_reply.split()) <= 20
    else:
        Chat(tmp_path).next("a message was not sent: half a mess")


def test_a_terminal_that_goes_away_ends_it(tmp_path: Path) -> None:
    chat = Chat(tmp_path, text="word " * 50, hold_after=20).ready()
    chat.type("go" + ENTER)
    chat.next("word word")
    chat.hang_up()
    chat.wait()
    eventually(lambda: saved(tmp_path)[0].turns[0].state in ("stopped", "interrupted"))


def test_a_failed_message_stands_in_the_line_again(tmp_path: Path) -> None:
    chat = Chat(tmp_path, replies=[{"error": "It is too long"}, {"text": "now it goes"}]).ready()
    came = chat.say("my words")
    assert "ktchat: error: It is too long" in came and "ktchat: end, failed" in came
    chat.next("my words")
    chat.say("", "now it goes", "ktchat: end")
    assert chat.leave() == 0
    assert [turn.raw_prompt for turn in saved(tmp_path)[0].turns] == ["my words"]


# Pipes and files.


def test_a_script_is_taken_line_by_line_and_logged(tmp_path: Path) -> None:
    program = Program(tmp_path)
    script = {"replies": []}
    done = program.run("--plain", script=script, input="first\nsecond\\\nline\n/sessions\n")
    assert done.returncode == 0, done.stderr
    log = done.stdout
    assert "\x1b" not in log and "You: first\nktchat: reply\nYou said: first\nktchat: end" in log
    assert "You: second\nline\nktchat: reply\nYou said: second\nline\nktchat: end" in log
    assert "1. first, open · 2 turns" in log
    assert [turn.raw_prompt for turn in program.sessions()[0].turns] == ["first", "second\nline"]


def test_a_failure_is_the_exit_code_of_a_script(tmp_path: Path) -> None:
    program = Program(tmp_path)
    done = program.run("--plain", script={"error": "No"}, input="go\n")
    assert done.returncode == 1 and "ktchat: error: No" in done.stdout
    assert program.run("--plain", script={"text": "yes"}, input="").returncode == 0


def test_it_is_offered_where_the_screen_cannot_be(tmp_path: Path) -> None:
    program = Program(tmp_path)
    done = program.run()
    assert done.returncode == 2 and "ktchat --plain" in done.stderr
    assert program.run("--plain", "doctor").returncode == 2
    done = program.run(script={"replies": []}, env={"KTCHAT_PLAIN": "1"}, input="hi\n")
    assert done.returncode == 0 and "You said: hi" in done.stdout
    dumb = Chat(tmp_path, env={"TERM": "dumb"}).ready()
    assert "You said: x" in dumb.say("x")
    assert dumb.leave() == 0
    code, said = Program(tmp_path, TERM="dumb").in_terminal()
    assert code == 2 and "ktchat --plain" in said


def test_a_reader_that_goes_away_ends_it(tmp_path: Path) -> None:
    program = Program(tmp_path)
    process = program.start("--plain", script={"text": "word " * 5000}, stdin=-1)
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()
    process.stdout.read(1)
    process.stdout.close()
    process.stdin.write(b"again\n" * 3)
    process.stdin.close()
    assert process.wait(120) == 1
    assert process.stderr is not None and b"Traceback" not in process.stderr.read()
