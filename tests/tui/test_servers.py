"""Servers by keyboard alone: adding, testing, opening and removing them, talking, losing one and going on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual import events as keys

from engine.remote.address import parse
from ktchat.library import served, servers
from ktchat.library.servers import Server, Servers
from ktchat.screens.dialogs.dialogs import Question
from ktchat.screens.dialogs.server_dialog import ServedModelDialog, ServerDialog
from ktchat.screens.models.manager import TABS, ModelManager
from ktchat.session.engines import EitherEngine
from ktchat.store.conversation import TurnState
from tests.support.fake_engine import FakeEngine
from tests.support.model_server import Answer, ModelServer, delta, events, model_server, said
from tests.tui.conftest import Running, Start

KEY = "sk-k3y.of+the/tests=0123456789"


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found on this machine by itself, whatever runs there."""
    monkeypatch.setattr(served, "FOUND", ())
    monkeypatch.delenv(servers.VARIABLE, raising=False)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as found:
        yield found


def engine(home: Path) -> FakeEngine:
    """Models here are scripted; servers are asked by the real engine."""
    from engine.remote.engine import RemoteEngine

    return EitherEngine(  # type: ignore[return-value]
        lambda: FakeEngine(["here"]),
        lambda: RemoteEngine(Servers(home / "servers.toml").access),  # type: ignore[arg-type,return-value]
    )


async def opened(run: Running) -> ModelManager:
    """The tab of servers."""
    await run.press("ctrl+o")
    await run.until(lambda: isinstance(run.app.screen, ModelManager))
    screen = run.app.screen
    assert isinstance(screen, ModelManager)
    await run.press(str(TABS.index("servers") + 1))
    await run.until(lambda: screen.page is screen.servers)
    return screen


async def typed(run: Running, **fields: str) -> None:
    """Fill in the dialog by keys."""
    await run.until(lambda: isinstance(run.app.screen, ServerDialog))
    for name in ("address", "name", "key", "context"):
        if name in fields:
            run.app.focused.insert_text_at_cursor(fields[name])  # type: ignore[union-attr]
        if name != "context":
            await run.press("tab")
    await run.press("enter")


async def add(run: Running, screen: ModelManager, server: ModelServer, **fields: str) -> None:
    """Add a server, and wait for what it answers."""
    await run.press("a")
    await typed(run, address=f"127.0.0.1:{server.port}", **fields)
    await run.until(lambda: run.app.screen is screen)
    await run.sees("vLLM")


async def open_it(run: Running) -> None:
    await run.press("enter")
    await run.until(lambda: run.chat.loaded is not None and bool(run.chat.loaded.origin))


def everything(folder: Path) -> dict[Path, bytes]:
    """All files below a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_added_tested_opened_talked_to_lost_and_gone_on_with(
    start: Start, home: Path, server: ModelServer
) -> None:
    run = await start(engine=engine(home), size=(100, 30))
    await run.ask("first")
    assert run.last.reply == "here" and run.last.model == "Fake"

    screen = await opened(run)
    await run.sees("No servers yet")
    await add(run, screen, server, name="lab", key=KEY)
    await run.sees("lab", "tiny", "4k", f"127.0.0.1:{server.port}: vLLM · tiny (4k)")
    await open_it(run)
    await run.sees(f"tiny · vLLM · 127.0.0.1:{server.port}", "of 4k")

    server.says("There", " it", " is.")
    turn = await run.ask("second")
    assert turn.reply == "There it is." and turn.model == f"tiny · 127.0.0.1:{server.port}"
    assert [m["content"] for m in server.replies[0].body["messages"]] == ["first", "here", "second"]

    # Lost in the middle of a reply: what came is kept, and nothing is blocked.
    server.answers.append(Answer([events(delta(content="Half a"))], cut=True))
    turn = await run.ask("third")
    assert (turn.state, turn.reply) == (TurnState.FAILED, "Half a")
    await run.sees("Half a", "broke off", "Ctrl+R")
    server.close()
    await run.press("ctrl+r")
    await run.sees("cannot be reached")
    with model_server(server.port) as again:
        again.says("Whole", " again.")
        await run.press("ctrl+r")
        await run.until(lambda: run.last.reply == "Whole again." and not run.chat.busy)
        await run.sees("Whole again.")
        assert again.replies[0].headers["authorization"] == f"Bearer {KEY}"

        # And back to a model of this machine, in the same session.
        run.screen.models.load("/models/Fake.gguf")
        await run.until(lambda: run.chat.loaded is not None and not run.chat.loaded.origin)
        turn = await run.ask("fourth")
    assert turn.reply == "here" and turn.model == "Fake"
    models = [turn.model for turn in run.chat.conversation.turns]
    assert models == ["Fake", *[f"tiny · 127.0.0.1:{server.port}"] * 2, "Fake"]

    await run.chat.saved(60.0)
    found = [path.name for path, data in everything(home).items() if KEY.encode() in data]
    assert found == ["keys.json"]
    assert KEY not in run.text()


async def test_esc_closes_the_stream_and_the_server_stops(
    start: Start, home: Path, server: ModelServer
) -> None:
    run = await start(engine=engine(home))
    screen = await opened(run)
    await add(run, screen, server)
    await open_it(run)
    server.answers.append(Answer(said("One", " two", " three"), hold=2))
    run.screen.prompt.put("go")
    await run.press("enter")
    await run.sees("One two")
    await run.press("escape")
    await run.until(lambda: not run.chat.busy)
    assert (run.last.state, run.last.reply) == (TurnState.STOPPED, "One two")
    assert await asyncio.to_thread(server.wait_for_leaving)


async def test_a_server_that_is_not_there_leaves_the_model(
    start: Start, home: Path, server: ModelServer
) -> None:
    run = await start(engine=engine(home))
    Servers(home / "servers.toml").add(Server(server.url, name="gone"))
    server.close()
    await opened(run)
    await run.sees("gone")
    await run.press("t")
    await run.sees("no answer", "Nothing listens there")
    await run.press("enter")
    await run.sees("Nothing listens there")
    await run.press("escape")
    run.screen.models.load(f"{server.url}#tiny")
    await run.sees("cannot be reached")
    await run.until(lambda: not run.screen.activity.loading)
    assert run.chat.loaded is not None and run.chat.loaded.name == "Fake"
    assert (await run.ask("still")).reply == "here"


async def test_one_of_several_models(start: Start, home: Path, server: ModelServer) -> None:
    server.serves("org/Small-1B", "org/Large-70B", owned_by="vllm", max_model_len=32768)
    run = await start(engine=engine(home))
    screen = await opened(run)
    await add(run, screen, server)
    await run.sees("2 models")
    await run.press("enter")
    await run.until(lambda: isinstance(run.app.screen, ServedModelDialog))
    await run.sees("org/Small-1B · 32k", "org/Large-70B · 32k")
    await run.press("down", "enter")
    await run.until(lambda: run.chat.loaded is not None and run.chat.loaded.name == "Large-70B")
    path = f"{server.url}#org/Large-70B"
    assert run.screen.context.settings.read().last_model == path
    assert run.screen.context.settings.read().recent_models == ("/models/Fake.gguf",)
    # The manager opens at the server that answers.
    await run.press("ctrl+o")
    await run.until(lambda: isinstance(run.app.screen, ModelManager))
    screen = run.app.screen  # type: ignore[assignment]
    assert screen.page is screen.servers
    await run.sees(f"▌ 127.0.0.1:{server.port}")


async def test_a_wrong_address_is_said_in_the_dialog(start: Start, home: Path) -> None:
    run = await start(engine=engine(home))
    screen = await opened(run)
    await run.press("a")
    await typed(run)
    await run.sees("type the address of a server")
    await typed(run, address="http://user:secret@host")
    await run.sees("It holds a password")
    await run.press("escape")
    await run.until(lambda: run.app.screen is screen)
    assert Servers(home / "servers.toml").read() == []


async def test_a_key_typed_fast_stands_in_no_other_field(start: Start, home: Path) -> None:
    run = await start(engine=engine(home))
    await opened(run)
    await run.press("a")
    await run.until(lambda: isinstance(run.app.screen, ServerDialog))
    for key in (
        "tab",
        *"lab",
        "down",
        *"secret",
        "shift+tab",
        *"home",
    ):  # all before the first is done
        run.app.post_message(keys.Key(key, key if len(key) == 1 else None))
    fields = run.app.screen.fields  # type: ignore[attr-defined]
    await run.until(lambda: fields["name"].value == "home")
    assert fields["key"].value == "secret"


async def test_edited_and_removed(start: Start, home: Path, server: ModelServer) -> None:
    file = Servers(home / "servers.toml")
    run = await start(engine=engine(home))
    screen = await opened(run)
    await add(run, screen, server, key=KEY)
    await run.press("e")
    await typed(run, name="renamed", context="2048")
    await run.sees("renamed")
    (kept,) = file.read()
    assert kept == Server(server.url, name="renamed", context=2048)
    assert file.keys.find(parse(server.url).origin) == KEY  # it was left empty
    await run.until(lambda: run.app.screen is screen)
    await run.press("e")
    await typed(run, key="another-key")
    await run.until(lambda: file.keys.find(parse(server.url).origin) == "another-key")
    await run.until(lambda: run.app.screen is screen)
    await run.press("d")
    await run.until(lambda: isinstance(run.app.screen, Question))
    await run.press("down", "enter")
    await run.sees("renamed was removed", "No servers yet")
    assert file.read() == [] and not (home / "keys.json").exists()


async def test_a_key_may_be_a_variable_s(
    start: Start, home: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_KEY", KEY)
    run = await start(engine=engine(home))
    screen = await opened(run)
    await add(run, screen, server, key="$LAB_KEY")
    assert server.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    assert Servers(home / "servers.toml").read() == [Server(server.url, variable="LAB_KEY")]
    assert not any(KEY.encode() in data for data in everything(home).values())


async def test_a_key_in_clear_is_asked_for_once(
    start: Start, home: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.remote import http

    monkeypatch.setattr(http, "is_private", lambda host: False)
    monkeypatch.setattr(http, "is_loopback", lambda host: False)
    run = await start(engine=engine(home))
    screen = await opened(run)
    await run.press("a")
    await typed(run, address=f"127.0.0.1:{server.port}", key=KEY)
    await run.until(lambda: isinstance(run.app.screen, Question))
    await run.sees("not encrypted")
    await run.press("enter")  # the first answer is no
    await run.until(lambda: run.app.screen is screen)
    assert server.requests == []
    await run.press("t")
    await run.until(lambda: isinstance(run.app.screen, Question))
    await run.press("down", "enter")
    await run.until(lambda: run.app.screen is screen)
    await run.sees("vLLM · tiny")
    await run.press("t")
    await run.until(lambda: len(server.requests) > 1)
    assert run.app.screen is screen
    assert Servers(home / "servers.toml").read()[0].plain


async def test_servers_on_this_machine_are_found_and_offered(
    start: Start, home: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serves("llama3:8b", owned_by="library")
    server.pages["/api/version"] = {"version": "0.30.1"}
    monkeypatch.setattr(
        served, "FOUND", (("Ollama", server.url), ("llama-server", "http://127.0.0.1:9/v1"))
    )
    run = await start(engine=engine(home))
    screen = await opened(run)
    await run.sees("found on this machine", "Ollama", "llama3:8b")
    assert Servers(home / "servers.toml").read() == []
    assert all("authorization" not in request.headers for request in server.requests)
    await run.press("a")
    await run.until(lambda: Servers(home / "servers.toml").read() != [])
    await run.misses("found on this machine")
    await run.until(lambda: run.app.screen is screen)
    await run.press("enter")
    await run.until(lambda: run.chat.loaded is not None and run.chat.loaded.runtime == "Ollama")


async def test_what_a_server_cannot_do_is_said(
    start: Start, home: Path, server: ModelServer
) -> None:
    run = await start(engine=engine(home))
    screen = await opened(run)
    await add(run, screen, server)
    await open_it(run)
    run.screen.models.load_on_cpu()
    await run.sees("the model runs on a server")
    thought = [events(delta(reasoning="Hm")), events(delta(content="Yes"))]
    server.answers.append(Answer(thought, hold=1))
    run.screen.prompt.put("go")
    await run.press("enter")
    await run.until(lambda: run.screen.activity.thinking)
    run.screen.thinking.answer_now()
    await run.sees("a server cannot be told to end the thinking")
    await run.press("escape")
    await run.until(lambda: not run.chat.busy)
    assert run.last.thinking == "Hm"


async def test_hostile_text_of_a_server_is_made_safe(
    start: Start, home: Path, server: ModelServer
) -> None:
    hostile = "\x1b]52;c;SGFja2Vk\x07\x1b[2Jx\u202ey\x9b31m"
    run = await start(engine=engine(home))
    screen = await opened(run)
    await add(run, screen, server)
    await open_it(run)
    server.answers.append(Answer(said(f"a{hostile}b")))
    assert (await run.ask("hi")).reply == "axyb"
    server.answers.append(Answer([events({"error": {"message": f"bad {hostile}"}})]))
    await run.ask("again")
    await run.sees("It says: bad")
    assert not any(mark in run.text() for mark in ("\x1b", "\u202e", "\x9b", "\x07"))


async def test_a_session_of_a_server_is_opened_with_it_at_the_next_start(
    start: Start, home: Path, server: ModelServer
) -> None:
    run = await start(engine=engine(home))
    screen = await opened(run)
    await add(run, screen, server)
    await open_it(run)
    await run.ask("hello")
    again = await start(engine=engine(home), model=None)
    await again.until(lambda: again.chat.loaded is not None)
    assert again.chat.loaded is not None and again.chat.loaded.origin
