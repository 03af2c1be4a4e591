"""The built-in guide: its file, and what it answers to material that it was not trained on."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import pytest

from engine.client import Engine
from engine.gguf.file import GGUFFile
from engine.protocol import Event, Failed, Load, Message, Sampling, Text

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "assets" / "ktchat-guide.gguf"
SOURCES = ROOT / "packaging" / "guide"
sys.path.append(str(SOURCES))

import evaluate  # noqa: E402
from conversations import Author  # noqa: E402

pytestmark = pytest.mark.xdist_group("guide")  # which is started and asked once

GREEDY = Sampling(temperature=0.0)
HELD_OUT = evaluate.load(SOURCES / "heldout.json")


async def gather(events: AsyncGenerator[Event, None]) -> str:
    """The text of a reply, or of nothing for a load."""
    text = ""
    async for event in events:
        assert not isinstance(event, Failed), event.error
        text += event.text if isinstance(event, Text) else ""
    return text


@pytest.fixture(scope="module")
def reply() -> Iterator[Callable[[evaluate.Messages], str]]:
    """Greedy replies of the guide on our own engine."""
    with asyncio.Runner() as runner:
        engine = Engine()
        runner.run(gather(engine.load(Load(str(GUIDE), context=4096, runtime="native"))))

        def answer(messages: evaluate.Messages) -> str:
            said = [Message(message["role"], message["content"]) for message in messages]
            return runner.run(gather(engine.generate(said, GREEDY, evaluate.MAX_TOKENS)))

        yield answer
        runner.run(engine.close())


@pytest.fixture(scope="module")
def result(reply: Callable[[evaluate.Messages], str]) -> evaluate.Result:
    return evaluate.evaluate(HELD_OUT, reply)


def test_single_questions_get_the_right_content(result: evaluate.Result) -> None:
    assert result.questions.asked >= 120
    assert result.questions.share >= 0.85, result.questions.wrong


def test_facts_from_earlier_turns_are_recalled(result: evaluate.Result) -> None:
    assert result.recall.asked >= 80
    assert result.recall.share >= 0.90, result.recall.wrong


def test_questions_outside_point_to_the_model_manager(result: evaluate.Result) -> None:
    assert result.outside.asked >= 20
    assert result.outside.share >= 0.85, result.outside.wrong


def test_a_third_question_uses_what_the_first_said(
    reply: Callable[[evaluate.Messages], str],
) -> None:
    messages = [{"role": "user", "content": "Hello, my name is Perpetua."}]
    for question in ("How do I stop a reply?", "What is my name?"):
        messages.append({"role": "assistant", "content": reply(messages)})
        messages.append({"role": "user", "content": question})
    assert "Perpetua" in reply(messages)
    assert "Esc" in messages[3]["content"]


def test_the_file_is_a_small_mixture_of_experts() -> None:
    assert GUIDE.stat().st_size <= 16_000_000
    with GGUFFile.open(GUIDE) as file:
        assert file.string("general.architecture") == "qwen3moe"
        assert file.u32("qwen3moe.expert_count") >= 8
        assert file.string("general.license") == "Apache-2.0"
        assert "<|im_start|>" in file.string("tokenizer.chat_template")


def plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def test_held_out_questions_are_not_in_the_training_text() -> None:
    asked = {plain(item["ask"]) for item in HELD_OUT["questions"]}
    asked |= {
        plain(turn["ask"])
        for item in HELD_OUT["dialogues"]
        for turn in item["turns"]
        if "fact" in turn
    }
    author = Author(seed=99)
    for _ in range(8000):
        for message in author.conversation():
            assert plain(message["content"]) not in asked


def test_the_generator_is_deterministic() -> None:
    first, second = Author(seed=5), Author(seed=5)
    assert [first.conversation() for _ in range(20)] == [second.conversation() for _ in range(20)]
