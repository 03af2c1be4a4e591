"""Attachments in a session: sent, kept once, and there again after everything that can be done with a session."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from engine.errors import EngineError
from engine.protocol import Load
from ktchat.attachments.attachment import Attachment, Draft, digest_of, pasted
from ktchat.session.chat import ChatSession
from ktchat.session.last_resort import keep_elsewhere
from ktchat.store import attached, schema, tree
from ktchat.store.conversation import Conversation, Turn
from ktchat.store.export import to_json, to_markdown
from ktchat.store.export_html import to_html
from ktchat.store.imports import import_file
from ktchat.store.repair import repair
from ktchat.store.store import Store
from tests.support.fake_engine import FakeEngine, Reply

NOTES = Attachment("notes.md", "one\ntwo\n", "text", "a" * 64, 8)
PAPER = Attachment("paper.pdf", "[page 1]\nexperts\n", "pdf", "b" * 64, 5000)
FOLDER = Attachment("src/", "a.py  3 B\n", "folder", "c" * 64, 10)

Start = Callable[..., Awaitable[ChatSession]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    started: list[ChatSession] = []

    async def begin(*script: Reply | str) -> ChatSession:
        chat = ChatSession(FakeEngine(script), Store(tmp_path / "ktchat.db"))
        started.append(chat)
        async for _ in chat.load(Load("/m/Fake.gguf")):
            pass
        return chat

    yield begin
    for chat in started:
        await chat.close()


async def ask(chat: ChatSession, text: str, *attachments: Attachment) -> Turn:
    async for _ in chat.send(text, attachments):
        pass
    assert chat.conversation.last is not None
    return chat.conversation.last


def read(chat: ChatSession) -> list[str]:
    """What the engine was asked last, message by message."""
    assert isinstance(chat.engine, FakeEngine)
    return [message.content for message in chat.engine.requests[-1].messages]


def texts_in(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return sorted(row[0] for row in db.execute("SELECT text FROM texts"))


async def test_the_model_reads_what_is_attached_before_what_was_written(start: Start) -> None:
    chat = await start("a reply", "another")
    await ask(chat, "Why?", NOTES, PAPER)
    message = f"{NOTES.block}\n\n{PAPER.block}\n\nWhy?"
    assert read(chat) == [message]
    await ask(chat, "And?")
    assert read(chat) == [message, "a reply", "And?"]


async def test_a_file_alone_is_a_message_and_its_name_the_title(start: Start) -> None:
    chat = await start("a reply")
    await ask(chat, "", NOTES)
    assert read(chat) == [NOTES.block]
    assert chat.conversation.title == "notes.md"


async def test_a_session_has_its_attachments_again(start: Start, tmp_path: Path) -> None:
    chat = await start("a reply")
    await ask(chat, "Why?", NOTES, PAPER, FOLDER, pasted("x\n" * 50))
    await chat.saver.flush()
    again = Store(tmp_path / "ktchat.db")
    loaded = again.load(chat.conversation.id)
    assert loaded.turns[0].attachments == chat.conversation.turns[0].attachments
    assert loaded.messages() == chat.conversation.messages()
    again.close()


async def test_a_text_is_kept_once_a_session_whatever_is_done(start: Start, tmp_path: Path) -> None:
    chat = await start("one", "two", "three", "four")
    turn = await ask(chat, "Why?", NOTES)
    async for _ in chat.regenerate():
        pass
    assert read(chat) == [turn.message]
    assert chat.conversation.turns[0].attachments == (NOTES,)
    place = tree.place(chat.conversation, chat.conversation.turns[0], "reply")
    assert place == (2, 2), "a version of the reply to the same message"
    async for _ in chat.edit("Why not?", attachments=(NOTES, PAPER)):
        pass
    shown = chat.conversation.turns[0]
    assert read(chat) == [Draft("Why not?", (NOTES, PAPER)).message]
    assert tree.place(chat.conversation, shown, "prompt") == (2, 2)
    async for _ in chat.edit("Why not?", attachments=(PAPER,)):
        pass
    shown = chat.conversation.turns[0]
    assert tree.place(chat.conversation, shown, "prompt") == (3, 3), "other files, another message"
    await chat.saver.flush()
    assert texts_in(tmp_path / "ktchat.db") == sorted([NOTES.text, PAPER.text])


async def test_a_branch_has_them_and_goes_without_the_other_session(
    start: Start, tmp_path: Path
) -> None:
    chat = await start("one", "two")
    await ask(chat, "Why?", NOTES)
    old = chat.conversation.id
    branch = await chat.branch(chat.conversation.turns[0])
    assert branch.turns[0].attachments == (NOTES,)
    await chat.saver.flush()
    assert texts_in(tmp_path / "ktchat.db") == [NOTES.text] * 2
    chat.store.remove(old)
    assert texts_in(tmp_path / "ktchat.db") == [NOTES.text]
    assert chat.store.load(branch.id).turns[0].attachments == (NOTES,)
    await ask(chat, "More")
    assert read(chat)[0] == f"{NOTES.block}\n\nWhy?"


async def test_what_failed_is_sent_again_with_what_was_attached(start: Start) -> None:
    chat = await start(Reply(error=EngineError("It died")), "now it works")
    await ask(chat, "Why?", NOTES)
    assert chat.conversation.turns[0].draft == Draft("Why?", (NOTES,))
    await ask(chat, "Why?", NOTES)
    assert len(chat.conversation.turns) == 1
    assert read(chat) == [f"{NOTES.block}\n\nWhy?"]


async def test_a_draft_keeps_its_attachments_and_only_those(start: Start, tmp_path: Path) -> None:
    chat = await start("one")
    await ask(chat, "Why?", NOTES)
    for attachments in ((PAPER,), (PAPER, FOLDER), (FOLDER,)):
        chat.keep_draft(Draft("half a tho", attachments))
        await chat.saver.flush()
        kept = sorted([NOTES.text, *(item.text for item in attachments)])
        assert texts_in(tmp_path / "ktchat.db") == kept
    assert chat.store.draft(chat.conversation.id) == Draft("half a tho", (FOLDER,))
    chat.keep_draft(Draft("half a tho", (FOLDER, PAPER)))  # a text that was forgotten meanwhile
    await chat.saver.flush()
    assert chat.store.draft(chat.conversation.id).attachments == (FOLDER, PAPER)
    chat.keep_draft(Draft())
    await chat.saver.flush()
    assert texts_in(tmp_path / "ktchat.db") == [NOTES.text]


async def test_a_session_that_never_began_has_its_attachments_again(start: Start) -> None:
    chat = await start()
    await chat.new()
    chat.keep_draft(Draft("", (NOTES,)))
    await chat.close()
    again = await start()
    await again.new()
    assert again.draft == Draft("", (NOTES,))


async def test_what_is_summarised_of_a_long_file_is_cut(start: Start) -> None:
    from ktchat.session.summary import _shortened

    turn = Turn("Why?", attachments=(Attachment("long.txt", "word " * 1000),))
    short = _shortened(turn, 0.1)
    assert len(short.message) < 1000 and short.attachments == ()


def a_session() -> Conversation:
    turn = Turn("Why?", "Because.", state="complete", created=5.0, attachments=(NOTES, PAPER))
    return Conversation(title="On notes", created=5.0, updated=6.0, turns=[turn])


def test_the_exports_show_what_was_attached() -> None:
    session = a_session()
    markdown, page = to_markdown(session), to_html(session)
    assert f"{NOTES.block}\n\n{PAPER.block}\n\nWhy?" in markdown
    assert f"notes.md: SHA-256 {'a' * 64}" in markdown and f"SHA-256 {'a' * 64}" in page
    assert "<pre>one\ntwo\n</pre>" in page
    evil = Attachment("<b>.txt", "<script>alert(1)</script>")
    assert "<script>" not in to_html(Conversation(turns=[Turn("x", attachments=(evil,))]))


def test_what_is_exported_can_be_imported(tmp_path: Path) -> None:
    session = a_session()
    (tmp_path / "s.json").write_text(to_json(session))
    store = Store(tmp_path / "other.db")
    (imported,) = import_file(store, tmp_path / "s.json").sessions
    assert store.load(imported).turns[0].attachments == (NOTES, PAPER)
    assert import_file(store, tmp_path / "s.json").known == 1
    session.turns[0].attachments = (NOTES,)
    (tmp_path / "s.json").write_text(to_json(session))
    assert import_file(store, tmp_path / "s.json").sessions, "with other files it is another one"
    store.close()


@pytest.mark.parametrize(
    "wrong",
    [
        "x",
        [{}],
        ["x"],
        [{"text": 7}],
        [{"text": "x" * 4_000_001}],
        [{"text": "x"}] * 21,
    ],
)
def test_an_import_with_impossible_attachments_is_refused(tmp_path: Path, wrong: object) -> None:
    data = json.loads(to_json(a_session()))
    data["turns"][0]["attachments"] = wrong
    good = json.loads(to_json(a_session()))
    (tmp_path / "s.json").write_text(json.dumps([data, good]))
    store = Store(tmp_path / "ktchat.db")
    done = import_file(store, tmp_path / "s.json")
    assert len(done.sessions) == len(done.refused) == 1
    store.close()


def test_odd_values_in_an_import_are_made_safe(tmp_path: Path) -> None:
    data = json.loads(to_json(a_session()))
    odd = {"name": "a\x1b[2J\nb", "text": "x\x1b]0;t\x07y", "kind": "?", "sha256": "zz", "size": -1}
    data["turns"][0]["attachments"] = [odd]
    (tmp_path / "s.json").write_text(json.dumps(data))
    store = Store(tmp_path / "ktchat.db")
    (imported,) = import_file(store, tmp_path / "s.json").sessions
    assert store.load(imported).turns[0].attachments == (Attachment("a b", "xy"),)
    store.close()


def test_a_file_of_the_version_before_opens_and_takes_attachments(tmp_path: Path) -> None:
    path = tmp_path / "ktchat.db"
    at = next(i for i, script in enumerate(schema.MIGRATIONS) if "CREATE TABLE texts" in script)
    session = a_session()
    with closing(sqlite3.connect(path)) as db:
        db.executescript("".join(schema.MIGRATIONS[:at]))
        db.execute(f"PRAGMA user_version = {at}")
        db.execute(
            "INSERT INTO sessions (id, title, created, updated, model_path, model_name, system, head)"
            " VALUES ('s', 'old', 1, 2, '', '', '', 't')"
        )
        db.execute(
            "INSERT INTO turns (id, session, created, state, prompt, thinking, reply, model, sampling)"
            " VALUES ('t', 's', 1, 'complete', 'p', '', 'r', '', '{}')"
        )
        db.execute("INSERT INTO drafts (session, text, updated) VALUES ('s', 'unsent', 3)")
        db.commit()
    store = Store(path)
    assert [turn.attachments for turn in store.load("s").turns] == [()]
    assert store.draft("s") == Draft("unsent")
    store.save_conversation(session)
    assert store.load(session.id).turns[0].attachments == (NOTES, PAPER)
    store.close()


def test_a_damaged_file_gives_back_what_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "ktchat.db"
    store = Store(path)
    session = a_session()
    store.save_conversation(session)
    store.save([], [(session.id, Draft("unsent", (FOLDER,)))], [(session.id, FOLDER)])
    store.close()
    _, count = repair(path)
    assert count == 1
    assert store.load(session.id).turns[0].attachments == (NOTES, PAPER)
    assert store.draft(session.id) == Draft("unsent", (FOLDER,))
    store.database.write([("DELETE FROM texts", ())])
    lost = store.load(session.id).turns[0].attachments
    assert [(item.name, item.text) for item in lost] == [
        ("notes.md", attached.LOST),
        ("paper.pdf", attached.LOST),
    ]
    store.close()


@pytest.mark.parametrize("wrong", ["[", "7", "{}", "[7]", b"\xff", '[{"name": 7, "size": "x"}]'])
def test_what_a_row_says_of_attachments_is_checked(tmp_path: Path, wrong: object) -> None:
    store = Store(tmp_path / "ktchat.db")
    session = a_session()
    store.save_conversation(session)
    store.database.write([("UPDATE turns SET attachments = ?", (wrong,))])
    for item in store.load(session.id).turns[0].attachments:
        assert (item.text, item.sha256, item.size) == (attached.LOST, "", 0)
    store.close()


def test_what_could_not_be_saved_is_kept_with_its_files(tmp_path: Path) -> None:
    place = keep_elsewhere([a_session()], {"d" * 32: Draft("half", (NOTES,))}, [tmp_path])
    assert place is not None
    assert (place / f"{'d' * 8}.txt").read_text() == f"{NOTES.block}\n\nhalf"
    assert NOTES.digest == digest_of(NOTES.text)
