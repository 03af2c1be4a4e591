"""The runtime `remote`: which server answers, its models and context, reasoning, figures, counting, going on."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from engine.errors import RequestError, ThinkingError
from engine.protocol import (
    Begun,
    Counted,
    Event,
    Failed,
    Finished,
    Load,
    Loaded,
    Message,
    Notice,
    Sampling,
    Thinking,
    WasThinking,
)
from engine.remote import reply
from engine.remote.engine import Access, RemoteEngine
from engine.remote.errors import ServerAnswerError, ServerModelError
from tests.support.engines import ask, collect, text_of
from tests.support.model_server import (
    DONE,
    Answer,
    ModelServer,
    delta,
    events,
    finish,
    model_server,
    usage,
)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with model_server() as found:
        yield found


@pytest.fixture
async def engine() -> AsyncIterator[RemoteEngine]:
    engine = RemoteEngine()
    yield engine
    await engine.close()


async def loaded(engine: RemoteEngine, path: str, context: int | None = None) -> Loaded:
    last = (await collect(engine.load(Load(path, context=context))))[-1]
    assert isinstance(last, Loaded), last
    return last


async def answered(engine: RemoteEngine, server: ModelServer, *chunks: Any) -> list[Event]:
    """What becomes of a reply in these chunks."""
    server.answers.append(Answer([events(chunk) for chunk in chunks]))
    seen = await collect(ask(engine, "hi"))
    assert isinstance(seen[-1], Finished), seen[-1]
    return seen


def thinking_of(seen: list[Event]) -> str:
    return "".join(event.text for event in seen if isinstance(event, Thinking))


OLLAMA = {
    "/api/version": {"version": "0.30.1"},
    "/api/ps": {"models": [{"name": "qwen3:8b", "context_length": 8192}]},
    "/api/show": {"parameters": "temperature 0.6\nnum_ctx                        16384"},
}
CASES: list[tuple[str, dict[str, Any], dict[str, Any], int]] = [
    ("vLLM", {"owned_by": "vllm", "max_model_len": 40960}, {}, 40960),
    ("SGLang", {"owned_by": "sglang", "max_model_len": 32768}, {}, 32768),
    ("SGLang", {"owned_by": "sglang"}, {"/get_server_info": {"context_length": 8192}}, 8192),
    (
        "llama.cpp",
        {"owned_by": "llamacpp", "meta": {"n_ctx_train": 262144}},
        {"/props": {"default_generation_settings": {"n_ctx": 4096}}},
        4096,
    ),
    ("llama-cpp-python", {"owned_by": "me"}, {}, 0),
    ("server", {"owned_by": "someone", "context_length": 128000}, {}, 128000),
    ("server", {"context_window": "8192"}, {"/api/version": ["odd"]}, 0),
    ("server", {"max_model_len": 1 << 60, "n_ctx": True, "context_window": -1}, {}, 0),
]


@pytest.mark.parametrize(("kind", "fields", "pages", "context"), CASES)
async def test_what_answers_and_its_context(
    server: ModelServer,
    engine: RemoteEngine,
    kind: str,
    fields: dict[str, Any],
    pages: dict[str, Any],
    context: int,
) -> None:
    server.serves("Qwen/Qwen3-8B", **fields)
    server.pages.update(pages)
    model = await loaded(engine, server.url)
    assert (model.runtime, model.context, model.name) == (kind, context, "Qwen3-8B")
    assert model.path == f"{server.url}#Qwen/Qwen3-8B"
    assert model.origin == server.url.removesuffix("/v1")


@pytest.mark.parametrize(("name", "context"), [("qwen3:8b", 8192), ("other:1b", 16384)])
async def test_ollama_says_what_it_runs_a_model_with(
    server: ModelServer, engine: RemoteEngine, name: str, context: int
) -> None:
    server.serves(name, owned_by="library")
    server.pages.update(OLLAMA)
    model = await loaded(engine, server.url)
    assert (model.runtime, model.context) == ("Ollama", context)


async def test_ollama_s_context_is_learned_once_the_model_is_in_memory(
    server: ModelServer, engine: RemoteEngine
) -> None:
    server.serves("late:1b", owned_by="library")
    server.pages["/api/version"] = OLLAMA["/api/version"]
    assert (await loaded(engine, server.url)).context == 0
    server.pages["/api/ps"] = {"models": [{"name": "late:1b", "context_length": 4096}]}
    seen = await collect(ask(engine, "hi"))
    assert engine.loaded is not None and engine.loaded.context == 4096
    assert isinstance(seen[-1], Finished) and seen[-1].figures.context_size == 4096


async def test_a_context_that_the_server_does_not_say_is_the_person_s(server: ModelServer) -> None:
    server.serves("tiny", owned_by="me")
    engine = RemoteEngine(lambda address: Access(context=2048))
    (model,) = await collect(engine.load(Load(server.url, context=1024)))
    assert isinstance(model, Loaded) and model.context == 1024
    assert (await loaded(engine, server.url)).context == 2048
    server.serves("tiny", owned_by="vllm", max_model_len=512)
    assert (await loaded(engine, server.url, 1024)).context == 512  # the server knows
    await engine.close()
    engine = RemoteEngine()
    server.serves("tiny", owned_by="me")
    notice, model = await collect(engine.load(Load(server.url)))
    assert isinstance(notice, Notice) and isinstance(model, Loaded) and model.context == 0
    await engine.close()


async def test_which_model(server: ModelServer, engine: RemoteEngine) -> None:
    server.serves("a", "b:latest", "c")
    (failed,) = await collect(engine.load(Load(server.url)))
    assert isinstance(failed, Failed) and isinstance(failed.error, ServerModelError)
    assert "3 models" in str(failed.error) and "a, b:latest, c" in str(failed.error)
    assert (await loaded(engine, f"{server.url}#c")).name == "c"
    assert (await loaded(engine, f"{server.url}#b")).path.endswith("#b:latest")
    (failed,) = await collect(engine.load(Load(f"{server.url}#d")))
    assert isinstance(failed, Failed) and "has no model d" in str(failed.error)
    server.serves()
    assert (await loaded(engine, f"{server.url}#unlisted")).name == "unlisted"
    (failed,) = await collect(engine.load(Load(server.url)))
    assert isinstance(failed, Failed) and "lists no model" in str(failed.error)


async def test_names_that_cannot_be_shown_are_none(
    server: ModelServer, engine: RemoteEngine
) -> None:
    server.serves("\x1b[2Jevil", "x" * 500, "", " ", "good")
    assert (await loaded(engine, server.url)).name == "good"


@pytest.mark.parametrize(
    "page", [[], {"data": 3}, {}, "text", {"data": [1, "x", {"id": 5}]}, Answer([b"<html>"])]
)
async def test_what_is_no_server_of_models(
    server: ModelServer, engine: RemoteEngine, page: Any
) -> None:
    server.pages["/v1/models"] = page
    (failed,) = await collect(engine.load(Load(server.url)))
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, ServerAnswerError | ServerModelError) and failed.error.todo


async def test_a_path_below_something_else(server: ModelServer, engine: RemoteEngine) -> None:
    server.pages["/gateway/v1/models"] = server.pages.pop("/v1/models")
    base = server.url.replace("/v1", "/gateway/v1")
    await loaded(engine, base)
    assert text_of(await collect(ask(engine, "hi"))) == "Hello there."
    assert server.replies[0].path == "/gateway/v1/chat/completions"
    (failed,) = await collect(engine.load(Load(server.url)))
    assert isinstance(failed, Failed) and "ends with /v1" in str(failed.error)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
async def test_reasoning_with_a_field_of_its_own(
    server: ModelServer, engine: RemoteEngine, name: str
) -> None:
    await loaded(engine, server.url)
    seen = await answered(
        engine,
        server,
        delta(role="assistant", content=""),
        delta(**{name: "Let me"}),
        delta(**{name: " see", "content": None}),
        delta(content="<think> is a mark."),
        finish(),
        usage(12, 9, cached=8, thought=5),
        DONE,
    )
    assert thinking_of(seen) == "Let me see" and text_of(seen) == "<think> is a mark."
    figures = seen[-1].figures  # type: ignore[union-attr]
    assert (figures.prompt_tokens, figures.cached_tokens) == (12, 8)
    assert (figures.reply_tokens, figures.thinking_tokens) == (9, 5)
    assert (figures.context_used, figures.context_size) == (21, 4096)
    assert figures.first_token_seconds > 0 and figures.decode_seconds >= 0


@pytest.mark.parametrize(
    "chunks",
    [
        ("<think>", "Let me", " see", "</think>", "\n\n", "Yes."),
        ("<think>Let me see</think>\n\nYes.",),
        ("<th", "ink>Let me see</th", "ink>\n\nYes."),
        ("<think>\nLet me", " see\n</think>Yes."),
    ],
)
async def test_reasoning_between_marks_in_the_text(
    server: ModelServer, engine: RemoteEngine, chunks: tuple[str, ...]
) -> None:
    await loaded(engine, server.url)
    seen = await answered(
        engine, server, *(delta(content=c) for c in chunks), finish(), usage(5, 6), DONE
    )
    assert thinking_of(seen) == "Let me see" and text_of(seen) == "Yes."


async def test_reasoning_that_the_template_opened(
    server: ModelServer, engine: RemoteEngine
) -> None:
    await loaded(engine, server.url)
    words = ("Let me", " see", "</think>", "\n\n", "Yes.")
    seen = await answered(engine, server, *(delta(content=w) for w in words), finish(), DONE)
    at = seen.index(WasThinking())
    assert text_of(seen[:at]) == "Let me see" and text_of(seen[at:]) == "Yes."


async def test_a_mark_in_the_middle_of_a_chunk_is_text(
    server: ModelServer, engine: RemoteEngine
) -> None:
    await loaded(engine, server.url)
    words = ("It ends", " with the mark </think> as", " R1 does.")
    seen = await answered(engine, server, *(delta(content=w) for w in words), finish(), DONE)
    assert text_of(seen) == "".join(words) and WasThinking() not in seen


async def test_content_in_parts(server: ModelServer, engine: RemoteEngine) -> None:
    await loaded(engine, server.url)
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    seen = await answered(
        engine,
        server,
        delta(content=[thought]),
        delta(content=[{"type": "text", "text": "Yes"}, 5, {"type": "image"}]),
        finish(),
        DONE,
    )
    assert thinking_of(seen) == "Hm." and text_of(seen) == "Yes"


@pytest.mark.parametrize(
    ("finished", "limit", "tokens", "reason"),
    [
        ("stop", 50, 3, "stop"),
        ("length", 50, 50, "length"),
        ("length", 50, 20, "context"),
        ("length", 50, 0, "length"),
        ("length", None, 20, "context"),
        ("tool_calls", None, 3, "stop"),
        ("content_filter", None, 3, "stop"),
    ],
)
async def test_why_a_reply_ended(
    server: ModelServer,
    engine: RemoteEngine,
    finished: str,
    limit: int | None,
    tokens: int,
    reason: str,
) -> None:
    await loaded(engine, server.url)
    chunks = [delta(content="x"), finish(finished), *([usage(5, tokens)] if tokens else []), DONE]
    server.answers.append(Answer([events(*chunks)]))
    seen = await collect(ask(engine, "hi", max_tokens=limit))
    assert isinstance(seen[-1], Finished) and seen[-1].reason == reason
    assert any(isinstance(event, Notice) for event in seen) == (finished == "content_filter")


@pytest.mark.parametrize(("seconds", "speed"), [(0.5, 2.0), (0.001, 0.0)])
def test_what_comes_together_says_nothing_of_the_speed(
    seconds: float, speed: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = itertools.count(10.0, seconds)
    monkeypatch.setattr(reply.time, "perf_counter", lambda: next(now))
    reader = reply.ReplyReader(context=64, seed=1, max_tokens=None)
    for _ in range(6):
        list(reader.feed(json.dumps(delta(content="a"))))
    assert reader.figures().decode_tok_s == pytest.approx(speed)


async def test_without_usage_chunks_are_counted(server: ModelServer, engine: RemoteEngine) -> None:
    await loaded(engine, server.url)
    chunks = [delta(role="assistant"), *[delta(content="a")] * 3, finish(), DONE]
    seen = await answered(engine, server, *chunks)
    figures = seen[-1].figures  # type: ignore[union-attr]
    assert (figures.reply_tokens, figures.prompt_tokens, figures.context_used) == (3, 0, 0)


async def test_a_seed_is_drawn_sent_and_told(server: ModelServer, engine: RemoteEngine) -> None:
    await loaded(engine, server.url)
    seeds = set()
    for _ in range(3):
        seen = await collect(ask(engine, "hi"))
        assert isinstance(seen[-1], Finished)
        assert seen[-1].figures.seed == server.replies[-1].body["seed"]
        seeds.add(seen[-1].figures.seed)
    assert len(seeds) == 3


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("vllm", {"continue_final_message": True, "add_generation_prompt": False}),
        ("sglang", {"continue_final_message": True}),
        ("llamacpp", {}),
    ],
)
async def test_a_reply_goes_on(
    server: ModelServer, engine: RemoteEngine, kind: str, fields: dict[str, bool]
) -> None:
    server.serves("tiny", owned_by=kind)
    await loaded(engine, server.url)
    begun = Begun("thought", "Hello")
    await collect(ask(engine, "hi", begun=begun))
    sent = server.replies[-1].body
    assert sent["messages"][-1] == {"role": "assistant", "content": "Hello"}
    assert {
        name: value for name, value in sent.items() if "_message" in name or "_prompt" in name
    } == fields
    (failed,) = await collect(ask(engine, "hi", begun=Begun("thought", "")))
    assert isinstance(failed, Failed) and isinstance(failed.error, RequestError)


async def test_where_a_reply_cannot_go_on_that_is_said(
    server: ModelServer, engine: RemoteEngine
) -> None:
    server.serves("tiny", owned_by="me")
    await loaded(engine, server.url)
    (failed,) = await collect(ask(engine, "hi", begun=Begun("", "Hello")))
    assert isinstance(failed, Failed) and "cannot go on" in str(failed.error)
    assert server.replies == []


async def test_counting_by_vllm(server: ModelServer, engine: RemoteEngine) -> None:
    await loaded(engine, server.url)
    assert await engine.count([Message("user", "hi")]) is None  # it has no such page
    server.pages["/tokenize"] = {"count": 17, "max_model_len": 4096, "tokens": []}
    one, more = [Message("user", "hi")], [Message("system", "a"), Message("user", "b")]
    assert await engine.count(one) == Counted(0, 17, 0, (17,))
    assert await engine.count(more) == Counted(0, 17, 0, ())
    asked = [request.body for request in server.requests if request.path == "/tokenize"]
    assert asked[1]["messages"] == [{"role": "user", "content": "hi"}]
    assert asked[2] == {"model": "tiny", "prompt": "hi", "add_special_tokens": False}
    for odd in ({"count": "x"}, [], {"count": -1}):
        server.pages["/tokenize"] = odd
        assert await engine.count(more) is None


async def test_counting_by_llama_cpp(server: ModelServer, engine: RemoteEngine) -> None:
    server.serves("tiny", owned_by="llamacpp")
    await loaded(engine, server.url)
    server.pages["/apply-template"] = {"prompt": "<|user|>hi"}
    server.pages["/tokenize"] = {"tokens": [1, 2, 3]}
    assert await engine.count([Message("user", "hi")]) == Counted(0, 3, 0, (3,))
    asked = [request.body for request in server.requests if request.path == "/tokenize"]
    assert asked[0]["content"] == "<|user|>hi" and asked[0]["parse_special"] is True
    assert asked[1]["content"] == "hi" and asked[1]["parse_special"] is False
    server.pages["/apply-template"] = {"prompt": None}
    assert await engine.count([Message("user", "hi")]) is None


@pytest.mark.parametrize(
    ("template", "offered", "chosen", "sent"),
    [
        ("{% if enable_thinking %}", ("off", "on"), "off", {"enable_thinking": False}),
        ("{{ reasoning_effort }}", ("low", "medium", "high"), "low", {"reasoning_effort": "low"}),
    ],
)
async def test_thinking_is_chosen_where_the_template_is_shown(
    server: ModelServer,
    engine: RemoteEngine,
    template: str,
    offered: tuple[str, ...],
    chosen: Any,
    sent: dict[str, Any],
) -> None:
    server.serves("tiny", owned_by="llamacpp")
    server.pages["/props"] = {"chat_template": template}
    assert (await loaded(engine, server.url)).think == offered
    await collect(ask(engine, "hi", think=chosen))
    assert server.replies[-1].body["chat_template_kwargs"] == sent
    await collect(ask(engine, "hi"))
    assert "chat_template_kwargs" not in server.replies[-1].body
    server.pages["/props"] = {}
    await loaded(engine, server.url)
    (failed,) = await collect(ask(engine, "hi", think=chosen))
    assert isinstance(failed, Failed) and isinstance(failed.error, ThinkingError)


async def test_without_a_model_that_is_said(engine: RemoteEngine) -> None:
    (failed,) = await collect(ask(engine, "hi"))
    assert isinstance(failed, Failed) and "No model is loaded" in str(failed.error)
    assert await engine.count([Message("user", "hi")]) is None
    engine.cancel()
    engine.answer_now()


async def test_an_iterator_that_is_left_open_stops_nothing_later(
    server: ModelServer, engine: RemoteEngine
) -> None:
    load = engine.load(Load(server.url))
    assert isinstance(await anext(load), Loaded)
    reply = ask(engine, "hi")
    first = asyncio.ensure_future(anext(reply))
    await asyncio.sleep(0)  # the reply's task is there and has not run yet
    await load.aclose()  # type: ignore[attr-defined]
    assert text_of([await first, *await collect(reply)]) == "Hello there."


async def test_penalties_have_the_names_of_the_server(
    server: ModelServer, engine: RemoteEngine
) -> None:
    for owner, name in (("vllm", "repetition_penalty"), ("llamacpp", "repeat_penalty")):
        server.serves("tiny", owned_by=owner)
        await loaded(engine, server.url)
        await collect(ask(engine, "hi", sampling=Sampling(repeat_penalty=1.2)))
        assert server.replies[-1].body[name] == 1.2
        await collect(ask(engine, "hi"))
        assert "penalty" not in str(server.replies[-1].body)
