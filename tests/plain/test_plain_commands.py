"""The commands of `ktchat --plain`: sessions, turns, options, room in the context, and what is refused."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path

from ktchat.store.store import Store
from tests.plain.chats import CTRL_C, ENTER, PROMPT, Chat, saved


def test_sessions_are_listed_opened_named_deleted_and_brought_back(tmp_path: Path) -> None:
    chat = Chat(tmp_path, "-m", "/models/Fake.gguf").ready()
    chat.say("about apples")
    chat.say("/new", "ktchat: a new session")
    chat.say("about pears")
    chat.say("/rename All on pears", "ktchat: title: All on pears")
    came = chat.say("/sessions", "ktchat: sessions, the last used first")
    assert re.search(r"\n1\. All on pears, open · 1 turn · .*\n2\. about apples · 1 turn · ", came)
    chat.say("/open 2", "ktchat: session “about apples”, 1 turn")
    came = chat.say("/show")
    assert "ktchat: you, turn 1 of 1\nabout apples\nktchat: reply, Fake\n" in came
    chat.say("/delete", "ktchat: deleted; /undo brings it back", "ktchat: a new session")
    chat.say("/undo", "ktchat: the session is back")
    chat.say("/open 1", "“about apples”")
    chat.say("/open 99", "there is no number 99")
    chat.say("/open ffffffff", "error: There is no session")
    chat.say("/delete 7", "there is no number 7")
    assert chat.leave() == 0
    again = Chat(tmp_path)
    again.next("ktchat: session “about apples”, 1 turn")
    assert again.ready().leave() == 0


def test_words_are_found_here_and_everywhere(tmp_path: Path) -> None:
    chat = Chat(tmp_path).ready()
    chat.say("the first apple")
    chat.say("/new")
    chat.say("the second apple")
    came = chat.say("/search apple")
    assert "ktchat: " in came and "you: the first apple" in came and "the second apple" in came
    number = re.search(r"\n(\d+)\. the first apple, \S+ · you: the first apple", came)
    assert number is not None
    came = chat.say(f"/open {number[1]}", "session “the first apple”")
    assert "ktchat: you, turn 1 of 1\nthe first apple\n" in came
    assert "second" not in chat.say("/find apple")
    chat.say("/find nowhere", "nothing has these words")
    chat.say("/search", "ktchat: /search needs words")
    assert chat.leave() == 0


def test_a_message_is_edited_and_its_versions_are_walked(tmp_path: Path) -> None:
    chat = Chat(tmp_path).ready()
    chat.say("/edit", "there is no message yet")
    chat.say("one")
    chat.say("two")
    chat.say("/edit three", "You said: three")
    chat.say("/versions", "versions of turn 2", "1. you: two", "2, shown. you: three")
    came = chat.say("/versions 1", "ktchat: you, turn 2 of 2, version 1 of 2")
    assert "\ntwo\n" in came
    chat.say("/versions 9", "there is no version 9")
    chat.say("/regenerate", "You said: two", "ktchat: end")
    chat.say("/versions of 2", "2, shown. you: two", "3. you: three")
    chat.type("/edit 1" + ENTER)
    chat.next("takes the place of this one")
    chat.next("You: one")
    assert "You said: one more" in chat.say(" more")
    chat.type("/edit 1" + ENTER)
    chat.next("You: one more")
    chat.say("\x15/leave", "it stays as it is")
    chat.say("/edit 8", "there is no turn 8")
    chat.say("/branch 1", "branch”, 1 turn")
    assert chat.leave() == 0
    branch, first = saved(tmp_path)
    assert [turn.raw_prompt for turn in first.turns] == ["one more"]
    assert [turn.raw_prompt for turn in branch.turns] == ["one more"]
    assert {turn.raw_prompt for turn in first.others} == {"one", "two", "three"}


def test_a_stopped_reply_goes_on(tmp_path: Path) -> None:
    replies = [{"text": "word " * 50, "hold_after": 5}, {"text": " and the rest"}]
    chat = Chat(tmp_path, replies=replies).ready()
    chat.say("/continue", "there is no message yet")
    chat.type("go" + ENTER)
    chat.next("word word")
    chat.type(CTRL_C)
    chat.next(PROMPT)
    chat.say("/continue", "ktchat: reply\r\n and the rest", "ktchat: end")
    chat.say("/continue", "error: This reply cannot go on")
    assert chat.leave() == 0
    assert saved(tmp_path)[0].turns[0].raw_reply.endswith("word and the rest")


def test_what_holds_for_the_next_reply(tmp_path: Path) -> None:
    chat = Chat(tmp_path, replies=[], think=["off", "on"]).ready()
    chat.say("/system", "there is no system message")
    chat.say("/system Be short", "kept")
    chat.say("hello")
    chat.say("/system", "system message\r\nBe short")
    chat.say("/temp 0.25", "temperature 0.25 (this session)")
    chat.say("/temp warm", "warm is no number")
    chat.say("/temp 99", "error: temperature 99.0 is not possible")
    chat.say("/think", "thinking: on; there are off, on")
    chat.say("/think off", "thinking: off")
    chat.say("/think much", "there is no such choice")
    chat.say("/set overflow drop", "overflow: drop", "When a message does not fit")
    chat.say("/set overflow perhaps", "overflow perhaps is not possible", "drop")
    chat.say("/set lookup off", "lookup: off; it holds when a model is loaded next")
    chat.say("/set nothing 1", "there is no setting nothing")
    chat.say("/set", "settings; /set NAME VALUE", "overflow: drop")
    chat.say("/nonsense", "there is no command /nonsense")
    chat.say("/usr/bin is full", "You said: /usr/bin is full")
    chat.say(" /new is what I mean", "You said:  /new is what I mean")
    chat.say("/help", "/quit: leave")
    chat.type("/quit" + ENTER)
    assert chat.wait() == 0
    conversation = saved(tmp_path)[0]
    assert (conversation.system, conversation.think) == ("Be short", "off")
    assert 'overflow = "drop"' in (tmp_path / "settings.toml").read_text()


def test_commands_are_completed(tmp_path: Path) -> None:
    chat = Chat(tmp_path).ready()
    chat.type("/sess\t")
    chat.next("/sessions ")
    chat.say("", "no sessions yet")
    assert chat.leave() == 0


def test_a_session_becomes_a_file_and_comes_back(tmp_path: Path) -> None:
    chat = Chat(tmp_path, env={"HOME": str(tmp_path)}).ready()
    chat.say("/export", "nothing to export yet")
    chat.say("keep this")
    chat.say("/export", "written: ~/keep this.md")
    chat.say(f"/export {tmp_path}/it.json", "written: ~/it.json")
    chat.say(f"/export {tmp_path}/it.json", "is there already")
    chat.say("/import ~/it.json", "ktchat: ")
    chat.say("/import ~/nothing.json", "error: ")
    chat.say("/disk", "on the disk")
    assert chat.leave() == 0
    assert "keep this" in (tmp_path / "keep this.md").read_text()
    assert json.loads((tmp_path / "it.json").read_text())["format"] == "ktchat-session"


def test_a_session_that_is_open_elsewhere_can_only_be_read(tmp_path: Path) -> None:
    chat = Chat(tmp_path).ready()
    chat.say("mine")
    assert chat.leave() == 0
    with closing(Store(tmp_path / "ktchat.db")) as store:
        assert store.claim(saved(tmp_path)[0].id)
        other = Chat(tmp_path)
        other.next("this session is open in another ktchat: it can only be read here")
        other.next(PROMPT)
        other.type("and this" + ENTER)
        other.next("error: The message was not sent")
        other.next("You: and this")
        other.say("\x15/show", "\r\nmine\r\n")
        other.say("/new", "a new session")
        other.say("now it goes", "You said: now it goes")
        assert other.leave() == 0


def test_another_model_is_opened_and_one_that_is_missing_is_not(tmp_path: Path) -> None:
    chat = Chat(tmp_path, "-m", "/models/Fake.gguf").ready()
    came = chat.say("/model", "ktchat: model: Fake · Q4_K_M · CPU · context 4k", "models here")
    assert "the built-in guide" in came
    chat.say("/model /models/Other.gguf", "loading Other", "model: Other")
    chat.say("/model 77", "there is no model 77")
    chat.say("/model 1", "loading ktchat-guide")
    chat.say("/cpu", "loading ktchat-guide")
    assert chat.leave() == 0


# Room in the context: a word is a token, and four are around each message.


def filled(home: Path, context: int = 60) -> Chat:
    """A chat whose next message of many words does not fit."""
    chat = Chat(home, replies=[], context=context).ready()
    chat.say("one two three four five six")
    chat.say("seven eight nine ten eleven twelve")
    return chat


LONG = " ".join(["more"] * 20)


def test_room_is_made_as_the_person_chooses(tmp_path: Path) -> None:
    chat = filled(tmp_path)
    chat.type(LONG + ENTER)
    came = chat.next("Number, or Enter to leave all as it was: ")
    assert "does not fit into the context" in came and "\n1. Drop " in came
    chat.say("1", "no longer read; /bringback", "You said: more more")
    chat.say("/bringback", "are read again")
    assert chat.leave() == 0
    assert saved(tmp_path)[0].turns[-1].compaction is not None


def test_nothing_is_sent_where_the_person_leaves_it(tmp_path: Path) -> None:
    chat = filled(tmp_path)
    for answer in (ENTER, CTRL_C, "9" + ENTER + ENTER):
        chat.type(LONG + ENTER)
        chat.next("Number, or Enter to leave all as it was: ")
        chat.type(answer)
        chat.next("all stays as it was; nothing was sent")
        chat.next("Up brings the message into the line")
        chat.next(PROMPT)
    chat.say("/sessions")
    assert chat.leave() == 0
    assert len(saved(tmp_path)[0].turns) == 2
    Chat(tmp_path).next("ktchat: a message was not sent: more more")


def test_the_choice_can_be_kept(tmp_path: Path) -> None:
    chat = filled(tmp_path)
    chat.type(LONG + ENTER)
    chat.next("Number, or Enter")
    chat.say("1 always", "no longer read", "ktchat: end")
    chat.say(LONG, "no longer read", "ktchat: end")
    assert chat.leave() == 0
    assert 'overflow = "drop"' in (tmp_path / "settings.toml").read_text()


def test_a_summary_is_written_read_and_taken(tmp_path: Path) -> None:
    replies = [{"text": "ten words " * 5}] * 3 + [{"text": "In short."}]
    chat = Chat(tmp_path, replies=[dict(reply) for reply in replies], context=120).ready()
    for number in range(3):
        chat.say(f"message {number} " + "and so on " * 3, "ktchat: end")
    chat.type(" ".join(["more"] * 25) + ENTER)
    came = chat.next("Number, or Enter")
    number = re.search(r"(\d)\. Summarise ", came)
    assert number is not None, came
    chat.type(number[1] + ENTER)
    chat.next("ktchat: summarising ")
    chat.next("In short.\r\n")
    chat.next("ktchat: end of the summary")
    chat.next("or type another summary: ")
    chat.say("In my words.", "summarised", "ktchat: reply\r\nIn short.\r\nktchat: end")
    assert chat.leave() == 0
    compaction = saved(tmp_path)[0].turns[-1].compaction
    assert compaction is not None and compaction.summary == "In my words."


def test_a_new_session_begins_with_a_summary(tmp_path: Path) -> None:
    replies = [{"text": "ten words " * 5}] * 3 + [{"text": "In short."}]
    chat = Chat(tmp_path, replies=[dict(reply) for reply in replies], context=120).ready()
    for number in range(3):
        chat.say(f"message {number} " + "and so on " * 3, "ktchat: end")
    chat.type(" ".join(["more"] * 25) + ENTER)
    number = re.search(r"(\d)\. A new session", chat.next("Number, or Enter"))
    assert number is not None
    chat.type(number[1] + ENTER)
    chat.next("or type another summary: ")
    chat.say("", "a new session", "ktchat: reply\r\nIn short.\r\nktchat: end")
    assert chat.leave() == 0
    assert [len(session.turns) for session in saved(tmp_path)] == [1, 3]
