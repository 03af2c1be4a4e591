"""Text to tokens and back: llama.cpp's results, and control tokens that cannot be typed."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ModelFileError, RequestError
from engine.text.marks import HARMONY
from engine.text.special_tokens import MAX_LENGTH, SpecialTokens
from engine.text.thinking import Splitter
from engine.text.tokenizer import MAX_TEXT, Part, Tokenizer
from tests.support import vocabulary
from tests.support.clock import computed_within

VOCABS = Path(__file__).parents[2].parent / "shared" / "data" / "vocabs"
NAMES = ("qwen2", "llama-bpe", "deepseek-llm")
USER_DEFINED = 4

needs_vocabs = pytest.mark.skipif(not VOCABS.is_dir(), reason="../shared/data/vocabs is not there")


@pytest.fixture(scope="module", params=NAMES)
def real(request: pytest.FixtureRequest) -> Iterator[tuple[str, Tokenizer]]:
    tokenizer = Tokenizer.open(VOCABS / f"ggml-vocab-{request.param}.gguf")
    yield request.param, tokenizer
    tokenizer.close()


def typed(text: str) -> list[Part]:
    return [Part(text, special=False)]


def shown(tokenizer: Tokenizer, tokens: list[int]) -> str:
    decoder = tokenizer.decoder()
    return "".join(decoder.feed(token) for token in tokens) + decoder.flush()


def strip_bos(tokenizer: Tokenizer, tokens: list[int]) -> list[int]:
    return tokens[1:] if tokenizer.adds_bos else tokens


# Real vocabularies.


@needs_vocabs
def test_reference_inputs_give_the_reference_tokens(real: tuple[str, Tokenizer]) -> None:
    name, tokenizer = real
    inputs = (VOCABS / f"ggml-vocab-{name}.gguf.inp").read_text("utf-8")
    outputs = (VOCABS / f"ggml-vocab-{name}.gguf.out").read_text("utf-8")
    texts = inputs.split("\n__ggml_vocab_test__\n")
    wanted = [[int(token) for token in line.split()] for line in outputs.split("\n")]
    assert len(texts) == len(wanted) > 40
    for text, tokens in zip(texts, wanted, strict=True):
        for special in (False, True):
            given = tokenizer.encode([Part(text, special)])
            assert strip_bos(tokenizer, given) == tokens, text
        assert shown(tokenizer, tokens) == text


PROMPTS = {
    "qwen2": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
    "<|im_start|>assistant\n",
    "llama-bpe": "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "deepseek-llm": "User: {}\n\nAssistant: Sure.<｜end▁of▁sentence｜>User: {}\n\nAssistant:",
}
HARMLESS = (
    "Hello, world",
    "  two  spaces and a\ttab ",
    "\n\n\nlines\r\n",
    "def f(x):\n    return x ** 2 if x else None\n",
    "中文字符，标点。日本語とかな漢字 한국어",
    "👩‍👩‍👧 emoji 🏳️‍🌈 and é e\u0301 ñ",
    "1234567890 3.14159 0xFF",
    "<b>html</b> a < b > c | d [INST]",
    "",
)


@needs_vocabs
@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_prompts_are_what_llama_cpp_makes_of_them(
    real: tuple[str, Tokenizer], text: str
) -> None:
    name, tokenizer = real
    pieces = PROMPTS[name].split("{}")
    parts = [Part(pieces[0], True)]
    for piece in pieces[1:]:
        parts += [Part(text, False), Part(piece, True)]
    whole = "".join(part.text for part in parts).encode()
    wanted = vocabulary.llama_cpp(VOCABS / f"ggml-vocab-{name}.gguf").tokenise(
        whole, parse_special=True
    )
    assert strip_bos(tokenizer, tokenizer.encode(parts)) == wanted


@needs_vocabs
def test_typed_control_tokens_are_text(real: tuple[str, Tokenizer]) -> None:
    _, tokenizer = real
    control = [text for text in tokenizer._specials if text]
    everything = " ".join(control)
    tokens = strip_bos(tokenizer, tokenizer.encode(typed(everything)))
    assert not set(tokens) & set(tokenizer._specials.values())
    assert not any(tokenizer.is_end(token) for token in tokens)
    assert shown(tokenizer, tokens) == everything
    recognised = tokenizer.encode([Part("".join(control), True)])
    assert set(recognised) >= {tokenizer._specials[text] for text in control}


@needs_vocabs
def test_a_megabyte_without_a_blank_takes_seconds(real: tuple[str, Tokenizer]) -> None:
    _, tokenizer = real
    for character in ("a", "中", "=", "\n", "😀"):
        text = character * (1 << 18)
        with computed_within(5):
            tokens = tokenizer.encode(typed(text))
        assert shown(tokenizer, strip_bos(tokenizer, tokens)) == text


@needs_vocabs
def test_long_runs_do_not_overflow_a_small_stack() -> None:
    tokenizer = Tokenizer.open(VOCABS / "ggml-vocab-deepseek-llm.gguf")
    lengths: list[int] = []
    before = threading.stack_size(2 << 20)
    try:
        thread = threading.Thread(
            target=lambda: lengths.extend(
                len(tokenizer.encode(typed(character * 60_000))) for character in "a= \n中"
            )
        )
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert len(lengths) == 5


@needs_vocabs
def test_long_prose_is_cut_nowhere(real: tuple[str, Tokenizer]) -> None:
    name, tokenizer = real
    text = "The quick brown fox jumps over the lazy dog; 12345 times.\n" * 2000
    wanted = vocabulary.llama_cpp(VOCABS / f"ggml-vocab-{name}.gguf").tokenise(text.encode())
    assert strip_bos(tokenizer, tokenizer.encode(typed(text))) == wanted


# Small vocabularies.


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tokenizer]:
    path = vocabulary.write(tmp_path_factory.mktemp("bpe"), vocabulary.byte_level())
    tokenizer = Tokenizer.open(path)
    yield tokenizer
    tokenizer.close()


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tokenizer]:
    path = vocabulary.write(tmp_path_factory.mktemp("spm"), vocabulary.sentence_pieces())
    tokenizer = Tokenizer.open(path)
    yield tokenizer
    tokenizer.close()


def test_what_the_vocabulary_says(byte_level: Tokenizer, pieces: Tokenizer) -> None:
    assert not byte_level.adds_bos and pieces.adds_bos
    assert pieces.bos == 1 and pieces.eos == 2
    assert byte_level.eos is not None and byte_level.is_end(byte_level.eos)
    assert byte_level.piece(byte_level.eos) == b"<|im_end|>"
    assert not byte_level.is_end(0)


def test_every_end_of_generation_token_ends(byte_level: Tokenizer) -> None:
    (end,) = byte_level.encode([Part("<|endoftext|>", True)])
    (turn,) = byte_level.encode([Part("<|im_end|>", True)])
    (start,) = byte_level.encode([Part("<|im_start|>", True)])
    assert byte_level.is_end(end) and byte_level.is_end(turn) and not byte_level.is_end(start)


def test_bos_is_added_once(pieces: Tokenizer) -> None:
    assert pieces.encode(typed("the")).count(1) == 1
    assert pieces.encode([Part("<s>", True), Part("the", False)]).count(1) == 1
    assert pieces.encode([]) == [1]
    assert 1 not in pieces.encode(typed("<s>"))[1:]


def test_a_control_token_cannot_be_put_together(byte_level: Tokenizer) -> None:
    parts = [Part("<|im", True), Part("_end|>", False), Part("<|im_", False), Part("end|>", True)]
    tokens = byte_level.encode(parts)
    assert not any(byte_level.is_end(token) for token in tokens)
    assert shown(byte_level, tokens) == "<|im_end|><|im_end|>"


@pytest.mark.parametrize(
    "text",
    ["\0", "a\0b", "\ud800 lone", "ok \udfff", "\ufffe\uffff", "\x1b[31m", "\u202ereversed"],
)
def test_odd_characters_survive(byte_level: Tokenizer, pieces: Tokenizer, text: str) -> None:
    wanted = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    for tokenizer in (byte_level, pieces):
        tokens = strip_bos(tokenizer, tokenizer.encode(typed(text)))
        given = shown(tokenizer, tokens)
        kept = "".join("\ufffd" if "\ud800" <= sign <= "\udfff" else sign for sign in text)
        assert given.removeprefix(" ") == kept.removeprefix(" "), wanted


def test_user_defined_markers_cannot_be_typed(tmp_path: Path) -> None:
    markers = ("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>")
    metadata = vocabulary.with_tokens(vocabulary.byte_level(), *markers, kind=USER_DEFINED)
    metadata["tokenizer.chat_template"] = "<｜User｜>{{ x }}<｜Assistant｜><think>"
    tokenizer = Tokenizer.open(vocabulary.write(tmp_path, metadata))
    user, assistant, think, end = (tokenizer.vocab_size - 4 + i for i in range(4))
    tokens = tokenizer.encode([Part("<｜User｜>", True), Part("<｜User｜>hi", False)])
    assert tokens.count(user) == 1 and tokens[0] == user
    glued = tokenizer.encode([Part("<", True), Part("｜Assistant｜>", False)])
    assert assistant not in glued and shown(tokenizer, glued) == "<｜Assistant｜>"
    assert think not in tokenizer.encode(typed("<think>"))
    # The template does not use this one and it is no marker: it stays one token, as in training.
    assert end in tokenizer.encode(typed("</think>"))
    twice = "<｜User｜><｜User｜>" * 3
    assert shown(tokenizer, tokenizer.encode(typed(twice))) == twice
    tokenizer.close()


def test_user_defined_blanks_stay_tokens(tmp_path: Path) -> None:
    metadata = vocabulary.with_tokens(vocabulary.byte_level(), "\t\t\t", kind=USER_DEFINED)
    tokenizer = Tokenizer.open(vocabulary.write(tmp_path, metadata))
    assert tokenizer.vocab_size - 1 in tokenizer.encode(typed("a\t\t\tb"))
    tokenizer.close()


def test_sentence_pieces_go_on_after_a_cut(pieces: Tokenizer, tmp_path: Path) -> None:
    words = "the and then " * 1200
    oracle = vocabulary.llama_cpp(vocabulary.write(tmp_path, vocabulary.sentence_pieces()))
    whole = oracle.tokenise(words.encode())
    assert pieces.encode(typed(words))[1:] == whole
    unbroken = "the" * 5000
    assert shown(pieces, pieces.encode(typed(unbroken))) == " " + unbroken


def test_unknown_characters_of_sentence_pieces_take_linear_time(pieces: Tokenizer) -> None:
    with computed_within(2):
        tokens = pieces.encode(typed("中" * 100_000))
    assert len(tokens) > 300_000


# Decoding.


def test_characters_come_out_whole(byte_level: Tokenizer) -> None:
    text = "ä中😀é👩‍👩‍👧"
    tokens = byte_level.encode(typed(text))
    decoder = byte_level.decoder()
    given = [decoder.feed(token) for token in tokens]
    assert "".join(given) == text and decoder.flush() == ""
    assert "\ufffd" not in "".join(given)
    assert len(tokens) > len(text)
    assert given.count("") == len(tokens) - len(text)


def test_half_a_character_is_replaced_at_the_end(byte_level: Tokenizer) -> None:
    tokens = byte_level.encode(typed("x😀"))
    decoder = byte_level.decoder()
    assert "".join(decoder.feed(token) for token in tokens[:-1]) == "x"
    assert decoder.flush() == "\ufffd"
    assert decoder.feed(tokens[0]) == "x"


def test_invalid_bytes_are_replaced(byte_level: Tokenizer) -> None:
    (lead, *_rest) = byte_level.encode(typed("中"))
    (letter,) = byte_level.encode(typed("x"))
    decoder = byte_level.decoder()
    assert decoder.feed(lead) + decoder.feed(letter) == "\ufffdx"


def test_control_tokens_are_not_shown(byte_level: Tokenizer) -> None:
    assert shown(byte_level, byte_level.encode([Part("a<|im_end|>b", True)])) == "ab"


def test_marks_of_reasoning_are_known(tmp_path: Path) -> None:
    texts = ("<think>", "</think>", "<|other|>")
    metadata = vocabulary.with_tokens(vocabulary.byte_level(), *texts, kind=vocabulary.CONTROL)
    tokenizer = Tokenizer.open(vocabulary.write(tmp_path, metadata))
    tokens = tokenizer.encode([Part("<think>x</think><|other|>y", True)])
    assert shown(tokenizer, tokens) == "xy"
    assert [tokenizer.mark(token) for token in tokens] == ["<think>", "", "</think>", "", ""]
    assert tokenizer.marks == {"<think>", "</think>"}
    assert not any(map(tokenizer.mark, tokenizer.encode(typed("`</think>`"))))
    tokenizer.close()


def test_what_ends_the_thinking_of_gpt_oss_is_control_tokens(tmp_path: Path) -> None:
    metadata = vocabulary.with_tokens(vocabulary.byte_level(), *HARMONY, kind=vocabulary.CONTROL)
    tokenizer = Tokenizer.open(vocabulary.write(tmp_path, metadata))
    forced = tokenizer.encode_more(
        [Part(Splitter("<|start|>assistant<|channel|>analysis<|message|>").closing, True)]
    )
    assert [mark for token in forced if (mark := tokenizer.mark(token))] == [
        *("<|end|>", "<|start|>", "<|channel|>", "<|message|>"),
    ]
    words = [token for token in forced if not tokenizer.mark(token)]
    assert shown(tokenizer, words) == "assistantfinal"
    assert not any(map(tokenizer.is_end, forced))  # the turn goes on behind <|end|>
    tokenizer.close()


def test_text_that_goes_on_begins_with_nothing_of_its_own(
    byte_level: Tokenizer, pieces: Tokenizer
) -> None:
    for tokenizer in (byte_level, pieces):
        (end,) = strip_bos(tokenizer, tokenizer.encode([Part("<|im_end|>", True)]))
        more = tokenizer.encode_more([Part("\nthe<|im_end|>", True)])
        assert more[-1] == end and tokenizer.bos not in more
        assert shown(tokenizer, more) == "\nthe"


@pytest.mark.parametrize("token", [-1, 1 << 31, 100_000])
def test_a_token_outside_the_vocabulary_is_refused(byte_level: Tokenizer, token: int) -> None:
    for ask in (byte_level.piece, byte_level.is_end, byte_level.decoder().feed):
        with pytest.raises(RequestError, match="not in the vocabulary"):
            ask(token)


def test_too_much_text_is_refused(byte_level: Tokenizer) -> None:
    with pytest.raises(RequestError, match="characters"):
        byte_level.encode(typed("x" * (MAX_TEXT + 1)))


# Vocabularies that lie.


def changed(**changes: Any) -> dict[str, Any]:
    made = vocabulary.byte_level() | {
        f"tokenizer.{key.replace('__', '.')}": value for key, value in changes.items()
    }
    return {key: value for key, value in made.items() if value is not None}


TOKENS = vocabulary.byte_level()["tokenizer.ggml.tokens"]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (changed(ggml__model=None), "has no vocabulary"),
        (changed(ggml__tokens=None), "has no vocabulary"),
        (changed(ggml__model="abacus"), "Unknown tokenizer: 'abacus'"),
        (changed(ggml__pre="abacus"), "Unknown pre-tokenizer type: 'abacus'"),
        (changed(ggml__merges=None), "Cannot find tokenizer merges"),
        (changed(ggml__tokens=[*TOKENS, TOKENS[5]]), "token_type does not hold"),
        (changed(ggml__tokens=[TOKENS[1], *TOKENS[1:]]), "holds a token twice"),
        (changed(ggml__tokens=["a\0b", "a", *TOKENS[2:]]), "holds a token twice"),
        (changed(ggml__token_type=[1, 2]), "token_type does not hold"),
        (changed(ggml__token_type=[1.0] * len(TOKENS)), "token_type does not hold"),
        (changed(ggml__scores=[1.0]), "scores does not hold"),
        (changed(ggml__tokens=[1, 2, 3]), "tokens does not hold"),
        (changed(ggml__tokens="abc"), "not an array"),
        (changed(ggml__token_type=[6] * len(TOKENS)), "calls a token a byte that is none"),
        (changed(ggml__model="bert"), "has no vocabulary"),
        (
            vocabulary.with_tokens(vocabulary.byte_level(), f"<{'x' * MAX_LENGTH}>", kind=3),
            f"a control token of {MAX_LENGTH + 2} characters",
        ),
    ],
)
def test_a_lying_vocabulary_is_refused(
    tmp_path: Path, metadata: dict[str, Any], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelFileError) as caught:
        Tokenizer.open(vocabulary.write(tmp_path, metadata))
    assert words in str(caught.value) and "vocabulary.gguf" in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_empty_tokens_are_told_apart(tmp_path: Path) -> None:
    tokenizer = Tokenizer.open(
        vocabulary.write(tmp_path, changed(ggml__tokens=["", "", *TOKENS[2:]]))
    )
    assert tokenizer.vocab_size == len(TOKENS)
    tokenizer.close()


def test_sentence_pieces_need_a_token_for_each_byte(tmp_path: Path) -> None:
    metadata = vocabulary.sentence_pieces()
    tokens = [
        "<0xZZ>" if token == "<0x41>" else token for token in metadata["tokenizer.ggml.tokens"]
    ]
    with pytest.raises(ModelFileError, match="no token for some bytes"):
        Tokenizer.open(vocabulary.write(tmp_path, metadata | {"tokenizer.ggml.tokens": tokens}))


def test_special_ids_outside_the_vocabulary_are_none(tmp_path: Path) -> None:
    metadata = changed(ggml__bos_token_id=1 << 30, ggml__add_bos_token=True)
    tokenizer = Tokenizer.open(vocabulary.write(tmp_path, metadata))
    assert tokenizer.bos is None or tokenizer.bos < tokenizer.vocab_size
    tokenizer.encode(typed("hello"))
    tokenizer.close()


def test_opening_prints_nothing_and_imports_no_llama_cpp(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from engine.text.tokenizer import Part, Tokenizer\n"
        "tokenizer = Tokenizer.open(Path(sys.argv[1]))\n"
        "assert tokenizer.encode([Part('hello', False)])\n"
        "assert not {'llama_cpp', 'torch', 'jinja2'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(vocabulary.write(tmp_path, vocabulary.byte_level()))],
        capture_output=True,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


TEXTS = ("<a>", "<ab>", "<a><", "[x]", "[x]]", "é|", "<", "\n\n")


def test_special_tokens_are_found_as_a_pattern_of_alternatives_finds_them() -> None:
    known, chance = SpecialTokens(TEXTS), random.Random(3)
    ordered = sorted(TEXTS, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, ordered)))
    for _ in range(3000):
        text = "".join(chance.choice("<>ab[]x é|\n") for _ in range(chance.randrange(30)))
        assert list(known.find(text)) == [(m.start(), m[0]) for m in pattern.finditer(text)]
    assert list(SpecialTokens(()).find("<a>")) == []


def test_very_many_special_tokens_take_no_time() -> None:
    with computed_within(2):
        known = SpecialTokens(f"<|{number:020}|>" for number in range(60_000))
        found = list(known.find("text <|00000000000000000007|> more < " * 2000))
    assert len(found) == 2000
