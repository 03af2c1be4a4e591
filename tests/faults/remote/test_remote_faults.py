"""Servers that are slow, cut, wrong or hostile: what came is kept, and the rest is said in words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from engine.errors import ContextError, KtchatError
from engine.protocol import Failed, Finished, Load, Message, Notice, Quiet, Sampling, Text
from engine.remote import errors, events
from engine.remote import http as remote_http
from engine.remote.engine import Access, RemoteEngine
from tests.support.clock import PATIENCE
from tests.support.engines import ask, collect, text_of
from tests.support.model_server import (
    DONE,
    Answer,
    ModelServer,
    bomb,
    delta,
    finish,
    model_server,
    refusal,
    said,
    usage,
)
from tests.support.model_server import events as stream

KEY = "k3y-of-the-tests-0123456789"


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as found:
        yield found


@pytest.fixture
async def engine(server: ModelServer) -> AsyncIterator[RemoteEngine]:
    """An engine that is connected, with a key."""
    engine = RemoteEngine(lambda address: Access(KEY))
    (loaded,) = await collect(engine.load(Load(server.url)))
    assert engine.loaded == loaded
    yield engine
    await engine.close()


async def failure(engine: RemoteEngine) -> KtchatError:
    """What the next reply fails with."""
    last = (await collect(ask(engine, "hi")))[-1]
    assert isinstance(last, Failed), last
    assert KEY not in str(last.error)
    return last.error


async def test_a_character_or_an_event_may_be_cut_anywhere(
    server: ModelServer, engine: RemoteEngine
) -> None:
    text = "Größe 🦙 — “ok”\r\nnext"
    body = stream(json.dumps(delta(content=text), ensure_ascii=False), finish(), usage(3, 2), DONE)
    for size in (1, 2, 3, 7, len(body)):
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        server.answers.append(Answer(pieces))
        seen = await collect(ask(engine, "hi"))
        assert text_of(seen) == text
        assert isinstance(seen[-1], Finished)


async def test_lines_may_end_in_every_way_and_comments_are_none(
    server: ModelServer, engine: RemoteEngine
) -> None:
    chunk = json.dumps(delta(content="a"))
    end = json.dumps(finish())
    body = f": ping\r\n\r\nid: 3\rdata:{chunk}\r\revent: x\ndata: {end}\n\nretry: 1\n\n".encode()
    for size in (1, 5, len(body)):
        server.answers.append(Answer([body[at : at + size] for at in range(0, len(body), size)]))
        seen = await collect(ask(engine, "hi"))
        assert text_of(seen) == "a" and isinstance(seen[-1], Finished)


async def test_half_an_event_at_the_end_is_none_and_the_rest_is_kept(
    server: ModelServer, engine: RemoteEngine
) -> None:
    server.answers.append(Answer([stream(delta(content="Half")), b'data: {"choices": [{"de']))
    seen = await collect(ask(engine, "hi"))
    assert text_of(seen) == "Half"
    assert isinstance(seen[-1], Failed) and isinstance(seen[-1].error, errors.ServerBrokeOffError)
    server.answers.append(Answer([stream(delta(content="Gr")), stream(delta())[:-1] + b"\xc3"]))
    seen = await collect(ask(engine, "hi"))
    assert text_of(seen) == "Gr" and isinstance(seen[-1], Failed)


async def test_a_cut_connection_keeps_what_came_and_the_next_reply_comes(
    server: ModelServer, engine: RemoteEngine
) -> None:
    server.answers.append(
        Answer([stream(delta(content="One")), stream(delta(content=" two"))], cut=True)
    )
    seen = await collect(ask(engine, "hi"))
    assert text_of(seen) == "One two"
    assert isinstance(seen[-1], Failed) and "broke off" in str(seen[-1].error)
    assert text_of(await collect(ask(engine, "again"))) == "Hello there."


async def test_a_stream_that_is_cut_after_its_end_is_whole(
    server: ModelServer, engine: RemoteEngine
) -> None:
    server.answers.append(Answer([stream(delta(content="All"), finish())], cut=True))
    seen = await collect(ask(engine, "hi"))
    assert text_of(seen) == "All" and isinstance(seen[-1], Finished)


async def test_a_reply_that_another_request_ended_is_no_whole_one(
    server: ModelServer, engine: RemoteEngine
) -> None:
    server.answers.append(Answer([stream(delta(content="Cut"), DONE)]))
    assert isinstance(await failure(engine), errors.ServerBrokeOffError)


async def test_http_1_0_ends_with_its_connection(server: ModelServer, engine: RemoteEngine) -> None:
    server.answers += [Answer(said("Old", " way"), version="HTTP/1.0")] * 2
    for _ in range(2):
        seen = await collect(ask(engine, "hi"))
        assert text_of(seen) == "Old way" and isinstance(seen[-1], Finished)


async def test_a_kept_connection_that_was_cut_meanwhile_is_opened_again(
    server: ModelServer, engine: RemoteEngine
) -> None:
    server.answers += [Answer(said("a"), close=True), Answer(said("b"), close=True)]
    assert text_of(await collect(ask(engine, "hi"))) == "a"
    assert text_of(await collect(ask(engine, "hi"))) == "b"
    server.answers.append(Answer(bare=b""))  # closed instead of an answer
    assert text_of(await collect(ask(engine, "hi"))) == "Hello there."


async def test_packed_answers_are_unpacked(server: ModelServer, engine: RemoteEngine) -> None:
    server.answers.append(Answer(said("packed", " text"), packed=True))
    assert text_of(await collect(ask(engine, "hi"))) == "packed text"


async def test_a_bomb_is_not_unpacked_to_its_end(
    server: ModelServer, engine: RemoteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_http, "MOST_REPLY_BYTES", 1 << 20)
    monkeypatch.setattr(remote_http, "MOST_BYTES", 1 << 20)
    packed = bomb(32 << 20)
    headers = {"Content-Encoding": "gzip"}
    server.answers.append(Answer([packed], headers=headers))
    assert isinstance(await failure(engine), errors.ServerAnswerError)
    server.pages["/v1/models"] = Answer([packed], kind="application/json", headers=headers)
    (failed,) = await collect(engine.load(Load(server.url)))
    assert isinstance(failed, Failed) and "does not end" in str(failed.error)


@pytest.mark.parametrize("encoding", ["br", "gzip"])
async def test_what_cannot_be_unpacked_makes_no_sense(
    server: ModelServer, engine: RemoteEngine, encoding: str
) -> None:
    server.answers.append(Answer(said("x"), headers={"Content-Encoding": encoding}))
    assert isinstance(await failure(engine), errors.ServerAnswerError)


async def test_an_endless_event_is_given_up(
    server: ModelServer, engine: RemoteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LONGEST", 1 << 20)
    server.answers.append(Answer([b"data: " + b"x" * 70_000], endless=True))
    assert isinstance(await failure(engine), errors.ServerAnswerError)
    assert await asyncio.to_thread(server.wait_for_leaving)


async def test_an_endless_reply_is_given_up_and_what_came_is_kept(
    server: ModelServer, engine: RemoteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_http, "MOST_REPLY_BYTES", 1 << 20)
    server.answers.append(Answer([stream(*[delta(content="word ")] * 100)], endless=True))
    seen = await collect(ask(engine, "hi"))
    assert isinstance(seen[-1], Failed) and "does not end" in str(seen[-1].error)
    assert text_of(seen).startswith("word word ")
    assert await asyncio.to_thread(server.wait_for_leaving)


async def test_an_endless_list_of_models_is_given_up(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_http, "MOST_BYTES", 1 << 20)
    server.pages["/v1/models"] = Answer(
        [b"[" + b" " * 70_000], kind="application/json", endless=True
    )
    engine = RemoteEngine()
    (failed,) = await collect(engine.load(Load(server.url)))
    assert isinstance(failed, Failed) and "does not end" in str(failed.error)
    await engine.close()


@pytest.mark.parametrize("kind", ["text/html", "application/octet-stream", ""])
async def test_another_kind_of_answer_is_no_reply(
    server: ModelServer, engine: RemoteEngine, kind: str
) -> None:
    server.answers.append(Answer([b"<html>Welcome</html>"], kind=kind))
    assert isinstance(await failure(engine), errors.ServerAnswerError)


async def test_a_server_that_does_not_stream_is_read_whole(
    server: ModelServer, engine: RemoteEngine
) -> None:
    whole = {
        "choices": [
            {"message": {"role": "assistant", "content": "At once."}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 4, "completion_tokens": 3},
    }
    server.answers.append(Answer([json.dumps(whole).encode()], kind="application/json"))
    seen = await collect(ask(engine, "hi"))
    assert text_of(seen) == "At once."
    assert isinstance(seen[-1], Finished) and seen[-1].figures.reply_tokens == 3


@pytest.mark.parametrize(
    "data",
    ["{", "[]", '"text"', "null", "[" * 100_000, '{"choices": 3}', '{"choices": [7]}', "NaN"],
)
async def test_chunks_that_make_no_sense_end_in_words(
    server: ModelServer, engine: RemoteEngine, data: str
) -> None:
    server.answers.append(Answer([stream(delta(content="So far"), data)]))
    seen = await collect(ask(engine, "hi"))
    assert text_of(seen) == "So far" and isinstance(seen[-1], Failed)


async def test_values_of_the_wrong_type_are_left_out(
    server: ModelServer, engine: RemoteEngine
) -> None:
    odd = [
        {
            "choices": [{"delta": {"content": 7, "reasoning": ["x"]}, "finish_reason": 5}],
            "usage": 3,
        },
        {"choices": [{"delta": None}], "usage": {"prompt_tokens": -4, "completion_tokens": "9"}},
        {"choices": [], "usage": {"prompt_tokens": 1 << 80, "prompt_tokens_details": []}},
    ]
    server.answers.append(Answer([stream(*odd, delta(content="ok"), finish(), DONE)]))
    seen = await collect(ask(engine, "hi"))
    assert text_of(seen) == "ok"
    assert isinstance(seen[-1], Finished)
    assert (seen[-1].figures.prompt_tokens, seen[-1].figures.reply_tokens) == (0, 1)


async def test_a_redirect_is_not_followed_and_the_key_stays(
    server: ModelServer, engine: RemoteEngine
) -> None:
    with model_server() as other:
        for status in (301, 302, 307, 308):
            server.answers.append(
                Answer([], status, headers={"Location": f"{other.url}/chat/completions"})
            )
            assert "sends on to another address" in str(await failure(engine))
        server.pages["/v1/models"] = Answer([], 302, headers={"Location": f"{other.url}/models"})
        (failed,) = await collect(engine.load(Load(server.url)))
        assert isinstance(failed, Failed)
        assert other.requests == []


CASES: list[tuple[Answer, type[KtchatError], str]] = [
    (refusal(401, "Invalid API key"), errors.ServerKeyError, "does not accept the key"),
    (refusal(403, "no"), errors.ServerKeyError, "refuses"),
    (
        refusal(404, "The model `tiny` does not exist."),
        errors.ServerModelError,
        "has no model tiny",
    ),
    (refusal(413, "Payload Too Large"), ContextError, "longer than the model's context"),
    (
        refusal(
            400, "This model's maximum context length is 4096 tokens. However, you requested 5000"
        ),
        ContextError,
        "maximum context length is 4096",
    ),
    (
        refusal(400, "the request exceeds the available context size, try increasing it"),
        ContextError,
        "longer than the model's context",
    ),
    (refusal(429, "Slow down", Retry_After="17"), errors.ServerBusyError, "Try again in 17 s"),
    (refusal(429, "Slow down"), errors.ServerBusyError, "Try again with Ctrl+R"),
    (refusal(500, "boom"), errors.ServerError, "has a failure (500)"),
    (refusal(503, "Loading model"), errors.ServerError, "Loading model"),
    (refusal(400, "messages must alternate"), errors.ServerError, "messages must alternate"),
    (Answer([b"<html>Bad Gateway</html>"], 502, "text/html"), errors.ServerError, "(502)"),
    (Answer([b""], 405, "text/plain"), errors.ServerError, "refuses (405)"),
    (
        Answer(bare=b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
        errors.ServerAnswerError,
        "does not answer as a server",
    ),
]


@pytest.mark.parametrize(
    ("answer", "kind", "words"), CASES, ids=[str(n) for n in range(len(CASES))]
)
async def test_refusals_become_words(
    server: ModelServer, engine: RemoteEngine, answer: Answer, kind: type[KtchatError], words: str
) -> None:
    server.answers.append(answer)
    error = await failure(engine)
    assert type(error) is kind and words in str(error)
    assert error.todo


async def test_an_error_in_the_middle_keeps_what_came(
    server: ModelServer, engine: RemoteEngine
) -> None:
    for failed in (
        stream({"error": {"message": "CUDA out of memory", "code": 500}}),
        stream({"object": "error", "message": "CUDA out of memory", "code": 500}),
        b'error: {"message": "CUDA out of memory"}\n\n',
    ):
        server.answers.append(Answer([stream(delta(content="So")), failed]))
        seen = await collect(ask(engine, "hi"))
        assert text_of(seen) == "So"
        assert isinstance(seen[-1], Failed) and "CUDA out of memory" in str(seen[-1].error)


async def test_a_key_that_the_server_echoes_is_in_no_error(
    server: ModelServer, engine: RemoteEngine
) -> None:
    server.answers.append(refusal(401, f"Incorrect API key provided: {KEY}"))
    assert "Incorrect API key provided: …" in str(await failure(engine))
    server.answers.append(Answer([stream({"error": {"message": f"key {KEY}"}})]))
    assert "key …" in str(await failure(engine))


async def test_hostile_words_of_a_server_are_bounded_and_one_line(
    server: ModelServer, engine: RemoteEngine
) -> None:
    server.answers.append(refusal(400, "\x1b]52;c;SGFja2Vk\x07\n" * 10_000))
    error = await failure(engine)
    assert len(str(error)) < 600 and str(error).isprintable()


async def test_nobody_listens(server: ModelServer, engine: RemoteEngine) -> None:
    server.close()
    error = await failure(engine)
    assert isinstance(error, errors.ServerUnreachableError) and "Nothing listens there" in str(
        error
    )


async def test_there_is_no_such_host() -> None:
    engine = RemoteEngine()
    (failed,) = await collect(engine.load(Load("http://no-such-host.invalid:9/v1")))
    assert isinstance(failed, Failed) and isinstance(failed.error, errors.ServerUnreachableError)
    await engine.close()


async def test_stopping_closes_the_stream_and_the_server_sees_it(
    server: ModelServer, engine: RemoteEngine
) -> None:
    server.answers.append(Answer(said("One", " two", " three"), hold=2))
    seen = await collect(
        ask(engine, "hi"),
        lambda event: engine.cancel() if isinstance(event, Text) and "two" in event.text else None,
    )
    assert text_of(seen) == "One two"
    assert isinstance(seen[-1], Finished) and seen[-1].reason == "cancelled"
    assert await asyncio.to_thread(server.wait_for_leaving)
    assert text_of(await collect(ask(engine, "again"))) == "Hello there."


async def test_leaving_the_iterator_closes_the_stream(
    server: ModelServer, engine: RemoteEngine
) -> None:
    server.answers.append(Answer(said("One", " two"), hold=1))
    stream = ask(engine, "hi")
    async for event in stream:
        assert event == Text("One")
        break
    await stream.aclose()  # type: ignore[attr-defined]
    assert await asyncio.to_thread(server.wait_for_leaving)
    assert text_of(await collect(ask(engine, "again"))) == "Hello there."


async def test_a_reply_can_be_stopped_before_its_first_byte(
    server: ModelServer, engine: RemoteEngine
) -> None:
    server.answers.append(Answer(said("late"), hold=0))
    request = asyncio.create_task(collect(ask(engine, "hi")))
    async with asyncio.timeout(PATIENCE):
        while not server.replies:
            await asyncio.sleep(0.01)
    engine.cancel()
    (last,) = await request
    assert isinstance(last, Finished) and last.reason == "cancelled"
    assert await asyncio.to_thread(server.wait_for_leaving)


async def test_a_slow_server_that_lives_is_waited_for(
    server: ModelServer, engine: RemoteEngine
) -> None:
    engine.quiet_seconds = 0.05
    server.answers.append(Answer(said("slow"), hold=0))
    request = asyncio.create_task(collect(ask(engine, "hi")))
    async with asyncio.timeout(PATIENCE):
        while sum(request.path == "/health" for request in server.requests) < 3:
            await asyncio.sleep(0.01)
    server.go_on()
    seen = await request
    assert text_of(seen) == "slow" and Quiet(True) not in seen


async def test_a_server_without_a_sign_of_life_is_said_and_may_come_back(
    server: ModelServer, engine: RemoteEngine
) -> None:
    engine.quiet_seconds = 0.05
    server.pages["/health"] = Answer(bare=b"")
    server.answers.append(Answer(said("slow"), hold=1))
    seen = await collect(
        ask(engine, "hi"), lambda event: server.go_on() if event == Quiet(True) else None
    )
    assert Quiet(True) in seen and Quiet(False) in seen[seen.index(Quiet(True)) :]
    assert text_of(seen) == "slow" and isinstance(seen[-1], Finished)


async def test_fields_that_are_refused_are_left_out_and_that_is_said_once(
    server: ModelServer, engine: RemoteEngine
) -> None:
    server.answers += [
        refusal(400, "Unrecognized request arguments supplied: min_p, top_k"),
        Answer(
            [
                json.dumps(
                    {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs"}]}
                ).encode()
            ],
            422,
            "application/json",
        ),
    ]
    seen = await collect(ask(engine, "hi", sampling=Sampling(seed=3)))
    notices = [event.text for event in seen if isinstance(event, Notice)]
    assert len(notices) == 2 and "top_k and min_p" in notices[0] and "stream_options" in notices[1]
    assert text_of(seen) == "Hello there."
    sent = server.replies[-1].body
    assert not {"top_k", "min_p", "stream_options"} & set(sent)
    assert sent["temperature"] == 0.7 and sent["seed"] == 3
    again = await collect(ask(engine, "again"))
    assert not any(isinstance(event, Notice) for event in again)
    assert len(server.replies) == 4


async def test_a_server_that_refuses_everything_is_not_asked_for_ever(
    server: ModelServer, engine: RemoteEngine
) -> None:
    names = [
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "max_tokens",
        "stream_options",
        "messages",
        "model",
    ]
    server.answers += [refusal(400, f"unknown field {name}") for name in names * 3]
    assert isinstance(await failure(engine), errors.ServerError)
    assert len(server.replies) <= len(names) + 1


async def test_one_request_at_a_time(server: ModelServer, engine: RemoteEngine) -> None:
    server.answers.append(Answer(said("first"), hold=0))
    first = asyncio.create_task(collect(ask(engine, "hi")))
    async with asyncio.timeout(PATIENCE):
        while not server.replies:
            await asyncio.sleep(0.01)
    (failed,) = await collect(ask(engine, "second"))
    assert isinstance(failed, Failed) and "busy" in str(failed.error)
    server.go_on()
    assert text_of(await first) == "first"


async def test_closing_ends_what_goes_on(server: ModelServer) -> None:
    engine = RemoteEngine()
    await collect(engine.load(Load(server.url)))
    server.answers.append(Answer(said("never"), hold=0))
    request = asyncio.create_task(collect(ask(engine, "hi")))
    async with asyncio.timeout(PATIENCE):
        while not server.replies:
            await asyncio.sleep(0.01)
    await engine.close()
    assert isinstance((await request)[-1], Finished)
    (failed,) = await collect(ask(engine, "after"))
    assert isinstance(failed, Failed) and "closed" in str(failed.error)


async def test_counting_while_the_connections_are_closed_counts_nothing(
    server: ModelServer, engine: RemoteEngine
) -> None:
    server.pages["/tokenize"] = Answer([b'{"count": ', b"3}"], kind="application/json", hold=1)
    counting = asyncio.create_task(engine.count([Message("user", "hi")]))
    async with asyncio.timeout(PATIENCE):
        while server.requests[-1].path != "/tokenize":
            await asyncio.sleep(0.01)
    http = engine._http
    await engine.close()
    assert await counting is None and await engine.count([Message("user", "hi")]) is None
    assert http is not None
    with pytest.raises(errors.ServerUnreachableError):
        await http.get("/v1/models")


async def test_the_key_goes_to_its_origin_alone(server: ModelServer, engine: RemoteEngine) -> None:
    await collect(ask(engine, "hi"))
    assert {request.headers.get("authorization") for request in server.requests} == {
        f"Bearer {KEY}"
    }
    assert all(KEY not in json.dumps(request.body) for request in server.requests)


@pytest.mark.parametrize("key", ["two words", "line\r\nX-Evil: 1", "ключ", "\x00", "x" * 5000])
async def test_a_key_that_cannot_be_sent_is_refused(server: ModelServer, key: str) -> None:
    engine = RemoteEngine(lambda address: Access(key))
    (failed,) = await collect(engine.load(Load(server.url)))
    assert isinstance(failed, Failed) and isinstance(failed.error, errors.ServerKeyError)
    assert key not in str(failed.error) and server.requests == []
    await engine.close()


async def test_a_key_does_not_go_in_clear_over_a_public_network(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = [(2, 1, 6, "", ("93.184.216.34", server.port))]
    monkeypatch.setattr(remote_http.socket, "getaddrinfo", lambda *_: found)
    engine = RemoteEngine(lambda address: Access(KEY))
    for host in ("gpu.example", "93.184.216.34", "[2606:2800::1]"):
        (failed,) = await collect(engine.load(Load(f"http://{host}:{server.port}/v1")))
        assert isinstance(failed, Failed) and isinstance(failed.error, errors.PlainKeyError)
    # A name of a private network is connected to by the number that was checked.
    found[:] = [(2, 1, 6, "", ("127.0.0.1", server.port))]
    monkeypatch.setattr(remote_http, "is_private", lambda host: host == "127.0.0.1")
    (loaded,) = await collect(engine.load(Load(f"http://gpu.example:{server.port}/v1")))
    assert engine.loaded == loaded
    assert server.requests[-1].headers["host"] == f"gpu.example:{server.port}"
    await engine.close()


async def test_a_conversation_as_it_is_sent(server: ModelServer, engine: RemoteEngine) -> None:
    said = [
        Message("system", "Be brief."),
        Message("user", "a"),
        Message("assistant", "b"),
        Message("user", "c"),
    ]
    await collect(engine.generate(said, Sampling(temperature=0.0, top_k=0), 50))
    sent = server.replies[-1].body
    assert sent["messages"] == [{"role": m.role, "content": m.content} for m in said]
    assert sent["model"] == "tiny" and sent["stream"] is True and sent["max_tokens"] == 50
    assert sent["temperature"] == 0.0 and sent["top_k"] == -1  # as vLLM has it: all of them
    assert sent["stream_options"] == {"include_usage": True}
