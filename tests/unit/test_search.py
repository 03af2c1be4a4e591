"""Searching all titles and texts: what is found, and that the index follows the store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ktchat.store import schema, search_index
from ktchat.store.conversation import Conversation, Turn
from ktchat.store.repair import is_sound, repair
from ktchat.store.search import Words, find_in
from ktchat.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "ktchat.db")
    yield store
    store.close()


def session(*texts: tuple[str, str], title: str = "untold") -> Conversation:
    turns: list[Turn] = []
    for prompt, reply in texts:
        parent = turns[-1].id if turns else None
        turns.append(Turn(prompt, reply, state="complete", parent=parent))  # type: ignore[arg-type]
    return Conversation(title=title, turns=turns)


def found(store: Store, words: str) -> list[tuple[str, str]]:
    """Titles and lines of the hits."""
    return [(hit.title, hit.line) for hit in store.search.find(words)]


def indexed(store: Store) -> set[str]:
    """Prompts of the turns that are in the index."""
    rows = store.database.query(
        "SELECT prompt, rowid IN (SELECT id FROM search_docsize) AS there FROM turns"
    )
    whole = all(row["there"] for row in rows)
    # That it agrees with itself, and with the texts where all of them should be in it.
    check = "INSERT INTO search (search, rank) VALUES ('integrity-check', ?)"
    store.close()
    with closing(schema.connect(store.path)) as db:
        db.execute(check, (int(whole),))
    return {str(row["prompt"]) for row in rows if row["there"]}


TEXTS = (
    (
        "Why do EXPERTS run on the CPU?",
        "Because memory\nis what\nlimits them: 混合专家模型 of Größe",
    ),
    ("And 100% of it_all?", 'Yes, "quoted" \\ and zo'),
)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("experts", "Why do EXPERTS run on the CPU?"),
        ("cpu experts", "Why do EXPERTS run on the CPU?"),
        ("memory experts", "Why do EXPERTS run on the CPU?"),  # in both halves of one turn
        ("专家模型", "limits them: 混合专家模型 of Größe"),
        ("专家", "limits them: 混合专家模型 of Größe"),
        ("合", "limits them: 混合专家模型 of Größe"),
        ("GRÖSSE", ""),
        ("größe", "limits them: 混合专家模型 of Größe"),
        ("öß", "limits them: 混合专家模型 of Größe"),
        ("zo", 'Yes, "quoted" \\ and zo'),  # at the very end
        ("100%", "And 100% of it_all?"),
        ("0%", "And 100% of it_all?"),
        ("t_a", "And 100% of it_all?"),
        ("_", "And 100% of it_all?"),
        ('"quoted"', 'Yes, "quoted" \\ and zo'),
        ("\\", 'Yes, "quoted" \\ and zo'),
        ('d" OR "x', ""),
        ("nowhere", ""),
        ("xq", ""),
    ],
)
def test_words_are_found_in_every_script_and_length(store: Store, words: str, line: str) -> None:
    store.save_conversation(session(*TEXTS))
    assert found(store, words) == ([("untold", line)] if line else [])
    in_memory = [hit.line for hit in find_in(session(*TEXTS), words)]
    assert in_memory == ([line] if line else [])


def test_titles_come_first_and_the_newest_before(store: Store) -> None:
    store.save_conversation(session(("about cats", "x"), title="dogs"))
    store.save_conversation(session(("all of cats", "y"), title="birds"))
    store.save_conversation(session(("b", "z"), title="Cats and more"))
    assert found(store, "cats") == [
        ("Cats and more", "Cats and more"),
        ("birds", "all of cats"),
        ("dogs", "about cats"),
    ]
    hit = store.search.find("cats")[1]
    assert hit.turn and (hit.part, hit.line[slice(*hit.at)]) == ("prompt", "cats")


def test_a_hit_in_a_long_line_is_shown_with_what_is_around_it_and_safe(store: Store) -> None:
    text = f"{'far ' * 200}the \x1b]0;x\x07needle\x1b[31m here {'away ' * 200}"
    store.save_conversation(session(("q", text)))
    ((_, line),) = found(store, "needle")
    assert line.startswith("…") and "needle here" in line and "\x1b" not in line
    assert len(line) <= 250
    hit = store.search.find("needle")[0]
    assert hit.line[slice(*hit.at)] == "needle"


def test_deleted_sessions_are_not_found_and_leave_the_index(store: Store) -> None:
    one = session(("about cats", "x"))
    store.save_conversation(one)
    store.delete(one.id)
    assert found(store, "cats") == []
    store.restore(one.id)
    assert len(found(store, "cats")) == 1
    store.remove(one.id)
    assert indexed(store) == set()


def test_the_index_follows_every_change(store: Store) -> None:
    one = session(("about cats", ""), ("second", "reply"))
    one.turns[0].state = "streaming"  # type: ignore[assignment]
    store.save_conversation(one)
    assert indexed(store) == {"second"}
    one.turns[0].state, one.turns[0].raw_reply = "complete", "they purr"  # type: ignore[assignment]
    store.save_conversation(one)
    assert indexed(store) == {"about cats", "second"}
    assert found(store, "purr")
    one.turns[0].raw_reply = "they bark"
    store.save_conversation(one)
    assert not found(store, "purr") and found(store, "bark")
    one.turns[1].state = "streaming"  # type: ignore[assignment]
    store.save_conversation(one)
    assert indexed(store) == {"about cats"}


def test_a_reply_that_a_crash_cut_is_found(store: Store) -> None:
    mine, other = session(("mine", "half a rep")), session(("other", "half a sentence"))
    for one in (mine, other):
        one.turns[0].state = "streaming"  # type: ignore[assignment]
        store.save_conversation(one)
    store.claim(mine.id)
    store.settle_interrupted()
    assert indexed(store) == {"other"}
    assert store.load(other.id).turns[0].state == "interrupted"
    assert store.load(mine.id).turns[0].state == "streaming"


def test_an_old_store_is_indexed_in_steps_and_changes_meanwhile_count(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_index, "BATCH", 2)
    one = session(*((f"prompt {n}", f"reply {n}") for n in range(5)))
    store.save_conversation(one)
    store.database.renew_index()
    assert indexed(store) == set()
    assert store.search.behind() == 5
    one.turns[1].raw_reply = "changed before its turn came"
    store.save_conversation(one)
    store.save_conversation(session(("new", "there at once")))
    assert found(store, "at once") and not found(store, "came")
    two = search_index.ADD_MORE[0][0], (2,)
    monkeypatch.setattr(search_index, "ADD_MORE", (two, (search_index.ADD_MORE[1][0], (2,))))
    assert store.search.add_more()
    one.turns[0].raw_reply = "changed again"
    store.save_conversation(one)
    while store.search.add_more():
        pass
    assert indexed(store) == {*(f"prompt {n}" for n in range(5)), "new"}
    assert found(store, "came") and found(store, "changed again")


def test_an_index_that_lacks_turns_is_made_anew(store: Store) -> None:
    store.save_conversation(session(("about cats", "x")))
    store.search.renew_if_it_differs()
    assert indexed(store) == {"about cats"}
    store.database.write(
        [
            (
                "INSERT INTO search (search, rowid, text) SELECT 'delete', id, text FROM search_texts",
                (),
            )
        ]
    )
    store.search.renew_if_it_differs()
    assert store.search.add_more() is False
    assert indexed(store) == {"about cats"}


def test_a_damaged_index_never_stops_saving(store: Store) -> None:
    for number in range(30):
        store.save_conversation(session((f"prompt {number}", "reply " * 50)))
    store.close()
    with closing(sqlite3.connect(store.path)) as db:
        db.execute("UPDATE search_data SET block = x'ffff0004ffffffffffffffffffffff' WHERE id > 10")
        db.commit()
    assert not is_sound(store.path)
    store.save_conversation(session(("after", "words")))
    found(store, "prompt 29")
    while store.search.add_more():
        pass
    assert len(found(store, "prompt 29")) == 1
    assert is_sound(store.path)


def test_a_repaired_store_gets_a_new_index(store: Store) -> None:
    store.save_conversation(session(("about cats", "x")))
    store.close()
    repair(store.path)
    while store.search.add_more():
        pass
    assert indexed(store) == {"about cats"}


def test_without_trigrams_everything_works_more_slowly(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save_conversation(session(("about cats", "x")))
    store.close()
    missing = tuple(s.replace("'trigram'", "'absent'") for s in search_index._CREATE)
    with monkeypatch.context() as old:
        old.setattr(search_index, "_CREATE", missing)
        old.setattr(search_index, "_works", lambda db: False)
        assert not store.search.indexed
        store.save_conversation(session(("all of cats", "y")))
        assert [line for _, line in found(store, "cats")] == ["all of cats", "about cats"]
        store.close()
    while store.search.add_more():
        pass
    assert indexed(store) == {"about cats", "all of cats"}


def test_words_are_bounded() -> None:
    words = Words("x" * 10_000 + " a" * 1000 + "\x00\x1b[31m \ud800 b")
    assert len(words.words) <= 8
    assert max(map(len, words.words)) <= 64
    assert len(words.trigrams()) <= 20
    assert not Words(" \x00\n\t")
