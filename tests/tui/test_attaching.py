"""Files and long pastes that go with a message, on the screen."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual import events

from tests.support.fake_engine import FakeEngine, Reply
from tests.tui.conftest import Running, Start

LONG = "".join(f"line {number}\n" for number in range(60))


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with some files."""
    folder = tmp_path / "work"
    (folder / "src").mkdir(parents=True)
    (folder / "notes.md").write_text("one two three\n")
    (folder / "src" / "deep.py").write_text("x = 1\n")
    (folder / "a b.txt").write_text("four five\n")
    monkeypatch.chdir(folder)
    return folder


async def paste(run: Running, text: str) -> None:
    run.screen.prompt.post_message(events.Paste(text))
    await run.pilot.pause()


def names(run: Running) -> list[str]:
    return [item.name for item in run.screen.chips.attachments]


async def attached(run: Running, *wanted: str) -> None:
    await run.until(lambda: names(run) == list(wanted))


async def test_an_at_completes_a_file_that_is_attached_and_sent(start: Start, work: Path) -> None:
    run = await start("a reply", size=(80, 24))
    await run.type("what is @note")
    await run.sees("notes.md", "Enter take")
    await run.press("enter")
    await attached(run, "notes.md")
    await run.sees("notes.md · 7 tokens")
    await run.type("this")
    assert run.screen.prompt.text == "what is this"
    await run.press("enter")
    await run.sees("▪ notes.md · 14 B", "what is this", "a reply")
    message = run.engine.requests[0].messages[-1].content
    assert message == "File: notes.md\n```\none two three\n```\n\nwhat is this"
    assert names(run) == [] and not run.screen.chips.display
    await run.type("@")
    await run.sees("used before")
    assert run.screen.suggestions._items[0].name == "notes.md"


async def test_tab_goes_into_a_folder_and_enter_attaches_its_list(start: Start, work: Path) -> None:
    run = await start("ok")
    await run.type("@./")
    await run.sees("./src/", "folder")
    await run.type("sr")
    await run.press("tab")
    await run.sees("./src/deep.py")
    assert run.screen.prompt.text == "@./src/"
    await run.press("escape")
    await run.misses("./src/deep.py")
    await run.press("ctrl+u")
    await run.type("@src")
    await run.sees("src/")
    await run.press("enter")
    await run.until(lambda: names(run) in (["src/"], ["deep.py"]))


async def test_an_at_in_a_word_completes_nothing(start: Start, work: Path) -> None:
    run = await start("ok")
    await run.type("mail me@note")
    assert not run.screen.suggestions.is_open
    await run.press("enter")
    await run.until(lambda: run.engine.requests)
    assert run.last.raw_prompt == "mail me@note"


async def test_a_dropped_path_is_offered(start: Start, work: Path) -> None:
    run = await start("ok")
    await run.type("see ")
    await paste(run, f"'{work / 'a b.txt'}'")
    await run.sees("attach a b.txt", "keep it as text")
    await run.press("enter")
    await attached(run, "a b.txt")
    assert run.screen.prompt.text == "see"
    await run.press("ctrl+u")
    await paste(run, f"file://{work}/a%20b.txt\nfile://{work}/notes.md\n")
    await run.sees("attach a b.txt, notes.md")
    await run.press("down", "enter")
    assert "file://" in run.screen.prompt.text and names(run) == []


async def test_a_dropped_model_is_offered_to_be_opened(start: Start, work: Path) -> None:
    (work / "Tiny.gguf").write_bytes(b"GGUF\x03\0\0\0")
    run = await start("ok")
    await paste(run, str(work / "Tiny.gguf"))
    await run.sees("open the model Tiny.gguf", "keep it as text")
    await run.press("enter")
    await run.until(lambda: run.engine.loads[-1].path == str(work / "Tiny.gguf"))
    assert run.screen.prompt.text == "" and names(run) == []
    await run.until(lambda: not run.screen.activity.loading)
    await run.type("@Tiny")
    await run.sees("Tiny.gguf")
    await run.press("enter")
    await run.sees("open the model Tiny.gguf", "leave it")


async def test_a_long_paste_is_a_chip_that_opens_and_becomes_text_again(start: Start) -> None:
    run = await start("ok", size=(80, 24))
    await run.type("what is ")
    await paste(run, LONG)
    await run.sees("pasted text · 124 tokens")
    assert run.screen.prompt.text == "what is "
    await run.press("shift+tab", "enter")
    await run.sees("line 0", "60 lines", "t makes it text in the prompt")
    await run.press("t")
    await run.until(lambda: run.screen.prompt.text == f"what is {LONG}")
    assert names(run) == []
    await paste(run, LONG)
    await attached(run, "pasted text")
    await run.press("shift+tab", "t")
    await run.until(lambda: run.screen.prompt.text == f"what is {LONG}{LONG}")


async def test_forty_lines_stay_text(start: Start) -> None:
    run = await start("ok")
    await paste(run, "x\n" * 40)
    await run.until(lambda: run.screen.prompt.text == "x\n" * 40)
    assert names(run) == []


async def test_chips_are_chosen_opened_and_removed_by_keys(start: Start, work: Path) -> None:
    run = await start("ok", size=(40, 12))
    for name in ("notes.md", "src/deep.py", "a b.txt"):
        run.screen.attach.attach(work / name)
        await run.until(lambda name=name: Path(name).name in names(run))
    await run.press("backspace")  # at the start of an empty prompt
    assert run.screen.chips.has_focus
    await run.press("left", "enter")
    await run.sees("deep.py · 2 of 3", "x = 1")
    await run.press("right")
    await run.sees("a b.txt · 3 of 3", "four five")
    await run.press("escape")
    await run.until(lambda: run.app.screen is run.screen)
    await run.press("delete")
    await attached(run, "notes.md", "a b.txt")
    await run.sees("deep.py is not attached any more")
    await run.press("ctrl+z")
    await attached(run, "notes.md", "deep.py", "a b.txt")
    await run.press("escape")
    await run.until(lambda: run.screen.prompt.has_focus)
    await run.type("words")
    await run.press("ctrl+u")
    assert names(run) == [] and run.screen.prompt.text == ""
    await run.press("ctrl+z")
    await attached(run, "notes.md", "deep.py", "a b.txt")
    assert run.screen.prompt.text == "words"
    await run.press("ctrl+u")
    run.screen.attach.attach(work / "src")
    await attached(run, "src/")
    await run.press("ctrl+z")
    await attached(run, "notes.md", "deep.py", "a b.txt", "src/")


async def test_what_cannot_be_attached_is_told(start: Start, work: Path) -> None:
    (work / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    run = await start("ok", size=(80, 24))
    run.screen.attach.attach(work / "x.png")
    await run.sees("x.png was not attached. It is no text but a picture.")
    assert not run.screen.chips.chips
    await run.type("/file nothing.txt")
    await run.press("enter")
    await run.sees("There is no such file")


async def test_a_message_waits_for_what_is_being_read(
    start: Start, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from ktchat.attachments import reading

    go_on, read = threading.Event(), reading.read

    def slow(path: Path) -> object:
        go_on.wait(120)
        return read(path)

    monkeypatch.setattr(reading, "read", slow)
    run = await start("ok")
    run.screen.attach.attach(work / "notes.md")
    await run.sees("notes.md · reading …")
    await run.type("why")
    await run.press("enter")
    await run.sees("notes.md is still being read")
    assert run.screen.prompt.text == "why" and not run.engine.requests
    await run.press("home", "backspace", "delete")
    assert not run.screen.chips.chips
    go_on.set()
    await run.press("ctrl+z")
    await attached(run, "notes.md")
    await run.press("enter")
    await run.until(lambda: run.engine.requests)


async def test_an_edited_a_regenerated_and_a_branched_message_keep_theirs(
    start: Start, work: Path
) -> None:
    run = await start("one", "two", "three", "four")
    run.screen.attach.attach(work / "notes.md")
    await attached(run, "notes.md")
    await run.ask("why")
    block = "File: notes.md\n```\none two three\n```\n\n"
    await run.press("ctrl+r")
    await run.until(lambda: len(run.engine.requests) == 2 and not run.chat.busy)
    assert run.engine.requests[1].messages[-1].content == f"{block}why"
    run.screen.prompt.put("a draft")
    await run.press("f4")
    await run.sees("editing your message")
    assert names(run) == ["notes.md"]
    run.screen.prompt.put("why not")
    await run.press("enter")
    await run.until(lambda: len(run.engine.requests) == 3 and not run.chat.busy)
    assert run.engine.requests[2].messages[-1].content == f"{block}why not"
    await run.until(lambda: not run.screen.activity.busy)
    await run.press("f4")
    await run.sees("editing your message")
    await run.press("escape")
    assert names(run) == []
    await run.press("shift+tab", "up", "b")
    await run.until(lambda: run.chat.conversation.title.endswith("branch"))
    await run.until(lambda: not run.screen.activity.switching)
    assert run.last.attachments[0].text == "one two three\n"
    await run.press("shift+tab", "up", "o")
    await run.sees("notes.md", "one two three", "1 line")


async def test_the_file_as_it_was_is_sent_again(start: Start, work: Path) -> None:
    run = await start("one", "two")
    run.screen.attach.attach(work / "notes.md")
    await attached(run, "notes.md")
    (work / "notes.md").write_text("changed")
    await run.ask("why")
    (work / "notes.md").unlink()
    await run.press("ctrl+r")
    await run.until(lambda: len(run.engine.requests) == 2)
    assert run.engine.requests[0].messages == run.engine.requests[1].messages
    assert "one two three" in run.engine.requests[1].messages[-1].content


async def test_a_draft_has_its_files_again_after_the_program_ended(
    start: Start, work: Path
) -> None:
    run = await start("ok")
    run.screen.attach.attach(work / "notes.md")
    await attached(run, "notes.md")
    await paste(run, LONG)
    await attached(run, "notes.md", "pasted text")
    await run.type("half")
    await run.until(lambda: run.chat.draft.text == "half")
    await run.chat.saver.flush()
    run.chat.store.locks.release_all()
    again = await start("ok")
    await attached(again, "notes.md", "pasted text")
    assert again.screen.prompt.text == "half"


async def test_a_failed_message_comes_back_whole(start: Start, work: Path) -> None:
    from engine.errors import EngineError

    run = await start(Reply(error=EngineError("The engine ended")), "now it works")
    run.screen.attach.attach(work / "notes.md")
    await attached(run, "notes.md")
    await run.ask("please")
    await run.sees("The engine ended")
    await attached(run, "notes.md")
    assert run.screen.prompt.text == "please"
    await run.press("enter")
    await run.sees("now it works")
    assert len(run.chat.conversation.turns) == 1
    assert run.last.attachments[0].name == "notes.md"


async def test_a_queued_message_comes_back_whole(start: Start, work: Path) -> None:
    run = await start(Reply("slow " * 400, hold_after=100), "second reply")
    await run.type("first")
    await run.press("enter")
    await run.sees("slow")
    run.screen.attach.attach(work / "notes.md")
    await attached(run, "notes.md")
    await run.type("second")
    await run.press("enter")
    await run.sees("your message is sent when this reply ends")
    assert names(run) == []
    run.screen.attach.attach(work / "a b.txt")  # for the message after it
    await run.press("escape")
    await attached(run, "notes.md", "a b.txt")
    assert run.screen.prompt.text == "second"
    await run.press("ctrl+u")
    await run.press("ctrl+n")
    await run.until(lambda: not run.chat.conversation.turns)
    await run.until(lambda: not run.screen.activity.switching)
    await run.press("ctrl+z")
    assert names(run) == [], "what was cleared in another session stays there"


async def test_what_is_attached_counts_for_the_context(start: Start, work: Path) -> None:
    run = await start(engine=FakeEngine(["a reply"], context=400))
    (work / "long.txt").write_text("word " * 500)
    run.screen.attach.attach(work / "long.txt")
    await attached(run, "long.txt")
    await run.sees("long.txt · 50", "too many")
    await run.type("why")
    await run.press("enter")
    await run.sees("The message does not fit into the context")
    await run.press("escape")
    await run.until(lambda: run.app.screen is run.screen)
    await attached(run, "long.txt")
    assert run.screen.prompt.text == "why"
