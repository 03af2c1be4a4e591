"""Text into the words within which byte pairs are merged, as llama.cpp cuts it (`unicode_regex_split` there).

llama.cpp's expressions see categories of Unicode 15.1 and not characters: every character above U+007F is one byte that
says its category. So do these, on the same categories, whatever Unicode this Python has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import AnyStr

import numpy as np
from numpy.typing import NDArray

CATEGORIES = Path(__file__).parent / "unicode-categories.txt"
"""A line for each run of code points: the first, and the first letter of its category; `-`: no characters."""

_OTHER, _N, _L, _P, _M, _S, _HAN, _HAN_OTHER = range(0xD0, 0xD8)
_BYTES = {"N": _N, "L": _L, "P": _P, "M": _M, "S": _S}
_ASCII = {
    "N": "0-9",
    "L": "A-Za-z",
    "P": r"!-#%-*,\-./:;?@\[\\\]_{}",
    "M": "",
    "S": r"$+<=>\^`|~",
}
_BLANK = 0x0B
_BLANKS = (0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000)
"""What is white space above U+007F."""
_HAN_RANGES = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2EBEF),
    (0x2F800, 0x2FA1F),
)

_SUFFIX = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"(?:{_SUFFIX})|{_LETTERS}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"(?:{_SUFFIX})|{_LETTERS}|\p{{N}}|{_REST}"
_QWEN35 = (
    rf"(?:{_SUFFIX})|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CASES = (
    r"[^\r\n\p{L}\p{N}]?(?:(?=\p{L})[^a-z])*(?:(?=\p{L})[^A-Z])+%s"
    r"|[^\r\n\p{L}\p{N}]?(?:(?=\p{L})[^a-z])+(?:(?=\p{L})[^A-Z])*%s"
    r"|%s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT4O = _CASES % (f"(?:{_SUFFIX})?", f"(?:{_SUFFIX})?", r"\p{N}{1,3}")
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    r"[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_KIMI = (
    r"\p{H}+|[^\r\n\p{L}\p{h}\p{N}]?\p{L}+"
    rf"(?:{_SUFFIX})?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{h}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CASED = (
    r"A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293"
    r"\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c"
    r"\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5"
    r"\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    r"\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59"
    r"\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc"
    r"\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107"
    r"\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139"
    r"\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee"
    r"\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e"
    r"\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a"
    r"\U00010400-\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2"
    r"\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943"
)
"""Letters that have cases, as DeepSeek's first tokenizer lists them."""
_CJK = r"[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
_BLOOM = " ?[^(\\s|.,!?…。，、।۔،)]+"
_LINES = ("[^\\n]+|[\\n]+",)

PATTERNS: dict[tuple[str, ...], tuple[str, ...]] = {
    (
        *("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
        *("dbrx", "smaug-bpe", "chatglm-bpe", "glm4", "glm5"),
    ): (_LLAMA3,),
    (
        *("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "stablelm2", "hunyuan", "solar-open"),
        *("megrez", "grok-2"),
    ): (_QWEN2,),
    ("qwen35",): (_QWEN35,),
    ("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"): (_GPT4O,),
    ("tekken",): (_CASES % ("", "", r"\p{N}"),),
    ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"): _DEEPSEEK3,
    ("deepseek-llm",): (
        "[\r\n]",
        rf"\s?[{_CASED}]+",
        r"\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
        "\\s+$",
        _CJK,
        r"\p{N}+",
    ),
    ("deepseek-coder",): ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK, r"\p{N}"),
    (
        "starcoder",
        "refact",
        "command-r",
        "smollm",
        "codeshell",
        "exaone",
        "minerva-7b",
        "mellum2",
    ): (
        r"\p{N}",
        _GPT2,
    ),
    (
        *("gpt-2", "phi-2", "gigachat", "a.x-4.0", "mellum", "exaone4", "mpt", "olmo", "jais"),
        *("trillion", "granite-docling"),
    ): (_GPT2,),
    ("falcon",): (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"),
    ("", "default"): (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    ("bailingmoe", "bailingmoe2", "llada-moe"): (
        rf"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|{_LETTERS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]"
        r"|\s+(?!\S)|\s+",
    ),
    ("seed-coder",): (
        rf"(?:{_SUFFIX})|{_LETTERS}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
    ("exaone-moe",): (
        rf"(?:{_SUFFIX})|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
    ),
    ("kimi-k2",): (_KIMI,),
    ("poro-chat", "bloom", "gpt3-finnish"): (_BLOOM,),
    ("viking",): (_BLOOM, r"\p{N}"),
    ("minicpm5",): (
        r"\p{N}{1,3}",
        rf"(?:{_SUFFIX})|{_LETTERS}|\p{{N}}+|{_REST}",
    ),
    ("laguna",): (*_LINES, _QWEN2),
    ("gemma4", "sarvam-moe"): _LINES,
}
"""Expressions by the names that files give their kinds of words; each cuts again what those before it left."""


@dataclass(frozen=True, slots=True)
class _Step:
    """An expression. What it finds within a word is a word, and so is what lies between."""

    categories: re.Pattern[bytes] | None
    """On the category of each character, or"""
    characters: re.Pattern[str] | None
    """on the characters themselves."""


class Words:
    """How the vocabularies of one kind cut text into words."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._steps = tuple(_step(pattern) for pattern in patterns)

    @classmethod
    def of(cls, kind: str) -> Words | None:
        """By the name that a file gives it (`tokenizer.ggml.pre`); None: not one of these."""
        return next((cls(found) for names, found in PATTERNS.items() if kind in names), None)

    def cut(self, text: str) -> NDArray[np.int32]:
        """How many bytes of UTF-8 each word of a text has. The text holds no surrogates."""
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        ends = [len(text)]
        categories = blanked = None
        for step in self._steps:
            if step.categories is not None:
                categories = _table()[codes].tobytes() if categories is None else categories
                ends = list(_cut(step.categories, categories, ends))
            elif step.characters is not None:
                blanked = _blanked(codes) if blanked is None else blanked
                ends = list(_cut(step.characters, blanked, ends))
        sizes = 1 + (codes > 0x7F).astype(np.int32) + (codes > 0x7FF) + (codes > 0xFFFF)
        bytes_to = np.concatenate(([0], np.cumsum(sizes)))
        return np.diff(bytes_to[[0, *ends]]).astype(np.int32)


def kinds() -> Iterator[str]:
    """The names of all of these."""
    for names in PATTERNS:
        yield from names


def _cut(pattern: re.Pattern[AnyStr], text: AnyStr, ends: Sequence[int]) -> Iterator[int]:
    """Where the words end when each word that ends there is cut again."""
    begin = 0
    for end in ends:
        for match in pattern.finditer(text, begin, end):
            if match.start() > begin:
                yield match.start()
            yield match.end()
            begin = match.end()
        if begin < end:
            yield end
        begin = end


def _step(pattern: str) -> _Step:
    if r"\p{" not in pattern:
        return _Step(None, re.compile(pattern.replace("$", r"\Z"), re.ASCII))
    return _Step(re.compile(_collapsed(pattern)), None)


def _collapsed(pattern: str) -> bytes:
    """The expression on categories: what they are below U+0080 and the byte that stands for them above."""
    classes = {name: bytes([byte]) + _ASCII[name].encode() for name, byte in _BYTES.items()}
    if r"\p{H}" in pattern:
        classes |= {"H": bytes([_HAN, _HAN_OTHER]), "h": bytes([_HAN])}
    else:
        classes["L"] += bytes([_HAN])
        # Outside of Kimi's kind no expression names the others of these ranges: they are other characters.
    out, inside, at = b"", False, 0
    while at < len(pattern):
        if pattern.startswith(r"\p{", at):
            found = classes[pattern[at + 3]]
            out += found if inside else b"[" + found + b"]"
            at += 5
            continue
        if pattern[at] == "\\":
            out += pattern[at : at + 2].encode()
            at += 2
            continue
        inside = pattern[at] == "[" or (inside and pattern[at] != "]")
        out += pattern[at].encode()
        at += 1
    return out


@cache
def _table() -> NDArray[np.uint8]:
    """What stands for each code point."""
    lines = [line.split() for line in CATEGORIES.read_text(encoding="ascii").splitlines()]
    starts = np.array([int(start, 16) for start, _ in lines] + [0x110000])
    table = np.repeat(
        np.array([_BYTES.get(kind, _OTHER) for _, kind in lines], np.uint8), np.diff(starts)
    )
    for first, last in _HAN_RANGES:
        han = table[first : last + 1]
        han[:] = np.where(han == _L, _HAN, np.where(han == _OTHER, _HAN_OTHER, han))
    table[list(_BLANKS)] = _BLANK
    table[:128] = np.arange(128)
    return table


def _blanked(codes: NDArray[np.uint32]) -> str:
    """The characters, with one blank for every white space above U+007F."""
    blank = np.isin(codes, _BLANKS)
    return np.where(blank, np.uint32(_BLANK), codes).tobytes().decode("utf-32-le")
