"""Columns by cells: as wide as the terminal's library says, never cut inside a character."""

from __future__ import annotations

import io
import random
import textwrap

import pytest
from rich.cells import cell_len

from engine.common.cells import cells, cut, ljust, rjust, shorten, wrap
from engine.plan import report
from engine.plan.memory_plan import DevicePlan, Segment
from ktchat.cli import output, sessions
from ktchat.store.records import SessionSummary

BLOCKS = {
    "Latin": (0x20, 0x7F),
    "Latin with accents": (0xC0, 0x180),
    "Cyrillic": (0x400, 0x482),
    "Chinese punctuation": (0x3001, 0x302A),
    "kana": (0x3041, 0x3097),
    "Chinese": (0x4E00, 0xA000),
    "Korean": (0xAC00, 0xD7A4),
    "full-width": (0xFF01, 0xFF61),
    "half-width": (0xFF61, 0xFFA0),
    "combining marks": (0x300, 0x370),
    "bars and boxes": (0x2500, 0x25A0),
}


@pytest.mark.parametrize("block", BLOCKS)
def test_a_character_takes_as_many_cells_as_rich_says(block: str) -> None:
    characters = map(chr, range(*BLOCKS[block]))
    assert [char for char in characters if cells(char) != cell_len(char)] == []


@pytest.mark.parametrize("text", ["", "model", "模型 model", "ｶﾀｶﾅ", "e\u0301te\u0301", "通义千问"])
def test_columns_are_filled_to_their_width(text: str) -> None:
    for filled in (ljust(text, 12), rjust(text, 12)):
        assert cell_len(filled) == 12
        assert filled.strip() == text
    assert ljust(text, 0) == rjust(text, 0) == text


@pytest.mark.parametrize("text", ["model", "模型 model", "e\u0301te\u0301", "通义千问"])
def test_a_cut_text_fits_and_loses_no_more_than_it_must(text: str) -> None:
    for width in range(cell_len(text) + 2):
        kept = cut(text, width)
        assert text.startswith(kept)
        assert cell_len(kept) <= width
        rest = text[len(kept) :]
        assert not rest or cell_len(kept + rest[0]) > width
        if width:
            short = shorten(text, width)
            assert cell_len(short) <= width
            assert (short == text) == (not rest)


@pytest.mark.parametrize(
    "model", ["Qwen3 30B", "通义千问 3", "一个名字很长的模型，比它的一列还要长得多"]
)
def test_the_session_list_keeps_its_columns(model: str) -> None:
    line = sessions._line(SessionSummary("0123456789abcdef", "标题 title", 0, 0, model, 3))
    before, _, _ = line.rpartition("标题 title")
    plain = sessions._line(SessionSummary("0123456789abcdef", "title", 0, 0, "model", 3))
    assert cell_len(before) == len(plain) - len("title")


def test_bars_of_a_plan_begin_in_one_column_and_end_within_the_width() -> None:
    parts = (Segment("权重", 8 << 30), Segment("KV cache", 1 << 30), Segment("工作区", 1 << 29))
    device = DevicePlan("显卡 GPU " * 9, "VRAM", 16 << 30, parts)
    title, *lines = report._device(device, 60)
    assert [cell_len(line) for line in (title, *lines) if cell_len(line) > 60] == []
    assert len({cell_len(line[: line.index(report.FULL)]) for line in lines}) == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_wrapped_text_stays_under_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "30")
    output.wrapped("one two three four five six seven", ljust("缺少", 10))
    lines = terminal.getvalue().splitlines()
    assert len(lines) > 1
    assert lines[0].startswith("缺少      one")
    assert all(line.startswith(" " * 10) and line[10] != " " for line in lines[1:])


def test_english_is_wrapped_as_the_standard_library_does() -> None:
    dice = random.Random(7)
    for _ in range(500):
        text = " ".join("a-b.c,"[: dice.randint(1, 6)] * dice.randint(1, 4) for _ in range(40))
        width = dice.randint(5, 60)
        kept = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        assert wrap(text, width) == kept
    assert wrap("", 10) == wrap("  ", 10) == []


def test_chinese_is_wrapped_between_characters_but_not_before_a_mark() -> None:
    text = (
        "显存不够：模型需要 24 GB，而空闲的只有 16 GB（另有 2 GB 保留）。请换一个更小的量化版本。"
    )
    for width in range(12, 70):
        lines = wrap(text, width)
        assert max(map(cell_len, lines)) <= width
        assert "".join(lines).replace(" ", "") == text.replace(" ", "")
        assert not any(line[0] in "：，）。" or line[-1] == "（" for line in lines)
