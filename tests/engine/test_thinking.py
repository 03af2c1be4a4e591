"""Reasoning and reply, told apart however the text is cut."""

from __future__ import annotations

import pytest

from engine.protocol import Text, Thinking
from engine.text.thinking import Splitter


def split(text: str, size: int = 1, prompt: str = "") -> tuple[str, str]:
    splitter = Splitter(prompt)
    events = []
    for start in range(0, len(text), size):
        events += splitter.feed(text[start : start + size])
    events += splitter.flush()
    kinds = [type(event) for event in events]
    assert kinds == sorted(kinds, key=[Thinking, Text].index)
    assert all(event.text for event in events)
    thinking = "".join(event.text for event in events if isinstance(event, Thinking))
    return thinking, "".join(event.text for event in events if isinstance(event, Text))


CASES = {
    "plain": ("hello", "", "hello"),
    "empty": ("", "", ""),
    "think": ("<think>a b</think>c", "a b", "c"),
    "trimmed": ("\n<think>\n a\n\nb \n</think>\n\n c \n", "a\n\nb", "c \n"),
    "empty think": ("<think>\n\n</think>\n\nhi", "", "hi"),
    "unclosed": ("<think>on and on ", "on and on", ""),
    "half closed": ("<think>x</thi", "x</thi", ""),
    "half opened": ("<thin", "", "<thin"),
    "other tag": ("<thin>x</think>", "", "<thin>x</think>"),
    "tag inside reply": ("use <think>x</think> so", "", "use <think>x</think> so"),
    "only once": ("<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
    "angle in thinking": ("<think>a < b </ c </think>d", "a < b </ c", "d"),
    "nested look": ("<think><<</</think>x", "<<</", "x"),
    "leading space": ("  \n hello", "", "  \n hello"),
    "only space": (" \n ", "", " \n "),
    "magistral": ("[THINK]a[/THINK]b", "a", "b"),
    "bracket": ("[T] a", "", "[T] a"),
    "gpt-oss": (
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>yes",
        "hm",
        "yes",
    ),
    "gpt-oss silent": ("<|channel|>final<|message|>yes", "", "yes"),
}


@pytest.mark.parametrize("case", CASES)
def test_split_is_the_same_however_the_text_is_cut(case: str) -> None:
    text, thinking, reply = CASES[case]
    for size in range(1, max(2, len(text) + 1)):
        assert split(text, size) == (thinking, reply), size


@pytest.mark.parametrize("prompt", ["<|assistant|><think>", "<think>\n", "x <think>\n\n"])
def test_a_prompt_may_open_the_reasoning(prompt: str) -> None:
    assert split("\nso\n</think>\n\nyes", prompt=prompt) == ("so", "yes")


@pytest.mark.parametrize("prompt", ["<think>\n\n</think>\n\n", "<think> no"])
def test_a_prompt_that_closed_it_does_not(prompt: str) -> None:
    assert split("so</think>yes", prompt=prompt) == ("", "so</think>yes")


def test_tokens_are_counted_once_each() -> None:
    splitter = Splitter()
    events = []
    for char in "<think>ab</think>cde":
        events += splitter.feed(char)
    events += splitter.flush()
    assert sum(event.tokens for event in events) == 20
    assert splitter.thinking_tokens == 17


def test_text_is_not_held_back_longer_than_needed() -> None:
    splitter = Splitter()
    assert [event.text for event in splitter.feed("Hello")] == ["Hello"]
    assert [event.text for event in splitter.feed("<")] == ["<"]
    thinking = Splitter("<think>")
    assert [event.text for event in thinking.feed("a b <")] == ["a b"]
    assert [event.text for event in thinking.feed("x")] == [" <x"]
