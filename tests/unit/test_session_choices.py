"""What is chosen for a session: it holds from the next message on, is kept with it, and goes where it goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from engine.protocol import Load, PartialSampling
from ktchat.common.errors import SessionBusyError, SettingsError
from ktchat.common.precedence import Layers
from ktchat.common.settings import SettingsFile
from ktchat.session.chat import ChatSession
from ktchat.store.conversation import Conversation, Turn
from ktchat.store.export import to_json
from ktchat.store.imports import import_file, read_session
from ktchat.store.schema import MIGRATIONS
from ktchat.store.store import Store
from tests.support.fake_engine import FakeEngine

Begin = Callable[..., Awaitable[ChatSession]]


@pytest.fixture
async def begin(tmp_path: Path) -> AsyncIterator[Begin]:
    started: list[ChatSession] = []

    async def chat(model: str = "/m/Fake.gguf", **engine: Any) -> ChatSession:
        settings = SettingsFile(tmp_path / "settings.toml")
        fake = FakeEngine(["a"], **engine)
        started.append(ChatSession(fake, Store(tmp_path / "ktchat.db"), layers=settings.layers))
        async for _ in started[-1].load(Load(model)):
            pass
        return started[-1]

    yield chat
    for session in started:
        await session.close()


async def ask(chat: ChatSession, text: str = "hi") -> Turn:
    async for _ in chat.send(text):
        pass
    return chat.conversation.turns[-1]


async def test_a_choice_holds_from_the_next_message_on_and_is_kept(begin: Begin) -> None:
    chat = await begin(own_sampling=PartialSampling(temperature=0.6))
    assert (await ask(chat)).sampling.temperature == 0.6
    chat.choose(temperature=1.5, max_tokens=7, system="Be kind.", seed=-1)
    turn = await ask(chat)
    assert (turn.sampling.temperature, turn.max_tokens) == (1.5, 7)
    engine = chat.engine
    assert isinstance(engine, FakeEngine)
    assert engine.requests[-1].messages[0].content == "Be kind."
    session = chat.conversation.id
    await chat.new()
    assert (await ask(chat)).sampling.temperature == 0.6, "another session"
    again = await chat.open(session)
    assert again.choices == {"temperature": 1.5, "max_tokens": 7, "seed": -1}
    assert (again.system, chat.layers.held("temperature").source) == ("Be kind.", "session")
    chat.choose(temperature=None, system=None)
    assert (await ask(chat)).sampling.temperature == 0.6
    assert chat.conversation.choices == {"max_tokens": 7, "seed": -1}
    assert chat.conversation.system == ""


async def test_a_session_of_which_nothing_is_said_yet_keeps_its_choice(begin: Begin) -> None:
    chat = await begin()
    chat.choose(system="You are a poet.", top_k=3)
    session = chat.conversation.id
    await chat.new()
    kept = await chat.open(session)
    assert (kept.system, kept.choices, kept.turns) == ("You are a poet.", {"top_k": 3}, [])
    await ask(chat)
    assert [s.turns for s in chat.store.sessions()] == [1]


@pytest.mark.parametrize(
    "bad", [{"temperature": 99}, {"top_k": "x"}, {"max_tokens": -1}, {"seed": 1.5}]
)
async def test_what_is_impossible_changes_nothing(begin: Begin, bad: dict[str, Any]) -> None:
    chat = await begin()
    chat.choose(temperature=0.1)
    with pytest.raises(SettingsError):
        chat.choose(**bad)
    assert chat.conversation.choices == {"temperature": 0.1}


async def test_a_session_that_is_only_read_is_not_changed(begin: Begin) -> None:
    chat = await begin()
    chat.read_only = True
    with pytest.raises(SessionBusyError):
        chat.choose(temperature=0.1)
    assert chat.conversation.choices == {}
    chat.read_only = False


async def test_a_session_that_has_not_begun_follows_the_settings(
    begin: Begin, tmp_path: Path
) -> None:
    settings = SettingsFile(tmp_path / "settings.toml")
    settings.update(system="everywhere")
    settings.update_model("/m/Poet.gguf", system="rhyme")
    chat = await begin()
    chat.layers_of = settings.layers
    chat.follow_settings()
    assert chat.conversation.system == "everywhere"
    assert chat.layers.held("system").source == "everywhere"
    async for _ in chat.load(Load("/m/Poet.gguf")):
        pass
    assert chat.conversation.system == "everywhere", "the fake engine names its models otherwise"
    settings.update_model("/models/poet.gguf", system="rhyme")
    chat.follow_settings()
    assert (chat.conversation.system, chat.layers.held("system").source) == ("rhyme", "model")
    await ask(chat)
    settings.update(system="changed")
    settings.update_model("/models/poet.gguf", system=None)
    chat.follow_settings()
    assert (chat.conversation.system, chat.layers.held("system").source) == ("rhyme", "session")
    await chat.new()
    assert chat.conversation.system == "changed"
    chat.choose(system="mine")
    settings.update(system="once more")
    chat.follow_settings()
    assert chat.conversation.system == "mine"


async def test_thinking_is_the_nearest_choice_that_the_model_knows(begin: Begin) -> None:
    chat = await begin(think=("low", "medium", "high"))
    said: dict[str, dict[str, object]] = {
        "model": {"think": "low"},
        "everywhere": {"think": "high"},
    }
    chat.layers_of = lambda path: Layers(**said)
    assert chat.offered_think == "low"
    chat.choose_thinking("medium")
    assert chat.offered_think == "medium"
    chat.choose_thinking(None)
    said["model"] = {"think": "off"}
    assert (chat.offered_think, chat.think) == ("high", "high")
    said.clear()
    assert (chat.offered_think, chat.think) == (None, "medium")


async def test_a_branch_has_the_choices_and_its_own_copy_of_them(begin: Begin) -> None:
    chat = await begin()
    chat.choose(temperature=0.2, system="S")
    turn = await ask(chat)
    source = chat.conversation
    branch = await chat.branch(turn)
    assert (branch.choices, branch.system) == ({"temperature": 0.2}, "S")
    chat.choose(temperature=0.9)
    assert source.choices == {"temperature": 0.2}


# On the disk and in files.


def session() -> Conversation:
    return Conversation(title="t", choices={"temperature": 0.2, "seed": -1}, turns=[Turn("a", "b")])


def test_exported_and_imported_with_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "ktchat.db")
    path = tmp_path / "s.json"
    path.write_text(to_json(session()))
    (name,) = import_file(store, path).sessions
    assert store.load(name).choices == session().choices
    store.close()


@pytest.mark.parametrize(
    "value", [3, None, [], {"temperature": "hot"}, {"theme": "x"}, {"seed": 1e400}]
)
def test_choices_of_a_stranger_are_checked(value: object) -> None:
    data = json.loads(to_json(session()))
    data["choices"] = value
    assert read_session(data).choices == {}


def test_an_older_file_and_a_damaged_value_open(tmp_path: Path) -> None:
    store = Store(tmp_path / "ktchat.db")
    kept = session()
    store.save_conversation(kept)
    assert store.load(kept.id).choices == kept.choices
    for text in ("{", "[1]", '{"temperature": -3}', "x" * 100, ""):
        store.database.write([("UPDATE sessions SET choices = ?", (text,))])
        assert store.load(kept.id).choices == {}
    store.close()
    assert any("choices TEXT" in script for script in MIGRATIONS[4:])


async def test_repair_keeps_them(tmp_path: Path) -> None:
    store = Store(tmp_path / "ktchat.db")
    kept = session()
    store.save_conversation(kept)
    store.close()
    data = bytearray((tmp_path / "ktchat.db").read_bytes())
    data[100:130] = bytes(30)  # the schema's root
    (tmp_path / "ktchat.db").write_bytes(data)
    store = Store(tmp_path / "ktchat.db")
    loaded = await asyncio.to_thread(store.load, kept.id)
    assert (loaded.choices, len(loaded.turns)) == (kept.choices, 1)
    store.close()
