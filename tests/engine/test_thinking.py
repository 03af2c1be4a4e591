"""Reasoning and reply, told apart however the text is cut."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from engine.protocol import Text, Thinking, WasThinking
from engine.text.marks import ATOMS, STYLES, Alphabet
from engine.text.thinking import Splitter

REPLIES = Path(__file__).parents[2].parent / "shared" / "data" / "cases" / "replies.json"

Pieces = Iterable[str]
"""What is fed one by one; a piece that is an atom of the vocabulary is a token."""

HARMONY = "<|start|>assistant"
START, CHANNEL, MESSAGE, END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"


def split(pieces: Pieces, prompt: str = "", tokens: Iterable[str] = ()) -> tuple[str, str]:
    """Reasoning and reply, as a reader keeps them."""
    known = frozenset(tokens)
    splitter = Splitter(prompt, known)
    thinking = reply = ""
    events = [e for piece in pieces for e in splitter.feed(piece, control=piece in known)]
    for event in [*events, *splitter.flush()]:
        match event:
            case Thinking(text):
                assert text
                thinking += text
            case Text(text):
                assert text
                reply += text
            case WasThinking():
                assert reply.strip()
                thinking, reply = "\n\n".join(filter(None, (thinking, reply.strip()))), ""
    return thinking, reply


def letters(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def tokenised(text: str, tokens: Iterable[str]) -> list[str]:
    """Text, its atoms whole and the rest in letters."""
    pattern = "|".join(re.escape(token) for token in tokens)
    return [
        piece
        for part in re.split(f"({pattern})", text)
        for piece in ([part] if part in tokens else list(part))
    ]


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
    "gemma 4": ("<|channel>thought\nplan\n<channel|>Hello", "plan", "Hello"),
    "seed": ("<seed:think>a</seed:think>b", "a", "b"),
    "minimax m3": ("<mm:think>a</mm:think>b", "a", "b"),
    "kimi k3": (
        "<|open|>think<|sep|>a<|close|>think<|sep|><|open|>response<|sep|>b"
        "<|close|>response<|sep|><|close|>message<|sep|>",
        "a",
        "b",
    ),
    "command": ("<|START_THINKING|>a<|END_THINKING|><|START_TEXT|>b<|END_TEXT|>", "a", "b"),
}


@pytest.mark.parametrize("case", CASES)
def test_split_is_the_same_however_the_text_is_cut(case: str) -> None:
    text, thinking, reply = CASES[case]
    for size in range(1, max(2, len(text) + 1)):
        assert split(letters(text, size)) == (thinking, reply), size


@pytest.mark.parametrize(
    "case", ["think", "trimmed", "magistral", "gemma 4", "minimax m3", "kimi k3", "command"]
)
def test_marks_are_the_same_as_tokens(case: str) -> None:
    text, thinking, reply = CASES[case]
    assert split(tokenised(text, ATOMS), tokens=ATOMS) == (thinking, reply)


@pytest.mark.parametrize("prompt", ["<|assistant|><think>", "<think>\n", "x <think>\n\n"])
def test_a_prompt_may_open_the_reasoning(prompt: str) -> None:
    assert split("\nso\n</think>\n\nyes", prompt) == ("so", "yes")


@pytest.mark.parametrize("prompt", ["<think>\n\n</think>\n\n", "<think> no"])
def test_a_prompt_that_closed_it_does_not(prompt: str) -> None:
    assert split("so</think>yes", prompt) == ("", "so</think>yes")


# Marks as tokens.

THINK = ("<think>", "</think>")


def test_letters_are_no_mark_where_the_vocabulary_has_it_as_a_token() -> None:
    said = [*"plan about `</think>` tags", "</think>", *"\n\nHello"]
    assert split(said, "<think>\n", THINK) == ("plan about `</think>` tags", "Hello")
    assert split("<think>x</think>y", "", THINK) == ("", "<think>x</think>y")


def test_a_closing_token_without_an_opening_one_makes_all_before_it_reasoning() -> None:
    assert split(["plan", " it", "</think>", "\n\n", "Hello"], "", THINK) == ("plan it", "Hello")
    assert split(["</think>", "\n\nHello"], "", THINK) == ("", "Hello")
    assert split(["\n", "</think>", "Hello"], "<think></think>", THINK) == ("", "Hello")
    splitter = Splitter("", THINK)
    events = [e for piece in ("a", "b") for e in splitter.feed(piece)]
    assert events == [Text("a"), Text("b")]  # nothing waits for a mark that may never come
    assert list(splitter.feed("</think>", control=True)) == [WasThinking()]
    assert splitter.thinking_tokens == 3


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        (["close it with `", "</think>", "`."], "close it with `</think>`."),
        (["use ", "<think>", " and ", "</think>", "."], "use <think> and </think>."),
    ],
)
def test_a_token_that_is_only_mentioned_is_text(said: list[str], reply: str) -> None:
    assert split(said, "", THINK) == ("", reply)
    assert split(["<think>", "x", "</think>", *said], "", THINK) == ("x", reply)


def test_a_second_closing_token_is_no_text() -> None:
    assert split(["<think>", "x", "</think>", "a", "</think>", "b"], "", THINK) == ("x", "ab")


def test_the_model_may_still_close_what_was_ended_for_it() -> None:
    splitter = Splitter("<think>\n", THINK)
    events = [*splitter.feed("hm")]
    closing = splitter.force()
    for piece in [*tokenised(closing, THINK), "so", "</think>", "\n\n", "yes"]:
        events += splitter.feed(piece, control=piece in THINK)
    assert [type(event) for event in events] == [Thinking, Text, WasThinking, Text]
    assert splitter.thinking_tokens == 1 + len(tokenised(closing, THINK)) + 2


def test_a_closing_token_after_a_prompt_without_thinking_moves_nothing() -> None:
    assert split(["a", "</think>", "b"], "<think>\n\n</think>\n\n", THINK) == ("", "ab")


def test_no_control_token_is_ever_on_the_screen() -> None:
    control = [atom for atom in sorted(ATOMS) if "|" in atom and atom != "<|START_THINKING|>"]
    thinking, reply = split(["a", *control, "b"], "", ATOMS)
    assert "<" not in thinking + reply and thinking + reply in ("ab", "a\n\nb")


# Harmony.

SAYS = {
    "both": (
        f"{CHANNEL}analysis{MESSAGE}hm{END}{START}assistant{CHANNEL}final{MESSAGE}yes",
        "hm",
        "yes",
    ),
    "no thinking": (f"{CHANNEL}final{MESSAGE}yes", "", "yes"),
    "constrained": (
        f'{CHANNEL}analysis{MESSAGE}plan{END}{START}assistant{CHANNEL}final <|constrain|>json{MESSAGE}{{"a":1}}',
        "plan",
        '{"a":1}',
    ),
    "two analyses": (
        f"{CHANNEL}analysis{MESSAGE}one{END}{START}assistant{CHANNEL}analysis{MESSAGE}two{END}"
        f"{START}assistant{CHANNEL}final{MESSAGE}yes",
        "one\n\ntwo",
        "yes",
    ),
    "commentary first": (
        f"{CHANNEL}commentary{MESSAGE}I look.{END}{START}assistant{CHANNEL}analysis{MESSAGE}hm{END}"
        f"{START}assistant{CHANNEL}final{MESSAGE}yes",
        "I look.\n\nhm",
        "yes",
    ),
    "a call": (
        f" to=functions.x{CHANNEL}commentary <|constrain|>json{MESSAGE}{{}}<|call|>",
        "{}",
        "",
    ),
    "a call behind thoughts": (
        f"{CHANNEL}analysis{MESSAGE}hm{END}{START}assistant to=functions.x{CHANNEL}commentary json"
        f"{MESSAGE}{{}}<|call|>",
        "hm\n\n{}",
        "",
    ),
    "two finals": (
        f"{CHANNEL}final{MESSAGE}first{END}{START}assistant{CHANNEL}analysis{MESSAGE}hm{END}"
        f"{START}assistant{CHANNEL}final{MESSAGE}second",
        "hm\n\nfirst",
        "second",
    ),
    "no end between": (f"{CHANNEL}analysis{MESSAGE}hm{CHANNEL}final{MESSAGE}yes", "hm", "yes"),
    "no channel": (f"{MESSAGE}yes", "", "yes"),
    "no header": ("yes, to be sure", "", "yes, to be sure"),
    "unfinished": (f"{CHANNEL}analysis{MESSAGE}on and ", "on and", ""),
    "ends in a header": (f"{CHANNEL}analysis{MESSAGE}hm{END}{START}assis", "hm", ""),
    "ends with return": (f"{CHANNEL}final{MESSAGE}yes<|return|>", "", "yes"),
    "an endless header": (f"{CHANNEL}final" + "x" * 300, "", "final" + "x" * 300),
}


@pytest.mark.parametrize("case", SAYS)
def test_every_header_of_harmony(case: str) -> None:
    said, thinking, reply = SAYS[case]
    for size in range(1, len(said) + 1):
        assert split(letters(said, size), HARMONY) == (thinking, reply), size
    shown = Alphabet(ATOMS)
    as_tokens = split(tokenised(said, ATOMS), f"x{END}{HARMONY}", ATOMS)
    assert as_tokens == (thinking, shown.plain(shown.coded(reply)))


def test_letters_of_harmony_are_text_where_there_are_tokens() -> None:
    said = [CHANNEL, "final", MESSAGE, *f"say {END} or {START}assistant"]
    assert split(said, HARMONY, ATOMS) == ("", f"say {END} or {START}assistant")


def test_a_template_may_write_a_part_of_the_header() -> None:
    assert split(
        f"hm{END}{START}assistant{CHANNEL}final{MESSAGE}y", f"{HARMONY}{CHANNEL}analysis{MESSAGE}"
    ) == ("hm", "y")
    assert split("y", f"{HARMONY}{CHANNEL}final{MESSAGE}") == ("", "y")


def test_tokens_of_harmony_are_counted() -> None:
    said = [
        CHANNEL,
        "analysis",
        MESSAGE,
        "h",
        "m",
        END,
        START,
        "assistant",
        CHANNEL,
        "final",
        MESSAGE,
    ]
    splitter = Splitter(HARMONY, ATOMS)
    events = [
        e for piece in [*said, "y", "es"] for e in splitter.feed(piece, control=piece in ATOMS)
    ]
    assert splitter.thinking_tokens == len(said)
    assert sum(event.tokens for event in events) == len(said) + 2
    silent = Splitter(HARMONY, ATOMS)
    for piece in (CHANNEL, "final", MESSAGE, "y"):
        list(silent.feed(piece, control=piece in ATOMS))
    assert silent.thinking_tokens == 0


# However it is cut.


def random_pieces(text: str, atoms: list[str], draw: random.Random) -> Iterator[str]:
    """Text cut anywhere, but for the atoms."""
    for part in tokenised(text, atoms) if atoms else [text]:
        if part in atoms or len(part) < 2:
            yield part
            continue
        cuts = sorted(draw.sample(range(1, len(part)), draw.randint(0, min(6, len(part) - 1))))
        yield from (part[a:b] for a, b in zip([0, *cuts], [*cuts, len(part)], strict=True))


@pytest.mark.parametrize("seed", range(40))
def test_what_was_said_comes_out_once_whatever_it_was(seed: int) -> None:
    draw = random.Random(seed)
    words = [*sorted(ATOMS), "a ", "b\n", " ", "<", "</", "|>", "think", "final", "assistant", "`"]
    text = "".join(draw.choices(words, k=draw.randint(1, 30)))
    prompt = draw.choice(["", "<think>\n", HARMONY, "<|channel>thought\n<channel|>"])
    whole = split([text], prompt)
    for _ in range(5):
        assert split(random_pieces(text, [], draw), prompt) == whole
    said = "".join(whole)
    assert [c for c in said if c.isalpha()] == [c for c in said if c in text and c.isalpha()]
    as_tokens = split(tokenised(text, ATOMS), prompt, ATOMS)
    assert not any(
        0xD800 <= ord(char) <= 0xDFFF or char == "|"
        for char in "".join(as_tokens).replace("|>", "")
    )


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
    tokens = Splitter("<think>", THINK)
    assert [event.text for event in tokens.feed("a </think")] == ["a </think"]
    harmony = Splitter(f"{HARMONY}{CHANNEL}final{MESSAGE}", ATOMS)
    assert [event.text for event in harmony.feed("a <|")] == ["a <|"]


# Ending it early.


@pytest.mark.parametrize("tokens", [frozenset[str](), ATOMS], ids=["letters", "tokens"])
@pytest.mark.parametrize(
    "prompt", [*(style.opening for style in STYLES), f"{HARMONY}{CHANNEL}analysis{MESSAGE}"]
)
def test_the_closing_text_ends_the_reasoning(prompt: str, tokens: frozenset[str]) -> None:
    for end in ("", "\n"):
        splitter = Splitter(prompt + end, tokens)
        assert list(splitter.feed("hm")) == [Thinking("hm")]
        for piece in tokenised(splitter.closing, ATOMS):
            assert list(splitter.feed(piece, 0, piece in tokens)) == []
        assert splitter.closing == ""
        assert list(splitter.feed("yes")) == [Text("yes")]


def test_marks_stand_on_lines_of_their_own_where_the_model_s_do() -> None:
    assert Splitter("<think>\n").closing == "\n</think>\n\n"
    assert Splitter("<|assistant|><think>").closing == "</think>"
    splitter = Splitter("", THINK)
    assert splitter.closing == ""
    list(splitter.feed("<think>", control=True))
    list(splitter.feed("\nso"))
    assert splitter.closing == "\n</think>\n\n"
    list(splitter.feed("</think>", control=True))
    assert splitter.closing == ""


def test_harmony_is_ended_within_a_message_only() -> None:
    splitter = Splitter(HARMONY, ATOMS)
    closings = []
    for piece in (
        CHANNEL,
        "analysis",
        MESSAGE,
        "hm",
        END,
        START,
        "assistant",
        CHANNEL,
        "final",
        MESSAGE,
    ):
        list(splitter.feed(piece, control=piece in ATOMS))
        closings.append(bool(splitter.closing))
    assert closings == [False, False, True, True, False, False, False, False, False, False]


@pytest.mark.skipif(not REPLIES.is_file(), reason="../shared/data/cases is not there")
def test_cases_from_outside() -> None:
    for case in json.loads(REPLIES.read_text("utf-8")):
        pieces = case["reply"]
        if isinstance(pieces, str):
            result = split(letters(pieces, 3), case["prompt_end"])
            as_tokens = split(tokenised(pieces, ATOMS), case["prompt_end"], ATOMS)
            assert result == as_tokens == (case["thinking"], case["text"]), case["family"]
            continue
        said = [p["control"] if isinstance(p, dict) else p for p in pieces]
        tokens = {p["control"] for p in pieces if isinstance(p, dict)}
        assert split(said, case["prompt_end"], tokens) == (case["thinking"], case["text"])
