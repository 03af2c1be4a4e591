"""llama-cpp-python's own server with a tiny model: a conversation, stopping, errors, two at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from engine.errors import KtchatError
from engine.protocol import Failed, Finished, Load, Loaded, Message, Notice, Sampling, Text
from engine.remote.engine import Access, RemoteEngine
from engine.remote.errors import ServerKeyError, ServerModelError, ServerUnreachableError
from tests.support.engines import collect, text_of
from tests.support.llama_server import LlamaServer, llama_server
from tests.support.tiny import tiny_model

KEY = "key-of-the-tests"
GREEDY = Sampling(temperature=0.0, seed=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("qwen3moe", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[LlamaServer]:
    with llama_server(model, n_ctx=512, api_key=KEY) as found:
        yield found


@pytest.fixture
async def engine(server: LlamaServer) -> AsyncIterator[RemoteEngine]:
    engine = RemoteEngine(lambda address: Access(KEY))
    loaded = (await collect(engine.load(Load(server.url, context=512))))[-1]
    assert isinstance(loaded, Loaded), loaded
    assert (loaded.name, loaded.runtime, loaded.context) == ("tiny", "llama-cpp-python", 512)
    yield engine
    await engine.close()


def said(engine: RemoteEngine, text: str, limit: int | None = 24):  # type: ignore[no-untyped-def]
    return engine.generate([Message("user", text)], GREEDY, limit)


async def failure(engine: RemoteEngine, path: str) -> KtchatError:
    last = (await collect(engine.load(Load(path))))[-1]
    assert isinstance(last, Failed), last
    return last.error


async def test_a_conversation(engine: RemoteEngine) -> None:
    seen = await collect(said(engine, "Hello"))
    reply = text_of(seen)
    assert reply and isinstance(seen[-1], Finished)
    assert seen[-1].reason in ("stop", "length") and 0 < seen[-1].figures.reply_tokens <= 24
    again = await collect(said(engine, "Hello"))
    assert text_of(again) == reply  # greedy
    messages = [Message("user", "Hello"), Message("assistant", reply), Message("user", "And?")]
    third = await collect(engine.generate(messages, GREEDY, 24))
    assert isinstance(third[-1], Finished) and text_of(third)
    assert not any(isinstance(event, Notice) for event in (*seen, *again, *third))


async def test_stopping_ends_it_there_too(engine: RemoteEngine) -> None:
    seen = await collect(
        said(engine, "Hello", 60),
        lambda event: engine.cancel() if isinstance(event, Text) else None,
    )
    assert isinstance(seen[-1], Finished) and seen[-1].reason == "cancelled"
    # The server computes one reply at a time: the next one comes once it has let go of the first.
    assert isinstance((await collect(said(engine, "Next")))[-1], Finished)


async def test_errors(server: LlamaServer, engine: RemoteEngine) -> None:
    assert isinstance(await failure(engine, f"{server.url}#nope"), ServerModelError)
    stranger = RemoteEngine()
    assert isinstance(await failure(stranger, server.url), ServerKeyError)
    await stranger.close()
    stranger = RemoteEngine(lambda address: Access("another-key"))
    error = await failure(stranger, server.url)
    assert isinstance(error, ServerKeyError) and "does not accept the key" in str(error)
    await stranger.close()


async def test_a_conversation_that_is_too_long(engine: RemoteEngine) -> None:
    seen = await collect(said(engine, "word " * 2000))
    assert isinstance(seen[-1], Failed) and "context" in str(seen[-1].error)
    assert isinstance((await collect(said(engine, "Hello")))[-1], Finished)


async def test_two_at_once(server: LlamaServer, engine: RemoteEngine) -> None:
    other = RemoteEngine(lambda address: Access(KEY))
    await collect(other.load(Load(server.url, context=512)))
    replies = await asyncio.gather(
        *(collect(said(one, "Hello")) for one in (engine, other)), return_exceptions=False
    )
    assert all(isinstance(seen[-1], Finished) for seen in replies)
    assert text_of(replies[0]) == text_of(replies[1]) != ""
    await other.close()


async def test_a_server_that_was_away_answers_again(model: Path) -> None:
    engine = RemoteEngine()
    with llama_server(model, n_ctx=512) as first:
        await collect(engine.load(Load(first.url, context=512)))
        reply = text_of(await collect(said(engine, "Hello")))
    (failed,) = await collect(said(engine, "Hello"))
    assert isinstance(failed, Failed) and isinstance(failed.error, ServerUnreachableError)
    with llama_server(model, port=first.port, n_ctx=512):
        seen = await collect(said(engine, "Hello"))
    assert text_of(seen) == reply and isinstance(seen[-1], Finished)
    await engine.close()
