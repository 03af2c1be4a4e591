"""Sessions from files: our own, and those of other programs; hostile ones are refused whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.protocol import Figures, Sampling
from ktchat.common.errors import SessionFileError
from ktchat.store import tree
from ktchat.store.conversation import Compaction, Conversation, Turn
from ktchat.store.export import to_json
from ktchat.store.imports import import_file, read_session
from ktchat.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "ktchat.db")
    yield store
    store.close()


def written(tmp_path: Path, data: object) -> Path:
    path = tmp_path / "export.json"
    path.write_text(json.dumps(data))
    return path


def shown(conversation: Conversation) -> list[tuple[str, str]]:
    return [(turn.raw_prompt, turn.raw_reply) for turn in conversation.turns]


def only(store: Store, path: Path) -> Conversation:
    (session,) = import_file(store, path).sessions
    return store.load(session)


def ours() -> Conversation:
    a = Turn("a", "one", "hm", state="complete", model="Qwen3", sampling=Sampling(seed=3))  # type: ignore[arg-type]
    a.figures = Figures(1, 2, 3, seed=3)
    b = Turn("b", "two", state="complete", parent=a.id, edited=7.0)  # type: ignore[arg-type]
    b.compaction = Compaction(1, "in short")
    b2 = Turn("b", "other", state="stopped", parent=a.id)  # type: ignore[arg-type]
    return Conversation(
        title="mine", system="Be short.", think="low", model_name="Qwen3", model_path="/m/q.gguf",
        turns=[a, b], others=[b2], created=5.0, updated=6.0,
    )  # fmt: skip


def test_our_own_session_comes_back_whole_and_only_once(store: Store, tmp_path: Path) -> None:
    source = ours()
    path = tmp_path / "export.json"
    path.write_text(to_json(source, source.others, {"sha256": "ab" * 32}))
    store.save_conversation(source)
    back = only(store, path)
    assert back.id != source.id and store.load(source.id) == source, "nothing is overwritten"
    for before, after in zip(tree.all_turns(source), tree.all_turns(back), strict=True):
        before.id, before.parent = after.id, after.parent
    assert (back.turns, back.others) == (source.turns, source.others)
    assert (back.title, back.system, back.think) == ("mine", "Be short.", "low")
    assert back.model_path == "", "a path of another machine is none here"
    assert tree.place(back, back.turns[1], "reply") == (1, 2)
    again = import_file(store, path)
    assert (again.sessions, again.known) == ([], 1)


def changed(**changes: Any) -> dict[str, Any]:
    source = ours()
    data: dict[str, Any] = json.loads(to_json(source, source.others))
    for place, value in changes.items():
        *way, last = place.split("__")
        at: Any = data
        for step in way:
            at = at[int(step) if step.isdigit() else step]
        at[int(last) if last.isdigit() else last] = value
    return data


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"turns": {}},
        {"turns": [1]},
        {"title": 3},
        {"turns__0__prompt": None},
        {"turns__0__reply": ["x"]},
        {"turns__0__id": "y"},
        {"turns__1__parent": None},
        {"replaced__0__parent": "nobody"},
        {"turns__0__id": 5},
        {"system": {"a": 1}},
        {"turns__0__error": {"what": 3}},
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_kept(
    store: Store, tmp_path: Path, change: dict[str, Any]
) -> None:
    try:
        import_file(store, written(tmp_path, changed(**change)))
    except SessionFileError:
        assert store.sessions() == []
    else:
        assert list(change) == ["turns__0__error"], "what can be mended is"


@pytest.mark.parametrize(
    "change",
    [
        {"turns__0__sampling": {"temperature": "hot"}},
        {"turns__0__figures": {"reply_tokens": [], "seed": "x"}},
        {"turns__0__created": "yesterday"},
        {"turns__0__max_tokens": -1},
        {"turns__0__state": "flying"},
        {"turns__1__compaction": {"unread": -1, "summary": 3}},
        {"think": "wild"},
        {"model": 7},
        {"created": 1e300},
    ],
)
def test_values_that_are_impossible_give_way_to_none(
    store: Store, tmp_path: Path, change: dict[str, Any]
) -> None:
    assert shown(only(store, written(tmp_path, changed(**change)))) == [("a", "one"), ("b", "two")]


def test_turns_in_a_circle_are_refused(store: Store, tmp_path: Path) -> None:
    data = changed()
    other = data["replaced"][0]
    other["parent"] = other["id"]
    with pytest.raises(SessionFileError, match="circle"):
        import_file(store, written(tmp_path, data))


def test_hostile_text_is_kept_raw_and_drawn_clean(store: Store, tmp_path: Path) -> None:
    evil = "x\x1b]52;c;QQ==\x07y\u202e"
    data = changed(title=evil, turns__0__prompt=evil, turns__0__model=evil, model={"name": evil})
    back = only(store, written(tmp_path, data))
    assert back.turns[0].raw_prompt == evil
    drawn = (back.title, back.turns[0].prompt, back.turns[0].model, back.model_name)
    assert drawn == ("xy",) * 4


def llama_cpp() -> dict[str, Any]:
    def message(
        name: str, role: str, content: str, parent: str | None, **more: Any
    ) -> dict[str, Any]:
        kind = "root" if role == "root" else "text"
        role = "system" if role == "root" else role
        return {
            "convId": "c", "id": name, "type": kind, "role": role, "content": content,
            "parent": parent, "timestamp": 1.7e12, "children": [], **more,
        }  # fmt: skip

    return {
        "conv": {
            "id": "c",
            "name": "On llamas",
            "lastModified": 1_700_000_000_000,
            "currNode": "a1",
        },
        "messages": [
            message("r", "root", "", None),
            message("s", "system", "Be kind.", "r"),
            message("u", "user", "what is a llama?", "s"),
            message("a1", "assistant", "an animal", "u", thinking="hm", model="L3"),
            message("a2", "assistant", "a model", "u"),
            message("u2", "user", "and?", "a2"),
        ],
    }


def test_llama_cpp_web_ui(store: Store, tmp_path: Path) -> None:
    back = only(store, written(tmp_path, [llama_cpp()]))
    assert (back.title, back.system, back.updated) == ("On llamas", "Be kind.", 1.7e9)
    assert shown(back) == [("what is a llama?", "an animal")]
    assert (back.turns[0].raw_thinking, back.turns[0].model) == ("hm", "L3")
    assert tree.place(back, back.turns[0], "reply") == (1, 2)
    tree.show(back, back.others[0])
    assert shown(back) == [("what is a llama?", "a model"), ("and?", "")]


def test_open_webui(store: Store, tmp_path: Path) -> None:
    thought = '<details type="reasoning" done="true" duration="3">\n<summary>Thought</summary>\n> let me\n> see\n</details>\n'
    messages = {
        "1": {"id": "1", "parentId": None, "role": "user", "content": "hi", "timestamp": 1.7e9},
        "2": {"parentId": "1", "role": "assistant", "content": f"{thought}hello", "model": "m"},
        "3": {
            "parentId": "2",
            "role": "user",
            "content": [{"type": "text", "text": "bye"}, {"type": "image_url"}],
        },
        "4": {"parentId": "3", "role": "assistant", "content": "bye"},
    }
    chat = {
        "title": "Greetings",
        "params": {"system": "S"},
        "history": {"messages": messages, "currentId": "4"},
    }
    back = only(
        store,
        written(tmp_path, [{"id": "x", "title": "Greetings", "chat": chat, "updated_at": 1.7e9}]),
    )
    assert shown(back) == [("hi", "hello"), ("bye\n\n[image_url]", "bye")]
    assert (back.turns[0].raw_thinking, back.system, back.title) == (
        "let me\nsee",
        "S",
        "Greetings",
    )


def test_chatgpt(store: Store, tmp_path: Path) -> None:
    def node(
        parent: str | None, role: str = "", parts: Any = None, **content: Any
    ) -> dict[str, Any]:
        body = {"content_type": "text", "parts": parts, **content}
        message = {
            "author": {"role": role},
            "content": body,
            "create_time": 1.7e9,
            "recipient": "all",
        }
        return {"parent": parent, "children": [], "message": message if role else None}

    mapping = {
        "root": node(None),
        "sys": node("root", "system", [""]),
        "u": node("sys", "user", ["why?"]),
        "t": node("u", "assistant", content_type="thoughts", thoughts=[{"content": "so"}]),
        "c": node("t", "assistant", content_type="code", text="print(1)"),
        "tool": node("c", "tool", ["1"]),
        "a": node("tool", "assistant", ["because"]),
        "u2": node("a", "user", ["edited away"]),
        "a2": node("u2", "assistant", ["oh"]),
        "u3": node("a", "user", ["then?"]),
        "a3": node("u3", "assistant", ["done"]),
    }
    exported = {"title": "Why", "create_time": 1.7e9, "mapping": mapping, "current_node": "a3"}
    empty = {"title": "nothing", "mapping": {"root": node(None)}, "current_node": "root"}
    done = import_file(store, written(tmp_path, [exported, empty, {"title": "odd"}]))
    assert len(done.sessions) == 1 and len(done.refused) == 2
    assert "1 session imported · 2 left out" in done.words
    back = store.load(done.sessions[0])
    assert shown(back) == [("why?", "```\nprint(1)\n```\n\nbecause"), ("then?", "done")]
    assert back.turns[0].raw_thinking == "so"
    assert tree.place(back, back.turns[1], "prompt") == (2, 2)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"3", b'"x"', b"[[]]", b"\xff\xfe\x00", b"[" * 100_000, b'{"conv": {}}',
     b'{"mapping": {"a": 3}}', b'{"chat": {"history": {"messages": []}}}', b'{"mapping": {}}'],
)  # fmt: skip
def test_files_that_hold_no_session_are_refused_in_words(
    store: Store, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(SessionFileError, match="cannot be imported"):
        import_file(store, path)
    assert store.sessions() == []


def test_a_folder_and_nothing_are_no_files(store: Store, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.json", Path("/dev/zero")):
        with pytest.raises(SessionFileError):
            import_file(store, path)


def test_a_deep_tree_of_messages_is_read(store: Store) -> None:
    data = llama_cpp()
    data["messages"] = [
        {
            "id": str(n),
            "role": ("user", "assistant")[n % 2],
            "content": f"m{n}",
            "parent": str(n - 1) if n else None,
        }
        for n in range(6000)
    ]
    data["conv"]["currNode"] = "5999"
    assert len(read_session(data).turns) == 3000
