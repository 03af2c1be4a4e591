"""What reaches the terminal: no payload does, and honest text is left alone."""

from __future__ import annotations

import re

import pytest

from ktchat.common.text import MAX_MARKS, MAX_STRING, Sanitiser, one_line, sanitise
from tests.support.clock import computed_within

FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

PAYLOADS = {
    "colour": ("a\x1b[31mb\x1b[0mc", "abc"),
    "private mode": ("a\x1b[?1049hb", "ab"),
    "csi with intermediates": ("a\x1b[1 qb", "ab"),
    "c1 csi": ("a\x9b31mb", "ab"),
    "clipboard ended by bell": ("a\x1b]52;c;QUJD\x07b", "ab"),
    "clipboard ended by st": ("a\x1b]52;c;QUJD\x1b\\b", "ab"),
    "clipboard ended by c1 st": ("a\x9d52;c;QUJD\x9cb", "ab"),
    "title": ("a\x1b]0;owned\x07b", "ab"),
    "hyperlink": ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
    "dcs": ("a\x1bPq#0;2;0;0;0\x1b\\b", "ab"),
    "apc": ("a\x1b_Gf=100;AAAA\x1b\\b", "ab"),
    "pm": ("a\x1b^secret\x1b\\b", "ab"),
    "sos": ("a\x1bXsecret\x1b\\b", "ab"),
    "c1 strings": ("a\x90x\x9cb\x9ey\x9cc\x9fz\x9cd\x98w\x9ce", "abcde"),
    "reset": ("a\x1bcb", "ab"),
    "charset": ("a\x1b(0b", "ab"),
    "escape at the end": ("a\x1b", "a"),
    "two escapes": ("a\x1b\x1b[31mb", "ab"),
    "csi cut by an escape": ("a\x1b[3\x1b[31mb", "ab"),
    "csi cut by a letter that is not ascii": ("a\x1b[3éb", "aéb"),
    "string that ends with its line": ("a\x1b]0;title\nb", "a\nb"),
    "string that is cancelled": ("a\x1bPdata\x18b", "ab"),
    "backspaces": ("safe\x08\x08\x08\x08evil", "safeevil"),
    "bell and nul": ("a\x07\x00b", "ab"),
    "delete": ("a\x7fb", "ab"),
    "shift out": ("a\x0eb\x0fc", "abc"),
    "carriage return that overwrites": ("safe\revil", "safe\nevil"),
    "windows line ends": ("a\r\nb\r\n", "a\nb\n"),
    "several carriage returns": ("a\r\r\nb", "a\n\nb"),
    "form feed and vertical tab": ("a\x0bb\x0cc", "abc"),
    "next line": ("a\x85b", "ab"),
    "line separators": ("a\u2028b\u2029c", "a\nb\nc"),
    "bidi override": ("a\u202etxt.exe\u202cb", "atxt.exeb"),
    "bidi isolates": ("a\u2066b\u2067c\u2068d\u2069e", "abcde"),
    "lone surrogate": ("a\ud83db", "a\ufffdb"),
    "tags": ("🏴\U000e0067\U000e0062a\U000e0001\U000e0041b", "🏴ab"),
    "hidden text": (
        "a" + "\u200b\u200c\u2060" * 8 + "b\U000e0100\U000e0101\U000e0102",
        "a\u200bb\U000e0100\U000e0101",
    ),
    "nested string openers": ("a\x1b]0;x\x1b]52;c;QQ==\x07b", "ab"),
}

HONEST = {
    "tabs and newlines": "a\tb\nc\n\n",
    "accents as marks": "e\u0301a\u0308o\u0302\u0323",
    "vietnamese": "Tiê\u0301ng Viê\u0323t",
    "family emoji": "👨\u200d👩\u200d👧\u200d👦",
    "emoji with variation selector": "❤\ufe0f ☎\ufe0e",
    "heart on fire": "❤\ufe0f\u200d🔥",
    "keycap": "1\ufe0f\u20e3",
    "chinese": "混合专家模型，每个词元只激活少数专家。",
    "hebrew with points": "שָׁלוֹם עֲלֵיכֶם",
    "arabic": "السَّلَامُ عَلَيْكُمْ",
    "right-to-left marks": "a\u200fb\u200e",
    "thai": "ที่นี่มีน้ำ",
    "devanagari": "क्षत्रिय",
    "soft hyphen": "Donau\u00addampf",
    "box drawing": "╭─╮│▇░",
}


@pytest.mark.parametrize("name", PAYLOADS)
def test_payload_is_removed_wherever_it_is_cut(name: str) -> None:
    text, wanted = PAYLOADS[name]
    assert sanitise(text) == wanted
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            cleaner = Sanitiser()
            parts = (text[:first], text[first:second], text[second:])
            assert "".join(cleaner.feed(part) for part in parts) == wanted


@pytest.mark.parametrize("name", HONEST)
def test_honest_text_is_left_alone_wherever_it_is_cut(name: str) -> None:
    text = HONEST[name]
    assert sanitise(text) == text
    for cut in range(len(text) + 1):
        cleaner = Sanitiser()
        assert cleaner.feed(text[:cut]) + cleaner.feed(text[cut:]) == text


def test_every_control_character_is_removed() -> None:
    for code in [*range(0x20), *range(0x7F, 0xA0)]:
        if chr(code) not in "\t\n\r":
            assert not FORBIDDEN.search(sanitise(f"a{chr(code)}b"))


def test_no_two_characters_together_make_a_forbidden_one() -> None:
    alphabet = [
        "\x1b",
        "\x9b",
        "\x9d",
        "[",
        "]",
        "\\",
        "\x07",
        "\x9c",
        "\r",
        "\n",
        "m",
        "é",
        "\ud800",
    ]
    texts = [a + b + c + d for a in alphabet for b in alphabet for c in alphabet for d in alphabet]
    for text in texts:
        cleaner = Sanitiser()
        one_by_one = "".join(cleaner.feed(char) for char in text)
        assert one_by_one == sanitise(text)
        assert not FORBIDDEN.search(one_by_one)


def test_text_after_an_endless_string_comes_through() -> None:
    text = "\x1b]0;" + "x" * (MAX_STRING + 100)
    assert 90 <= len(sanitise(text)) <= 110


def test_runs_of_combining_marks_are_cut_wherever_they_are_split() -> None:
    text = "z" + "\u0301\u0489" * 50 + "a" + "\u0e47" * 30
    wanted = "z" + ("\u0301\u0489" * 50)[:MAX_MARKS] + "a" + "\u0e47" * MAX_MARKS
    assert sanitise(text) == wanted
    for cut in range(len(text) + 1):
        cleaner = Sanitiser()
        assert cleaner.feed(text[:cut]) + cleaner.feed(text[cut:]) == wanted
    cleaner = Sanitiser()
    assert "".join(cleaner.feed(char) for char in text) == wanted


def test_marks_do_not_run_on_over_removed_characters() -> None:
    text = "z" + "\u0301\x1b[0m\u0301\u202e" * 40
    assert sanitise(text) == "z" + "\u0301" * MAX_MARKS


def test_one_line_is_one_short_line() -> None:
    assert one_line("a\nb\t c\x1b[31m") == "a b c"
    assert one_line("word " * 100, 20) == "word word word word…"
    assert len(one_line("x" * 1000, 50)) == 50
    assert one_line("\x1b]0;x\x07") == ""


@pytest.mark.parametrize("piece", ["混合专家模型，", "👍 ", "क्षत्रिय ", "plain words\n"])
def test_a_long_text_is_cleaned_at_once(piece: str) -> None:
    text = piece * (300_000 // len(piece))
    with computed_within(1.0):
        assert sanitise(text) == text
