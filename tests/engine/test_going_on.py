"""A reply that goes on from its end: the very tokens that the cache holds, or what the format makes of the text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.generation.decoder import reply
from engine.generation.loading import load_model
from engine.protocol import (
    Begun,
    Event,
    Finished,
    Generate,
    Load,
    Message,
    Prefilled,
    Sampling,
    Text,
    Thinking,
)
from engine.runtimes.base import CancelFlag, Model
from tests.support.fake_runtime import FIRST_MARK, fake_model

GUIDE = Path(__file__).resolve().parents[2] / "assets" / "ktchat-guide.gguf"
OPEN, CLOSE = (chr(FIRST_MARK + n) for n in range(2))
THINK = ("<think>", "</think>")
QUESTION = "What is a mixture of experts and which keys are there?"


def said(
    model: Model, text: str, begun: Begun | None = None, max_tokens: int | None = None
) -> list[Event]:
    events: list[Event] = []
    messages = (Message("user", text),)
    request = Generate(1, messages, Sampling(temperature=0.0), max_tokens, begun=begun)
    reply(model, request, CancelFlag(), events.append)
    return events


def joined(events: list[Event], kind: type = Text) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def figures(events: list[Event]) -> tuple[int, int]:
    """Tokens of the prompt that were read, and sampled ones."""
    finished = events[-1]
    assert isinstance(finished, Finished)
    return (
        finished.figures.prompt_tokens - finished.figures.cached_tokens,
        finished.figures.reply_tokens,
    )


@pytest.fixture(scope="module")
def guide() -> Iterator[Model]:
    model = load_model(Load(str(GUIDE), context=1024), CancelFlag(), lambda event: None)
    yield model
    model.close()


def test_a_reply_that_was_cut_goes_on_as_if_it_had_not_been(guide: Model) -> None:
    whole = said(guide, QUESTION, max_tokens=60)
    said(guide, "Something else")  # so that the first one is not current any more
    first = joined(said(guide, QUESTION, max_tokens=25))
    events = said(guide, QUESTION, Begun(reply=first), max_tokens=35)
    assert first + joined(events) == joined(whole)
    read, sampled = figures(events)
    assert 25 + sampled == figures(whole)[1]
    assert read <= 3  # the last token was sampled, and not read yet


def test_what_was_changed_by_hand_is_read_from_the_change_on(guide: Model) -> None:
    first = joined(said(guide, QUESTION, max_tokens=30))
    changed = f"{first[:-20]} and that is all. One more thing:"
    events = said(guide, QUESTION, Begun(reply=changed), max_tokens=4)
    assert 3 < figures(events)[0] < 25


def test_a_fresh_model_reads_what_there_is(guide: Model) -> None:
    begun = Begun(reply="Hello, I am the guide, and my name is")
    events = said(guide, "A question that nobody asked before", begun, max_tokens=3)
    prefilled = next(event for event in events if isinstance(event, Prefilled))
    assert prefilled.tokens > prefilled.cached + 8
    assert joined(events)


def test_thinking_that_was_stopped_goes_on_as_thinking() -> None:
    model = fake_model(marks=THINK)
    events = said(model, f"say={OPEN}abcdef", max_tokens=4)
    assert joined(events, Thinking) == "abc"
    said(model, "q say=z", Begun(thinking="abc"), max_tokens=1)
    tail = "".join(map(chr, model.runtime.sequence))  # type: ignore[attr-defined]
    assert tail.endswith(f"\n{OPEN}\nabc")


def test_the_reply_follows_on_its_thinking() -> None:
    model = fake_model(marks=THINK)
    said(model, "q say=z", Begun("plan", "so far"), max_tokens=1)
    tail = "".join(map(chr, model.runtime.sequence))  # type: ignore[attr-defined]
    assert tail.endswith(f"\n{OPEN}\nplan\n{CLOSE}\n\nso far")


def test_gpt_oss_goes_on_in_the_channel_that_it_was_in() -> None:
    marks = ("<|channel|>", "<|message|>", "<|end|>", "<|start|>")
    channel, message, end, start = (chr(FIRST_MARK + n) for n in range(4))
    for begun, wanted in (
        (Begun("hm"), f"{channel}analysis{message}hm"),
        (Begun("", "so"), f"{channel}final{message}so"),
        (
            Begun("hm", "so"),
            f"{channel}analysis{message}hm{end}{start}assistant{channel}final{message}so",
        ),
    ):
        model = fake_model(marks=marks, tail="<|start|>assistant")
        said(model, "q say=z", begun, max_tokens=1)
        tail = "".join(map(chr, model.runtime.sequence))  # type: ignore[attr-defined]
        assert tail.endswith(f"<|start|>assistant{wanted}")


def test_the_tokens_of_the_cache_are_taken_as_they_are() -> None:
    model = fake_model(marks=THINK)
    first = said(model, f"say={OPEN}abc{CLOSE}yes,yes", max_tokens=10)
    assert (joined(first, Thinking), joined(first)) == ("abc", "yes,y")
    held = list(model.runtime.sequence)  # type: ignore[attr-defined]
    said(model, f"say={OPEN}abc{CLOSE}yes,yes", Begun("abc", "yes,y"), max_tokens=1)
    assert model.runtime.sequence[: len(held)] == held  # type: ignore[attr-defined]
    assert len(model.runtime.sequence) == len(held) + 1  # type: ignore[attr-defined]
