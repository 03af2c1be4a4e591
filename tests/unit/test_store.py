"""The saved sessions: what is written comes back, whatever happened to the file."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import EngineError
from engine.protocol import Figures, Sampling
from ktchat.attachments.attachment import Draft
from ktchat.common.errors import (
    SessionBusyError,
    StoreError,
    StoreVersionError,
    UnknownSessionError,
)
from ktchat.store import schema
from ktchat.store.conversation import Compaction, Conversation, Turn
from ktchat.store.locks import Locks
from ktchat.store.records import session_values, turn_values
from ktchat.store.repair import is_sound, repair
from ktchat.store.store import Store
from tests.support.clock import PATIENCE


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "data" / "ktchat.db")
    yield store
    store.close()


def a_session(*prompts: str, title: str = "", updated: float = 1000.0) -> Conversation:
    turns: list[Turn] = []
    for number, prompt in enumerate(prompts):
        parent = turns[-1].id if turns else None
        turns.append(
            Turn(
                prompt,
                f"reply to {prompt}",
                state="complete",
                parent=parent,
                created=100.0 + number,
            )
        )
    return Conversation(title=title or prompts[0], turns=turns, created=1.0, updated=updated)


def reopened(store: Store) -> Store:
    store.close()
    return Store(store.path)


def test_everything_of_a_session_comes_back(store: Store) -> None:
    first = Turn(
        "prompt 中文 \x00 '; DROP TABLE turns;",
        "reply 👨‍👩‍👧",
        "thinking",
        state="complete",
        reason="length",
        figures=Figures(12, 3, 45, 6, 0.5, 0.25, 1.5, 57, 4096, 99),
        sampling=Sampling(temperature=0.0, seed=99),
        max_tokens=45,
        model="Qwen3",
        created=5.0,
    )
    second = Turn(
        "b", state="failed", error=EngineError("a", "b", "c"), parent=first.id, created=6.0
    )
    saved = Conversation(
        title="t",
        created=1.0,
        updated=2.0,
        model_path="/m/q.gguf",
        model_name="Qwen3",
        system="Be short.",
        turns=[first, second],
    )
    store.save_conversation(saved)
    loaded = reopened(store).load(saved.id)
    error = loaded.turns[1].error
    assert isinstance(error, EngineError)
    assert (error.what, error.why, error.todo) == ("a", "b", "c")
    loaded.turns[1].error = second.error
    assert loaded == saved


def test_lone_surrogates_do_not_stop_saving(store: Store) -> None:
    session = a_session("bad \ud800 text")
    store.save_conversation(session)
    assert store.load(session.id).turns[0].raw_prompt == "bad \ufffd text"


def test_sessions_are_listed_with_the_last_used_first(store: Store) -> None:
    old, new = a_session("old", updated=10.0), a_session("new", "and more", updated=20.0)
    store.save_conversation(old)
    store.save_conversation(new)
    assert [(s.title, s.turns) for s in store.sessions()] == [("new", 2), ("old", 1)]
    assert store.last_session() == new.id


def test_a_replaced_turn_is_kept_and_not_shown(store: Store) -> None:
    session = a_session("one", "two")
    store.save_conversation(session)
    replaced = session.turns.pop()
    session.turns.append(Turn("two, better", parent=replaced.parent, created=200.0))
    store.save_conversation(session)
    loaded, others = store.load_all(session.id)
    assert [turn.raw_prompt for turn in loaded.turns] == ["one", "two, better"]
    assert [turn.raw_prompt for turn in others] == ["two"]
    assert loaded.others == others
    assert store.sessions()[0].turns == 2


def test_an_empty_store_has_nothing(store: Store) -> None:
    assert store.sessions() == []
    assert store.last_session() is None
    assert store.recent_prompts() == []
    assert store.orphan_draft() is None


def test_a_session_is_found_by_the_start_of_its_id(store: Store) -> None:
    one, two = a_session("one"), a_session("two")
    one.id, two.id = "abc" + "0" * 29, "abd" + "0" * 29
    store.save_conversation(one)
    store.save_conversation(two)
    assert store.find("ABC") == one.id
    assert store.find(two.id) == two.id
    for name in ("ab", "x", "", "%", "_", "' OR 1=1 --"):
        with pytest.raises(UnknownSessionError):
            store.find(name)


def test_a_deleted_session_comes_back_until_it_is_purged(store: Store) -> None:
    session = a_session("one")
    store.save_conversation(session)
    store.save([], [(session.id, Draft("draft"))])
    store.delete(session.id)
    assert store.sessions() == []
    with pytest.raises(UnknownSessionError):
        store.load(session.id)
    store.purge()
    store.restore(session.id)
    assert store.load(session.id) == session
    store.delete(session.id)
    store.purge(older_than=-1.0)
    store.restore(session.id)
    assert store.sessions() == []
    assert store.draft(session.id).text == ""


def test_what_is_removed_takes_its_kv_along(store: Store) -> None:
    for session in ("one", "two", "three"):
        store.save_conversation(replace(a_session(session), id=session))
        model = store.kv.model(bytes(32))
        model.make()
        for name in (session, "shared"):
            (model.path / f"{name}.page").touch()
        model.note(session, [f"{session}.page", "shared.page"])

    def there() -> set[str]:
        return {entry.path.stem for entry in store.kv.entries()}

    store.remove("one")
    assert there() == {"two", "three", "shared"}
    store.delete("two")
    store.remove("three")
    assert there() == {"two", "shared"}, "it can be brought back"
    store.purge(older_than=-1.0)
    assert not there()


def test_removing_leaves_no_trace_in_the_file(store: Store) -> None:
    session = a_session("a very secret prompt")
    store.save_conversation(session)
    store.remove(session.id)
    store.close()
    assert b"very secret" not in store.path.read_bytes()


def test_saving_does_not_bring_back_a_deleted_session(store: Store) -> None:
    session = a_session("one")
    store.save_conversation(session)
    store.delete(session.id)
    store.save_conversation(session)
    assert store.sessions() == []


def test_prompts_are_recalled_newest_first_and_once(store: Store) -> None:
    store.save_conversation(a_session("a", "b", "a"))
    assert store.recent_prompts() == ["a", "b"]
    assert store.recent_prompts(1) == ["a"]


def test_drafts_are_kept_and_those_of_no_session_are_found(store: Store) -> None:
    session = a_session("one")
    store.save_conversation(session)
    store.save(
        [], [(session.id, Draft("unsent")), ("f" * 32, Draft("never began")), ("e" * 32, Draft())]
    )
    store = reopened(store)
    assert store.draft(session.id).text == "unsent"
    assert store.orphan_draft() == ("f" * 32, Draft("never began"))
    store.save([], [("f" * 32, Draft())])
    assert store.orphan_draft() is None


def test_a_draft_that_is_open_elsewhere_is_not_taken(store: Store) -> None:
    store.save([], [("f" * 32, Draft("being typed"))])
    other = Store(store.path)
    assert other.claim("f" * 32)
    assert store.orphan_draft() is None
    other.close()
    assert store.orphan_draft() is not None


def test_a_session_is_held_by_one_store_at_a_time(store: Store) -> None:
    session = a_session("one")
    store.save_conversation(session)
    other = Store(store.path)
    assert store.claim(session.id) and store.claim(session.id)
    assert not other.claim(session.id)
    with pytest.raises(SessionBusyError):
        other.delete(session.id)
    store.close()
    assert other.claim(session.id)
    other.close()
    assert list((store.path.parent / "locks").iterdir()) == []


def test_what_waits_for_a_lock_gets_it_when_it_is_let_go(tmp_path: Path) -> None:
    one, other = Locks(tmp_path), Locks(tmp_path)
    assert one.acquire("repair")
    held = threading.Event()

    def wait() -> None:
        with other.hold("repair"):
            held.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not held.wait(0.05)
    one.release("repair")
    assert held.wait(PATIENCE)
    thread.join()
    assert one.acquire("repair")


def test_locks_left_by_dead_processes_are_swept(store: Store) -> None:
    folder = store.path.parent / "locks"
    folder.mkdir(parents=True)
    (folder / "dead.lock").touch()
    store.claim("alive")
    store.purge()
    assert [path.name for path in folder.iterdir()] == ["alive.lock"]


def test_only_this_user_can_read_the_files(store: Store) -> None:
    old = os.umask(0)
    try:
        store.save_conversation(a_session("one"))
        store.claim("x")
    finally:
        os.umask(old)
    modes = {
        str(path.relative_to(store.path.parent)): stat.S_IMODE(path.stat().st_mode)
        for path in [store.path.parent, *store.path.parent.rglob("*")]
    }
    assert modes == {".": 0o700, "ktchat.db": 0o600, "locks": 0o700, "locks/x.lock": 0o600}


def test_the_file_is_written_safely(store: Store) -> None:
    store.save_conversation(a_session("one"))
    db = schema.connect(store.path)
    pragmas = {
        name: db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("foreign_keys", "journal_mode", "synchronous", "user_version")
    }
    db.close()
    assert pragmas == {
        "foreign_keys": 1,
        "journal_mode": "delete",
        "synchronous": 3,
        "user_version": len(schema.MIGRATIONS),
    }


def test_a_save_is_whole_or_not_at_all(store: Store) -> None:
    session = a_session("one", "two")
    rows = [turn_values(session.id, turn) for turn in session.turns]
    broken = (*rows[1][:4], None, *rows[1][5:])  # state may not be NULL
    with pytest.raises(StoreError):
        store.save([(session_values(session), [rows[0], broken])])
    assert store.sessions() == []
    store.save_conversation(session)
    assert len(store.sessions()) == 1


# Other versions.


def test_an_older_file_is_migrated_with_a_backup(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = a_session("one")
    store.save_conversation(session)
    store.close()
    newer = [*schema.MIGRATIONS, "ALTER TABLE sessions ADD COLUMN pinned INTEGER;"]
    monkeypatch.setattr(schema, "MIGRATIONS", newer)
    assert store.load(session.id) == session
    backup = store.path.with_name(f"ktchat.db.v{len(newer) - 1}-backup")
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    monkeypatch.setattr(schema, "MIGRATIONS", newer[:-1])
    assert Store(backup).load(session.id) == session


def first_version(path: Path, session: Conversation) -> None:
    """A file as the first version wrote it."""
    path.parent.mkdir(parents=True)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(schema.MIGRATIONS[0])
        db.execute("PRAGMA user_version = 1")
        row, turns = session_values(session)[:8], session.turns
        db.execute(f"INSERT INTO sessions VALUES ({', '.join('?' * 8)}, NULL)", row)
        for turn in turns:
            values = turn_values(session.id, turn)[:14]
            db.execute(f"INSERT INTO turns VALUES ({', '.join('?' * len(values))})", values)
        db.commit()


def test_a_file_of_the_first_version_opens_as_before(store: Store) -> None:
    session = a_session("one", "two")
    first_version(store.path, session)
    assert store.load(session.id) == session
    assert store.path.with_name("ktchat.db.v1-backup").is_file()
    session.think, session.turns[0].edited = "low", 7.0
    store.save_conversation(session)
    assert reopened(store).load(session.id) == session


def test_a_file_of_the_first_version_is_read_as_it_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = a_session("one")
    first_version(store.path, session)
    opened = os.open

    def refuses(path: object, flags: int, *arguments: int) -> int:
        if flags & os.O_RDWR and str(path).endswith(".db"):
            raise PermissionError
        return opened(path, flags, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(schema.os, "open", refuses)
    before = store.path.read_bytes()
    assert store.load(session.id) == session
    assert [summary.id for summary in store.sessions()] == [session.id]
    assert store.path.read_bytes() == before


def test_a_damaged_file_of_the_first_version_is_recovered(store: Store) -> None:
    session = a_session("one")
    first_version(store.path, session)
    _, count = repair(store.path)
    assert count == 1
    assert store.load(session.id) == session


def test_the_choice_of_thinking_comes_back_if_it_is_one(store: Store) -> None:
    session = a_session("one")
    session.think = "high"
    store.save_conversation(session)
    assert store.load(session.id).think == "high"
    store.database.write([("UPDATE sessions SET think = ?", (b"\xff\x00",))])
    assert store.load(session.id).think is None


def test_what_is_no_longer_read_comes_back_if_it_is_possible(store: Store) -> None:
    session = a_session("one", "two", "three")
    session.turns[1].compaction = Compaction(1, "about one")
    session.next_compaction = Compaction(2, "about one and two")
    store.save_conversation(session)
    assert reopened(store).load(session.id) == session
    for wrong in (
        "[",
        "[]",
        '{"unread": -1, "summary": ""}',
        '{"unread": true, "summary": ""}',
        b"\xff",
    ):
        store.database.write([("UPDATE turns SET compaction = ?", (wrong,))])
        assert [turn.compaction for turn in store.load(session.id).turns] == [None] * 3
    hostile = '{"unread": 99, "summary": "a\\u001b]52;c;x\\u0007b"}'
    store.database.write([("UPDATE turns SET compaction = ?", (hostile,))])
    loaded = store.load(session.id).turns[0].compaction
    assert loaded is not None and loaded.unread == 99 and not set(loaded.summary) & set("\x1b\x07")


def test_what_was_chosen_behind_another_turn_does_not_hold(store: Store) -> None:
    session = a_session("one", "two")
    session.next_compaction = Compaction(1)
    store.save_conversation(session)
    head = session.turns[0].id
    store.database.write([("UPDATE sessions SET head = ?", (head,))])
    assert store.load(session.id).next_compaction is None


def test_a_migration_that_fails_changes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save_conversation(a_session("one"))
    store.close()
    script = "ALTER TABLE sessions ADD COLUMN pinned INTEGER; DROP TABLE absent;"
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, script])
    with pytest.raises(StoreError):
        store.sessions()
    monkeypatch.undo()
    assert len(store.sessions()) == 1


def test_a_newer_file_is_refused_in_words_and_left_alone(store: Store) -> None:
    store.save_conversation(a_session("one"))
    store.close()
    db = sqlite3.connect(store.path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    before = store.path.read_bytes()
    for _ in range(2):
        with pytest.raises(StoreVersionError, match="written by a newer ktchat"):
            store.save_conversation(a_session("two"))
    assert store.path.read_bytes() == before


# Damage.


def test_a_file_that_is_no_database_is_moved_aside(store: Store) -> None:
    store.path.parent.mkdir(parents=True)
    store.path.write_bytes(b"this is not a database, but it is long enough" * 100)
    session = a_session("one")
    store.save_conversation(session)
    assert store.load(session.id) == session
    (aside,) = store.path.parent.glob("ktchat.db.damaged-*")
    assert aside.read_bytes().startswith(b"this is not")
    (said,) = (notice for notice in store.notices if "was damaged" in notice)
    assert str(aside) in said


def test_what_can_be_read_of_a_damaged_file_is_recovered(store: Store) -> None:
    sessions = [a_session(f"prompt {n} " + "x" * 3000, updated=float(n)) for n in range(40)]
    for session in sessions:
        store.save_conversation(session)
    store.close()
    data = bytearray(store.path.read_bytes())
    middle = len(data) // 2 // 4096 * 4096
    data[middle : middle + 8192] = b"\xff" * 8192
    store.path.write_bytes(data)
    try:
        store.sessions()
        for session in sessions:
            store.load(session.id)
    except UnknownSessionError:
        pass
    listed = store.sessions()
    assert len(store.notices) == 1
    assert len(listed) >= 30
    whole = [s for s in sessions if s.id in {row.id for row in listed} and _same(store, s)]
    assert len(whole) >= 20
    store.save_conversation(a_session("after"))
    assert is_sound(store.path)


def _same(store: Store, session: Conversation) -> bool:
    return store.load(session.id).turns == session.turns


def test_damage_anywhere_never_stops_the_program(tmp_path: Path) -> None:
    source = Store(tmp_path / "source.db")
    for n in range(3):
        source.save_conversation(a_session(f"prompt {n}", "second"))
    source.close()
    good = source.path.read_bytes()
    for number, at in enumerate(range(0, len(good), len(good) // 60)):
        damaged = Store(tmp_path / f"d{number}" / "ktchat.db")
        damaged.path.parent.mkdir()
        damaged.path.write_bytes(good[:at] + b"\xa5" * 64 + good[at + 64 :])
        new = a_session("new")
        try:
            for summary in damaged.sessions():
                damaged.load(summary.id)
            damaged.save_conversation(new)
            assert damaged.load(new.id) == new
        except StoreVersionError:
            assert at < 100  # the version itself was hit
        finally:
            damaged.close()


def test_a_truncated_file_is_repaired(store: Store) -> None:
    for n in range(30):
        store.save_conversation(a_session(f"prompt {n} " + "x" * 2000))
    store.close()
    data = store.path.read_bytes()
    store.path.write_bytes(data[: len(data) // 3])
    store.save_conversation(a_session("after"))
    assert "after" in [session.title for session in store.sessions()]
    assert len(store.notices) == 1


def test_an_instance_that_finds_the_file_already_repaired_leaves_it(store: Store) -> None:
    store.save_conversation(a_session("one"))
    other = Store(store.path)
    other.sessions()
    store.close()
    store.path.write_bytes(b"junk" * 5000)
    store.save_conversation(a_session("two"))
    other.database._repair()
    assert other.notices == []
    assert [session.title for session in other.sessions()] == ["two"]
    other.close()


def test_a_file_made_by_somebody_else_is_shown_safely(store: Store) -> None:
    session = a_session("one", "two", "three")
    session.title = session.model_name = "bad\x1b]52;c;QQ==\x07\ntitle"
    session.turns[2].error = EngineError("bad\x1b[31m\nerror", "\u202e", "x" * 9999)
    session.turns[2].model = "m\x9b"
    store.save_conversation(session)
    with schema.transaction(db := schema.connect(store.path)):
        first, _, third = (turn.id for turn in session.turns)
        db.execute("UPDATE turns SET parent = ? WHERE id = ?", (third, first))  # a circle
        db.execute("UPDATE turns SET created = 'x', sampling = '[[', figures = '{\"seed\": []}'")
        db.execute("UPDATE turns SET max_tokens = 'many', state = 'odd', reason = 7")
        db.execute("UPDATE sessions SET created = x'00ff', updated = 'now'")
    db.close()
    (summary,) = store.sessions()
    loaded = store.load(session.id)
    turn = loaded.turns[2]
    assert [turn.raw_prompt for turn in loaded.turns] == ["one", "two", "three"]
    assert (turn.state, turn.max_tokens, turn.sampling) == ("interrupted", None, Sampling())
    drawn = [summary.title, summary.model_name, loaded.title, turn.model, str(turn.error)]
    assert not set("".join(drawn)) & set("\x1b\x9b\x07\n\u202e")
    assert len(str(turn.error)) < 1500


def test_a_foreign_id_names_no_path(store: Store) -> None:
    assert store.claim("../../escape")
    assert not (store.path.parent.parent / "escape.lock").exists()
    assert len(list((store.path.parent / "locks").iterdir())) == 1


# A disk that refuses.


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("file/ktchat.db", "part of its path is a file"),
        ("/proc/nowhere/ktchat.db", "folder is missing"),
        ("folder", "folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_said_in_words(
    tmp_path: Path, path: str, words: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    store = Store(tmp_path / path)
    for _ in range(2):
        with pytest.raises(StoreError, match=words):
            store.save_conversation(a_session("one"))
    assert store.claim("x")


def test_the_store_works_again_when_the_place_does(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.touch()
    store = Store(place / "ktchat.db")
    with pytest.raises(StoreError):
        store.sessions()
    place.unlink()
    store.save_conversation(a_session("one"))
    assert len(store.sessions()) == 1
    store.close()


def test_a_lock_of_another_program_is_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.2)
    store.save_conversation(a_session("one"))
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    start = time.monotonic()
    with pytest.raises(StoreError, match="another program holds the file"):
        reopened(store).save_conversation(a_session("two"))
    assert time.monotonic() - start >= 0.15
    other.execute("ROLLBACK")
    other.close()
    store.save_conversation(a_session("two"))
    assert len(store.sessions()) == 2
