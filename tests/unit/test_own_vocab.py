"""Vocabularies without llama.cpp: whatever they say of a text or a token is what llama.cpp says."""

from __future__ import annotations

import random
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import ktchat
from engine.gguf.file import GGUFFile
from engine.text.own_vocab import OwnVocab, own_vocabulary
from engine.text.vocabulary import checked_names
from engine.text.words import CATEGORIES, PATTERNS, kinds
from tests.support import vocabulary
from tests.support.vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN

VOCABS = Path(__file__).parents[2].parent / "shared" / "data" / "vocabs"
GUIDE = Path(ktchat.__file__).parent / "assets" / "ktchat-guide.gguf"
KEY = "tokenizer.ggml."
USER_DEFINED = 4

CONTROLS = ("<|im_start|>", "<|im_end|>", "<|call|>", "<|return|>", "<|end|>", "<|channel|>")
CONTROLS += ("<|fim_prefix|>", "<unused1>")
DEFINED = ("<think>", "</think>", "\n\n\n", "\n\n")
FIRSTS = tuple(names[0] for names in PATTERNS)


def own(path: Path) -> OwnVocab | None:
    with GGUFFile.open(path) as file:
        return own_vocabulary(file, checked_names(file))


@cache
def learnt() -> tuple[list[str], list[str]]:
    """Tokens and merges of a real byte-level vocabulary, the guide's."""
    with GGUFFile.open(GUIDE) as file:
        tokens, merges = file.array(KEY + "tokens"), file.array(KEY + "merges")
        assert tokens is not None and merges is not None
        every = [name.decode() for name in tokens.raw()]
        pairs = [pair.decode() for pair in merges.raw()]
    return [name for name in every if not name.startswith("<|")], pairs


def byte_pairs(kind: str) -> dict[str, Any]:
    tokens, merges = learnt()
    every = [*tokens, *CONTROLS, *DEFINED]
    types = [NORMAL] * len(tokens) + [CONTROL] * len(CONTROLS) + [USER_DEFINED] * len(DEFINED)
    named = {KEY + "pre": kind} if kind else {}
    return named | {
        KEY + "model": "gpt2",
        KEY + "tokens": every,
        KEY + "token_type": types,
        KEY + "merges": merges,
        KEY + "eos_token_id": every.index("<|im_end|>"),
    }


def characters() -> tuple[list[str], list[int], list[str]]:
    """The same tokens as text with a sign for blanks, and byte tokens: names, types, merges."""
    byte_of = dict(zip(vocabulary.byte_characters(), range(256), strict=True))

    def plain(name: str) -> str:
        data = bytes(byte_of[sign] for sign in name)
        return data.decode("utf-8", "replace").replace(" ", "▁")

    tokens, merges = learnt()
    texts = [text for name in tokens if "\ufffd" not in (text := plain(name)) and "\0" not in text]
    pairs = [[plain(half) for half in merge.split(" ")] for merge in merges]
    known = set(texts)
    kept = [" ".join(pair) for pair in pairs if known >= {*pair} and "\n" not in "".join(pair)]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *texts]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(texts)]
    defined = [text for text in ("▁▁▁", "<table>", "\n\n\n") if text not in known]
    return [*names, *CONTROLS, *defined], types + [3] * len(CONTROLS) + [4] * len(defined), kept


def sentence_pieces(**more: Any) -> dict[str, Any]:
    names, types, _ = characters()
    return {
        KEY + "model": "llama",
        KEY + "tokens": names,
        KEY + "token_type": types,
        KEY + "scores": [-float(token // 3) for token in range(len(names))],  # some are equal
    } | {KEY + key: value for key, value in more.items()}


def character_pairs(model: str, kind: str) -> dict[str, Any]:
    names, types, merges = characters()
    keys = {"model": model, "pre": kind, "tokens": names, "token_type": types, "merges": merges}
    return {KEY + key: value for key, value in keys.items()}


def texts(count: int, names: list[bytes], seed: int) -> list[str]:
    """Scripts, blanks, controls, emoji, figures, pieces of the vocabulary and any code points, mixed."""
    at_random = random.Random(seed)

    def one_of(*ranges: tuple[int, int]) -> Callable[[], str]:
        return lambda: chr(at_random.randrange(*at_random.choice(ranges)))

    sources: list[Callable[[], str]] = [
        one_of((0x20, 0x7F)),
        one_of((0xA0, 0x250), (0x370, 0x530)),
        one_of((0x3040, 0x3100), (0x3400, 0xA000), (0xAC00, 0xD7A4), (0xF900, 0xFB00)),
        one_of((0x300, 0x370), (0x600, 0x700), (0x900, 0xE00), (0x1F300, 0x1FB00)),
        one_of((0, 0xD800), (0xE000, 0x110000)),
        lambda: at_random.choice(" \n\t\r  \u00a0\u3000\x85\x0b\x1c\u2028"),
        lambda: at_random.choice("0123456789²½٣Ⅷ"),
        lambda: at_random.choice(("'s", "'T", "'re", "'VE", "'ll", "'ſ", "!", "/", "$", "€", "(")),
        lambda: at_random.choice(names).decode("utf-8", "replace"),
    ]
    made = []
    for _ in range(count):
        mixed = at_random.sample(sources, at_random.randrange(1, 5))
        made.append("".join(at_random.choice(mixed)() for _ in range(at_random.randrange(1, 100))))
    return made


def assert_equal(path: Path, count: int, seed: int = 0) -> None:
    """Everything that both say of this file's vocabulary."""
    vocab, oracle = own(path), vocabulary.llama_cpp(path)
    assert vocab is not None
    for what in ("kind", "size", "bos", "eos", "adds_bos"):
        assert getattr(vocab, what) == getattr(oracle, what), what
    names = [oracle.piece(token, special=True) for token in range(oracle.size)]
    for token in range(0, vocab.size, 1 if vocab.size < 50_000 else 7):
        assert vocab.attributes(token) == oracle.attributes(token), names[token]
        assert vocab.is_end(token) == oracle.is_end(token), names[token]
        assert vocab.piece(token, special=True) == names[token]
        assert vocab.piece(token, special=False) == oracle.piece(token, special=False)
    for text in texts(count, names, seed):
        assert vocab.tokenise(text.encode()) == oracle.tokenise(text.encode()), text
    vocab.close()


@pytest.mark.parametrize("kind", FIRSTS)
def test_words_are_cut_as_llama_cpp_cuts_them(kind: str, tmp_path: Path) -> None:
    model = "gemma4" if kind == "gemma4" else "gpt2"
    metadata = character_pairs(model, kind) if kind == "gemma4" else byte_pairs(kind)
    assert_equal(vocabulary.write(tmp_path, metadata), 120)


@pytest.mark.parametrize("kind", sorted({*kinds()} - {*FIRSTS, "sarvam-moe"}))
def test_every_name_of_a_kind_means_the_same(kind: str, tmp_path: Path) -> None:
    assert_equal(vocabulary.write(tmp_path, byte_pairs(kind)), 15)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", FIRSTS)
def test_a_million_code_points_give_the_same_tokens(kind: str, tmp_path: Path) -> None:
    model = "gemma4" if kind == "gemma4" else "gpt2"
    metadata = character_pairs(model, kind) if kind == "gemma4" else byte_pairs(kind)
    assert_equal(vocabulary.write(tmp_path, metadata), 12_000, seed=1)


@pytest.mark.parametrize("prefix", [None, True, False])
def test_sentence_pieces_are_those_of_llama_cpp(prefix: bool | None, tmp_path: Path) -> None:
    more = {} if prefix is None else {"add_space_prefix": prefix}
    assert_equal(vocabulary.write(tmp_path, sentence_pieces(**more)), 300)


def test_pairs_of_characters_are_those_of_llama_cpp(tmp_path: Path) -> None:
    assert_equal(vocabulary.write(tmp_path, character_pairs("gpt2", "sarvam-moe")), 120)


@pytest.mark.skipif(not VOCABS.is_dir(), reason="../shared/data/vocabs is not there")
@pytest.mark.parametrize("name", ["qwen2", "llama-bpe", "deepseek-llm"])
def test_real_vocabularies_are_those_of_llama_cpp(name: str) -> None:
    assert_equal(VOCABS / f"ggml-vocab-{name}.gguf", 300)


@pytest.mark.parametrize("metadata", [vocabulary.byte_level(), vocabulary.sentence_pieces()])
def test_small_vocabularies_are_those_of_llama_cpp(
    metadata: dict[str, Any], tmp_path: Path
) -> None:
    assert_equal(vocabulary.write(tmp_path, metadata), 100)


KEYS: tuple[dict[str, Any], ...] = (
    {"bos_token_id": 5},
    {"bos_token_id": 10**6, "eos_token_id": 10**6},
    {"add_bos_token": True, "bos_token_id": 7},
    {"eot_token_id": 9, "eom_token_id": 10},
    {"fim_pad_token_id": 3, "fim_rep_token_id": 4, "fim_sep_token_id": 6},
    {"prefix_token_id": 3, "middle_token_id": 4},
)


@pytest.mark.parametrize("keys", KEYS, ids=lambda keys: next(iter(keys)))
@pytest.mark.parametrize("kind", ["qwen2", "llama-bpe", "glm4"])
def test_what_a_file_says_of_its_tokens_counts(
    keys: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    metadata = byte_pairs(kind) | {KEY + key: value for key, value in keys.items()}
    assert_equal(vocabulary.write(tmp_path, metadata), 3)


ENDS = ("<|eot_id|>", "<|eom_id|>", "[EOS]", "<turn|>", "<|tool_response>", "</s>", "[e~[")
ENDS += (
    "<|calls|>",
    "<|flush|>",
    "<｜end▁of▁sentence｜>",
    "<|file_sep|>",
    "<|repo_name|>",
    "<PAD>",
)


@pytest.mark.parametrize("kind", [NORMAL, CONTROL, USER_DEFINED, 5, 0])
def test_ends_are_found_by_their_texts(kind: int, tmp_path: Path) -> None:
    metadata = vocabulary.with_tokens(byte_pairs("qwen2"), *ENDS, kind=kind)
    assert_equal(vocabulary.write(tmp_path, metadata), 20)


def uncertain() -> dict[str, dict[str, Any]]:
    base = byte_pairs("qwen2")
    tokens = base[KEY + "tokens"]
    return {
        "a kind of words that nobody knows": base | {KEY + "pre": "of-tomorrow"},
        "a rule for one model": base | {"general.name": "Phi-3 mini"},
        "two tokens for one role": vocabulary.with_tokens(base, "<fim-prefix>", kind=CONTROL),
        "tokens that overlap": vocabulary.with_tokens(base, "[a]", "]b[", kind=USER_DEFINED),
        "a byte without a token": base | {KEY + "tokens": ["xyzzy", *tokens[1:]]},
        "a merge that gives no token": base | {KEY + "merges": ["q q", *base[KEY + "merges"]]},
        "no merges": {key: value for key, value in base.items() if "merges" not in key},
        "SentencePiece for T5": sentence_pieces(model="t5"),
    }


@pytest.mark.parametrize("why", uncertain())
def test_what_is_not_certain_is_llama_cpp_s(why: str, tmp_path: Path) -> None:
    assert own(vocabulary.write(tmp_path, uncertain()[why])) is None


def test_categories_are_those_of_unicode() -> None:
    lines = [line.split() for line in CATEGORIES.read_text().splitlines()]
    starts = [*(int(start, 16) for start, _ in lines), sys.maxunicode + 1]
    known = 0
    for (_, kind), begin, end in zip(lines, starts[:-1], starts[1:], strict=True):
        for code in range(begin, end):
            category = unicodedata.category(chr(code))
            if category != "Cn" and kind != "-":  # this Python's Unicode may be older, or younger
                assert category[0] == kind, hex(code)
                known += 1
    assert known > 280_000


def test_llama_cpp_is_not_loaded_for_the_guide() -> None:
    code = (
        "import sys; from pathlib import Path; from engine.text.tokenizer import Part, Tokenizer\n"
        "tokenizer = Tokenizer.open(Path(sys.argv[1]))\n"
        "print(len(tokenizer.encode([Part('Hello', False)])))\n"
        "print('libllama' in Path('/proc/self/maps').read_text())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(GUIDE)], capture_output=True, text=True, check=True
    )
    count, loaded = done.stdout.split()
    assert int(count) > 0 and loaded == "False"
