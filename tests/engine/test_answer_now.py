"""Thinking with a real model in a real child: chosen, ended, and what the file says of sampling."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.client import Engine
from engine.errors import ThinkingError
from engine.protocol import (
    Event,
    Failed,
    Finished,
    Load,
    Loaded,
    Message,
    PartialSampling,
    Sampling,
    Text,
    Thinking,
)
from tests.support import vocabulary
from tests.support.engines import collect, scripted
from tests.support.tiny import write_tiny_model

TEMPLATE = (
    "{%- for m in messages -%}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{%- endfor -%}{{ '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and not enable_thinking -%}{{ '<think>\n\n</think>\n\n' }}"
    "{%- else -%}{{ '<think>\n' }}{%- endif -%}"
)
CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    """A tiny model whose template opens the thinking."""
    tokens = vocabulary.byte_level(CONTROLS)
    tokens |= {"tokenizer.chat_template": TEMPLATE, "general.sampling.temp": 0.6}
    monkeypatch.setattr(vocabulary, "byte_level", lambda: tokens)
    path = tmp_path / "thinker.gguf"
    write_tiny_model(path, "qwen3moe", "qwen3moe", "F16", "F32", 0)
    engine = Engine()
    events = await collect(engine.load(Load(str(path), device="cpu")))
    assert isinstance(events[-1], Loaded), events[-1]
    yield engine
    await engine.close()


async def test_a_real_model_is_told_whether_to_think_and_when_to_answer(engine: Engine) -> None:
    assert engine.loaded is not None
    assert (engine.loaded.think, engine.loaded.think_default) == (("off", "on"), "on")
    assert engine.loaded.sampling == PartialSampling(temperature=0.6)

    async def said(think: str | None, at_once: bool = False) -> list[Event]:
        def answer(event: Event) -> None:
            if at_once and isinstance(event, Thinking):
                engine.answer_now()

        greedy, messages = Sampling(temperature=0.0), [Message("user", "hello")]
        limit = 900 if at_once else 40  # so long that it may still be thinking when it is told
        reply = engine.generate(messages, greedy, limit, think)  # type: ignore[arg-type]
        return await collect(reply, answer)

    kinds = [type(event) for event in await said("on")]
    assert Thinking in kinds and Text not in kinds
    assert [type(event) for event in await said(None)].count(Thinking) > 0
    off = await said("off")
    assert Thinking not in map(type, off) and Text in map(type, off)
    for _ in range(50):
        events = await said("on", at_once=True)
        if Text in map(type, events):  # else it ended by itself before it was told
            break
    assert Thinking in map(type, events) and Text in map(type, events)
    finished = events[-1]
    assert isinstance(finished, Finished)
    figures = finished.figures
    assert 0 < figures.thinking_tokens < figures.reply_tokens <= 900
    assert figures.context_used == figures.prompt_tokens + figures.reply_tokens
    (*_, failed) = await said("low")
    assert isinstance(failed, Failed) and isinstance(failed.error, ThinkingError)
    assert "Choose one of: off, on" in str(failed.error)


async def test_the_wish_for_an_answer_reaches_the_child_and_no_other_reply() -> None:
    async with scripted() as engine:
        engine.answer_now()  # nothing goes on
        thinking = "say=<think>abc count=0 delay=0.005 then=yes"
        events: list[Event] = []

        def answer(event: Event) -> None:
            events.append(event)
            if isinstance(event, Thinking) and len(events) > 3:
                engine.answer_now()

        await collect(engine.generate([Message("user", thinking)], max_tokens=2000), answer)
        finished = events[-1]
        assert isinstance(finished, Finished) and finished.reason == "stop"
        assert "".join(e.text for e in events if isinstance(e, Text)) == "yes"
        after = await collect(engine.generate([Message("user", "say=<think>ab</think>ok")]))
        assert [e.text for e in after if isinstance(e, Thinking)] != []
