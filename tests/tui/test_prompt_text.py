"""The prompt's text: emoji as one, and rows that are where they should be, whatever was typed where."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from rich.cells import cell_len
from textual._wrap import compute_wrap_offsets

from ktchat.widgets import graphemes
from ktchat.widgets.chat import wrapping
from ktchat.widgets.chat.wrapping import PromptDocument, PromptWrapping, breaks
from tests.tui.conftest import Start

EMOJI = ["👩‍👩‍👧", "🇩🇪", "👍🏽", "1️⃣", "❤️", "e\u0301", "🏳️‍🌈", "👨🏽‍💻", "🧑🏻‍❤️‍💋‍🧑🏿"]


@pytest.mark.parametrize("emoji", EMOJI)
def test_a_sequence_is_one_cluster(emoji: str) -> None:
    text = f"a{emoji}{emoji}b"
    size = len(emoji)
    ends = [end for _, end, _ in graphemes.clusters(text)]
    assert ends == [1, 1 + size, 1 + 2 * size, 2 + 2 * size]
    assert sum(cells for _, _, cells in graphemes.clusters(text)) == cell_len(text)
    for at in range(1, 1 + size):
        assert graphemes.after(text, at) == 1 + size
        assert graphemes.before(text, at + 1) == 1


@pytest.mark.parametrize("emoji", EMOJI)
async def test_an_emoji_moves_and_deletes_as_one(start: Start, emoji: str) -> None:
    run = await start()
    prompt = run.screen.prompt
    prompt.put(f"a{emoji}b{emoji}")
    await run.press("left")
    assert prompt.cursor_location == (0, 2 + len(emoji))
    await run.press("left", "left")
    assert prompt.cursor_location == (0, 1)
    await run.press("right")
    assert prompt.cursor_location == (0, 1 + len(emoji))
    await run.press("backspace")
    assert prompt.text == f"ab{emoji}"
    await run.press("right", "delete")
    assert prompt.text == "ab"
    await run.press("ctrl+z")
    assert prompt.text == f"ab{emoji}"
    assert {cell_len(line) for line in run.lines()} == {100}


def test_words_break_where_textual_breaks_them() -> None:
    chance = random.Random(1)
    for _ in range(500):
        text = "".join(chance.choice("ab  cdefghijk") for _ in range(chance.randint(0, 200)))
        text = text.replace(" ", "x", chance.randint(0, 40))
        width = chance.randint(3, 40)
        assert list(breaks(text, 0, width)) == compute_wrap_offsets(text, width, 4)


@pytest.mark.parametrize("alphabet", ["ab  c", "中文x ，", "a👩‍👩‍👧 e\u0301🇩🇪", "x"])
def test_an_edit_breaks_rows_as_the_whole_is_broken(
    alphabet: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrapping, "AHEAD", 1 << 30)
    chance = random.Random(2)
    for _ in range(300):
        document = PromptDocument("".join(chance.choices(alphabet, k=chance.randint(0, 300))))
        rows = PromptWrapping(document, width := chance.randint(4, 30))
        for _ in range(6):
            line = document.lines[0]
            first = chance.randint(0, len(line))
            last = min(len(line), first + chance.choice([0, 0, 1, 1, 5, 40]))
            text = "".join(chance.choices(alphabet, k=chance.choice([0, 1, 1, 3, 30])))
            done = document.replace_range((0, first), (0, last), text)
            rows.wrap_range((0, first), (0, last), done.end_location)
            whole = list(breaks(document.lines[0], 0, width))
            assert rows.get_offsets(0) == whole
            assert rows.height == len(whole) + 1


def test_an_edit_in_a_word_without_end_breaks_some_rows_anew() -> None:
    document = PromptDocument("x" * 100_000)
    rows = PromptWrapping(document, 50)
    before = list(rows.get_offsets(0))
    for _ in range(120):
        done = document.replace_range((0, 10), (0, 10), "y")
        rows.wrap_range((0, 10), (0, 10), done.end_location)
    offsets = [0, *rows.get_offsets(0), len(document.lines[0])]
    assert all(0 < end - start <= 50 for start, end in pairwise(offsets))
    assert [offset - 120 for offset in offsets[-1000:-1]] == before[-999:]
