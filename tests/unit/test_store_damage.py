"""What a file of sessions may hold, and what is lost of it: as little as was hit."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from ktchat.common import words
from ktchat.common.errors import UnknownSessionError
from ktchat.store import repair
from ktchat.store.conversation import Conversation, Turn
from ktchat.store.export import to_markdown
from ktchat.store.store import Store

COUNT = 120


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "ktchat.db")
    yield store
    store.close()


def fill(store: Store, count: int = COUNT) -> list[str]:
    """Sessions of one turn each, on pages of their own; their ids."""
    sessions = []
    for number in range(count):
        turn = Turn(
            f"prompt {number} {'x' * 900}", "the reply", state="complete", created=5.0 + number
        )
        sessions.append(Conversation(title=f"Title {number}", turns=[turn], updated=10.0 + number))
        store.save_conversation(sessions[-1])
    store.close()
    return [session.id for session in sessions]


ODD_VALUES = (
    ("sessions", "updated", 1e300),
    ("sessions", "updated", float("inf")),
    ("sessions", "updated", -5.0),
    ("sessions", "updated", "yesterday"),
    ("sessions", "created", 1e18),
    ("turns", "created", 1e300),
    ("turns", "created", b"\xff"),
    ("turns", "figures", '{"prompt_tokens": NaN, "reply_tokens": 7, "decode_seconds": Infinity}'),
    ("turns", "figures", '{"prompt_tokens": 1e400, "reply_tokens": -3, "seed": 1e30}'),
    ("turns", "figures", '{"prompt_tokens": "7", "reply_tokens": [1]}'),
    ("turns", "max_tokens", 1e300),
    ("turns", "edited", float("inf")),
    ("turns", "state", "dancing"),
    ("turns", "prompt", b"\xff\x00"),
)


@pytest.mark.parametrize(("table", "column", "value"), ODD_VALUES)
def test_a_value_that_cannot_be_hides_nothing(
    store: Store, table: str, column: str, value: object
) -> None:
    session = fill(store, 3)[1]
    key = "id" if table == "sessions" else "session"
    with closing(sqlite3.connect(store.path)) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        db.execute(f"UPDATE {table} SET {column} = ? WHERE {key} = ?", (value, session))
        db.commit()
    listed = store.sessions()
    assert len(listed) == 3
    for summary in listed:
        time.localtime(summary.updated)
        conversation = store.load(summary.id)
        for turn in conversation.turns:
            time.localtime(turn.created)
            if turn.figures is not None:
                assert words.figures(turn.figures)
        assert to_markdown(conversation, thinking=True)


def all_of(store: Store, ids: list[str]) -> int:
    """How many of these sessions are there with their turn."""
    there = 0
    for session in ids:
        with suppress(Exception):
            there += [turn.reply for turn in store.load(session).turns] == ["the reply"]
    return there


def opened(store: Store) -> None:
    """As the program does at its start; damage that is found is repaired."""
    for summary in store.sessions():
        with suppress(UnknownSessionError):  # its id, or the index of ids, was hit
            store.load(summary.id)


def test_a_last_page_that_is_missing_costs_what_was_on_it(store: Store) -> None:
    ids = fill(store)
    data = store.path.read_bytes()
    store.path.write_bytes(data[:-4096])
    opened(store)
    assert all_of(store, ids) >= COUNT - 8
    assert len(store.notices) == 1 and " 0 sessions" not in store.notices[0]


def test_what_lies_behind_a_damaged_page_is_recovered(store: Store) -> None:
    ids = fill(store)
    data = bytearray(store.path.read_bytes())
    places = [data.find(b"prompt %d " % number) // 4096 for number in (30, 60, 90)]
    for page in places:
        data[page * 4096 : page * 4096 + 4096] = b"\xff" * 4096
    store.path.write_bytes(data)
    opened(store)
    lost = COUNT - all_of(store, ids)
    assert 0 < lost <= 8 * len(places)


def test_a_damaged_name_of_a_column_costs_nothing(store: Store) -> None:
    ids = fill(store, 9)
    data = store.path.read_bytes()
    assert data.count(b"prompt TEXT") == 1
    store.path.write_bytes(data.replace(b"prompt TEXT", b"prompu TEXT"))
    opened(store)
    assert all_of(store, ids) == 9
    assert len(store.notices) == 1


def test_a_repair_that_is_killed_before_its_end_is_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = fill(store, 9)
    data = store.path.read_bytes()
    store.path.write_bytes(data[:-4096])

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(Killed):
            repair.repair(store.path)
    assert store.path.exists()
    opened(store)
    assert all_of(store, ids) >= 5


def test_one_flipped_bit_of_any_page_costs_little(store: Store) -> None:
    ids = fill(store, 24)
    good = store.path.read_bytes()
    for page in range(1, len(good) // 4096):
        for place in (3, 9, 700, 2500, 4090):
            data = bytearray(good)
            data[page * 4096 + place] ^= 0x10
            store.close()
            for old in store.path.parent.glob("ktchat.db*"):
                old.unlink()
            store.path.write_bytes(data)
            opened(store)
            assert all_of(store, ids) >= 12, (page, place)
