"""The decoder's loop, on a scripted model."""

from __future__ import annotations

import threading
import time

import pytest

from engine.errors import ContextError, EngineError, RequestError
from engine.generation.decoder import reply
from engine.protocol import (
    Event,
    Finished,
    Generate,
    Message,
    Notice,
    Prefilled,
    Progress,
    Sampling,
    Text,
    Thinking,
    WasThinking,
)
from engine.runtimes.base import CancelFlag, Model
from tests.support.clock import PATIENCE, assert_within, within
from tests.support.fake_runtime import FIRST_MARK, fake_model


def ask(model: Model, text: str, max_tokens: int | None = None, **sampling: float) -> list[Event]:
    events: list[Event] = []
    request = Generate(1, (Message("user", text),), Sampling(**sampling), max_tokens)
    reply(model, request, CancelFlag(), events.append)
    return events


def text_of(events: list[Event], kind: type = Text) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def test_a_reply_comes_in_order_and_ends_with_figures() -> None:
    events = ask(fake_model(), "say=hello")
    assert [type(event) for event in events] == [
        *(Progress, Progress, Prefilled),
        *(Text, Text, Text, Text, Text),
        Finished,
    ]
    finished = events[-1]
    assert text_of(events) == "hello"
    assert finished.reason == "stop"
    figures = finished.figures
    assert (figures.prompt_tokens, figures.reply_tokens, figures.cached_tokens) == (10, 5, 0)
    assert (figures.context_used, figures.context_size) == (15, 4096)
    assert 0 < figures.prefill_seconds <= figures.first_token_seconds


def test_the_prompt_is_prefilled_in_chunks_with_progress() -> None:
    model = fake_model(chunk=64)
    events = ask(model, "x" * 190 + " say=ok")
    progress = [(event.done, event.total) for event in events if isinstance(event, Progress)]
    assert progress == [(0, 198), (64, 198), (128, 198), (192, 198), (198, 198)]
    assert model.runtime.forwarded == [64, 64, 64, 6, 1, 1]


def test_a_second_turn_prefills_only_what_is_new() -> None:
    model = fake_model()
    ask(model, "x" * 100 + " say=ok")
    events = ask(model, "x" * 100 + " say=yes")
    (prefilled,) = [event for event in events if isinstance(event, Prefilled)]
    assert (prefilled.tokens, prefilled.cached) == (109, 105)
    assert model.runtime.forwarded == [4, 1, 1, 1]
    assert events[-1].figures.cached_tokens == 105


def test_the_same_prompt_again_still_forwards_its_last_token() -> None:
    model = fake_model()
    ask(model, "say=ok")
    assert text_of(ask(model, "say=ok")) == "ok"
    assert model.runtime.forwarded == [1, 1, 1]


def test_max_tokens_ends_with_length() -> None:
    events = ask(fake_model(), "say=ab count=0", max_tokens=5)
    assert text_of(events) == "ababa"
    assert events[-1].reason == "length"
    assert events[-1].figures.reply_tokens == 5


def test_a_reply_of_one_token() -> None:
    model = fake_model()
    events = ask(model, "say=ab", max_tokens=1)
    assert (text_of(events), events[-1].reason) == ("a", "length")
    assert model.runtime.forwarded == [7]
    assert events[-1].figures.decode_tok_s == 0


def test_a_full_context_ends_with_context() -> None:
    events = ask(fake_model(context=40), "say=ab count=0")
    assert events[-1].reason == "context"
    assert events[-1].figures.context_used == 40
    assert events[-1].figures.prompt_tokens + events[-1].figures.reply_tokens == 40
    events = ask(fake_model(context=40), "say=ab count=0", max_tokens=100)
    assert events[-1].reason == "context"


def test_a_prompt_that_fills_the_context_is_refused_before_anything_runs() -> None:
    model = fake_model(context=50)
    with pytest.raises(ContextError) as caught:
        ask(model, "x" * 59)
    assert "60 tokens" in str(caught.value)
    assert "holds 50" in str(caught.value)
    assert "at least 11 tokens" in str(caught.value)
    assert model.runtime.sequence == []
    with pytest.raises(ContextError, match="at least 1 tokens"):
        ask(model, "x" * 49)
    assert ask(model, "x" * 48)[-1].reason == "context"


@pytest.mark.parametrize("bad", [0, -1])
def test_requests_without_sense_are_refused(bad: int) -> None:
    with pytest.raises(RequestError):
        ask(fake_model(), "say=ok", max_tokens=bad)
    with pytest.raises(RequestError, match="no message"):
        reply(fake_model(), Generate(1, ()), CancelFlag(), print)


def test_a_reply_that_ends_at_once_is_empty() -> None:
    model = fake_model()
    model.tokenizer.is_end = lambda token: True
    events = ask(model, "say=x")
    assert isinstance(events[-2], Prefilled)
    assert events[-1].reason == "stop"
    assert events[-1].figures.reply_tokens == 0


def test_cancelled_while_decoding_keeps_what_came() -> None:
    model, flag, events = fake_model(), CancelFlag(), []

    def emit(event: Event) -> None:
        events.append(event)
        if text_of(events) == "abc":
            flag.set()

    reply(model, Generate(1, (Message("user", "say=abcd count=0"),)), flag, emit)
    assert text_of(events) == "abc"
    assert events[-1].reason == "cancelled"


def test_cancelled_while_prefilling_stops_after_a_chunk_and_keeps_the_prefix() -> None:
    model, flag, events = fake_model(), CancelFlag(), []

    def emit(event: Event) -> None:
        events.append(event)
        if isinstance(event, Progress) and event.done == 128:
            flag.set()

    request = Generate(1, (Message("user", "x" * 300 + " say=ok"),))
    reply(model, request, flag, emit)
    assert events[-1].reason == "cancelled"
    assert not any(isinstance(event, Prefilled) for event in events)
    assert events[-1].figures.prompt_tokens == 308
    flag.clear()
    events.clear()
    reply(model, request, flag, events.append)
    assert events[-1].figures.cached_tokens == 128


@pytest.mark.xdist_group("clock")
def test_cancel_from_another_thread_takes_effect_within_a_token() -> None:
    model, flag, events = fake_model(), CancelFlag(), []
    request = Generate(1, (Message("user", "say=ab count=0 delay=0.02"),))
    thread = threading.Thread(target=reply, args=(model, request, flag, events.append))
    thread.start()
    time.sleep(0.1)
    with within(0.5):
        flag.set()
        thread.join(PATIENCE)
    assert events[-1].reason == "cancelled"


@pytest.mark.xdist_group("clock")
def test_figures_are_wall_time() -> None:
    events = ask(fake_model(), "say=abcdefghijk delay=0.01 prefill=0.05")
    figures = events[-1].figures
    assert figures.prefill_seconds >= 0.05
    assert_within(figures.prefill_seconds, 0.5)
    assert figures.first_token_seconds >= figures.prefill_seconds
    assert figures.decode_seconds >= 0.1
    assert_within(figures.decode_seconds, 0.6)
    assert figures.decode_tok_s == pytest.approx(10 / figures.decode_seconds)


def test_an_error_of_the_runtime_reaches_the_caller() -> None:
    with pytest.raises(EngineError, match="The fake failed"):
        ask(fake_model(), "say=ok fail=prefill")
    with pytest.raises(EngineError, match="The fake failed"):
        ask(fake_model(), "say=ok fail=decode")


def test_a_character_that_is_never_completed_still_comes_out() -> None:
    events = ask(fake_model(), "say=ab\u20ac")
    assert text_of(events) == "ab\u20ac"
    assert events[-1].figures.reply_tokens == 3


def test_reasoning_is_its_own_event_and_counts_its_tokens() -> None:
    events = ask(fake_model(), "say=<think>\\nwell\\n</think>\\n\\nyes")
    assert text_of(events, Thinking) == "well"
    assert text_of(events) == "yes"
    figures = events[-1].figures
    assert figures.reply_tokens == 26
    assert figures.thinking_tokens == 7 + 6 + 8


def test_reasoning_that_the_template_opened() -> None:
    events = ask(fake_model(tail="say=so</think>yes\n<think>\n"), "q")
    assert text_of(events, Thinking) == "ok"
    assert text_of(events) == ""


def test_the_seed_is_reported() -> None:
    assert ask(fake_model(), "say=ok", seed=7)[-1].figures.seed == 7
    drawn = {ask(fake_model(), "say=ok")[-1].figures.seed for _ in range(3)}
    assert len(drawn) == 3


def test_a_template_that_fails_on_the_way_is_noticed_once() -> None:
    model = fake_model()
    render = model.template.render

    def fails(messages: object, think: object) -> object:
        model.template.notice = "The template failed"
        return render(messages)

    model.template.render = fails
    notices = [
        [event.text for event in ask(model, "say=ok") if isinstance(event, Notice)]
        for _ in range(2)
    ]
    assert notices == [["The template failed"], []]


def test_logits_beyond_the_vocabulary_are_never_chosen() -> None:
    model = fake_model()
    model.tokenizer.vocab_size = ord("n")
    # "o" is beyond it now: all that is left are equal, and the first of those ends the turn.
    assert text_of(ask(model, "say=o", temperature=0.0)) == ""


# Marks as tokens, and ending the thinking.

THINK = ("<think>", "</think>")
OPEN, CLOSE = chr(FIRST_MARK), chr(FIRST_MARK + 1)


def answered(model: Model, text: str, after: str, max_tokens: int | None = None) -> list[Event]:
    """The events when the thinking is to end as soon as `after` was thought."""
    events: list[Event] = []
    answer_now = CancelFlag()

    def emit(event: Event) -> None:
        events.append(event)
        if text_of(events, Thinking) == after:
            answer_now.set()

    request = Generate(1, (Message("user", text),), max_tokens=max_tokens)
    reply(model, request, CancelFlag(), emit, answer_now)
    return events


def test_a_mark_that_is_a_token_is_told_from_its_letters() -> None:
    model = fake_model(marks=THINK)
    events = ask(model, f"say={OPEN}a`</think>`b{CLOSE}c")
    assert (text_of(events, Thinking), text_of(events)) == ("a`</think>`b", "c")
    assert events[-1].figures.thinking_tokens == 14
    events = ask(model, f"say=plan{CLOSE}yes")
    assert [type(e) for e in events].count(WasThinking) == 1
    assert events[-1].figures.thinking_tokens == 5


def test_the_answer_follows_on_the_forced_mark() -> None:
    model = fake_model(marks=THINK)
    events = answered(model, f"say={OPEN}\\nabc count=0 then=yes", "abc")
    assert (text_of(events, Thinking), text_of(events)) == ("abc", "yes")
    finished = events[-1]
    assert finished.reason == "stop"
    figures = finished.figures
    forced = len("\n" + CLOSE + "\n\n")
    assert figures.thinking_tokens == len(OPEN + "\nabc") + 2
    assert figures.reply_tokens == len(OPEN + "\nabc") + forced + len("yes")
    assert figures.context_used == figures.prompt_tokens + figures.reply_tokens
    assert model.runtime.sequence[figures.prompt_tokens :] == [
        *map(ord, f"{OPEN}\nabc\n{CLOSE}\n\nyes")
    ]


def test_harmony_goes_on_in_the_final_channel() -> None:
    marks = ("<|channel|>", "<|message|>", "<|end|>", "<|start|>")
    channel, message, end, start = (chr(FIRST_MARK + n) for n in range(4))
    model = fake_model(marks=marks)
    model.template._tail = "<|start|>assistant"  # type: ignore[attr-defined]
    model.runtime.begin = _scripted(model, f"say={channel}analysis{message}hm count=0 then=yes")  # type: ignore[method-assign]
    events = answered(model, "q", "hm")
    assert (text_of(events, Thinking), text_of(events)) == ("hm", "yes")
    said = "".join(map(chr, model.runtime.sequence))
    assert said.endswith(f"hm{end}{start}assistant{channel}final{message}yes")


def _scripted(model: Model, words: str) -> object:
    """A `begin` that takes its script from here, for a template with an end of its own."""
    begin = model.runtime.begin

    def begun(tokens: list[int], marks: object = ()) -> int:
        shared = begin(tokens)
        model.runtime._script = dict(word.split("=", 1) for word in words.split())  # type: ignore[attr-defined]
        return shared

    return begun


def test_a_wish_without_thinking_changes_nothing() -> None:
    answer_now, events = CancelFlag(), []
    answer_now.set()
    request = Generate(1, (Message("user", "say=hello"),))
    reply(fake_model(marks=THINK), request, CancelFlag(), events.append, answer_now)
    assert text_of(events) == "hello"


def test_a_forced_end_respects_the_limit_of_tokens() -> None:
    events = answered(fake_model(marks=THINK), f"say={OPEN}ab count=0 then=yes", "ab", max_tokens=4)
    assert (events[-1].reason, events[-1].figures.reply_tokens) == ("length", 4)
    assert (text_of(events, Thinking), text_of(events)) == ("ab", "")


def test_the_choice_of_thinking_reaches_the_template() -> None:
    model, events = fake_model(), []
    request = Generate(1, (Message("user", "say=ok"),), think="low")
    reply(model, request, CancelFlag(), events.append)
    assert model.template.asked == ["low"]  # type: ignore[attr-defined]
