"""Long texts: laid out as far as they are seen, equal to short ones, in their places while one reads."""

from __future__ import annotations

import random

import pytest
from rich.cells import cell_len

from ktchat.widgets.chat.cutting import LIMIT, SIZE
from ktchat.widgets.chat.long_text import FEW, KEPT, MOST
from ktchat.widgets.chat.markdown import Document
from ktchat.widgets.chat.plain import PlainText
from tests.tui.conftest import Start

ITEM = "- **item** number {n} with `code` and some more words that make it a line\n"
PROSE = "Paragraph {n} with **bold** words, which is as long as the paragraphs of replies are, or nearly so.\n\n"
ROW = "| cell {n} | 12.5 | some words in the third cell |\n"
CODE = "    value = compute({n}, 'text')  # and a comment\n"
HEADS = {ROW: "| a | bb | c |\n|---|--:|---|\n", CODE: "```python\n"}


def text_of(piece: str, number: int) -> str:
    """So many of a piece, each with its number."""
    return HEADS.get(piece, "") + "".join(piece.format(n=n) for n in range(number))


def plain(document: Document, width: int = 60) -> list[str]:
    return [line.content.plain for line in document.lines(width)]


@pytest.mark.parametrize("piece", [ITEM, PROSE, ROW, CODE])
def test_every_row_of_a_long_text_is_there_once_and_in_order(piece: str) -> None:
    document = Document(text_of(piece, 1500))
    assert document.pieces > 5
    rows = "\n".join(plain(document, 90))
    for n in range(1500):
        known = piece.format(n=n).strip("-|*`# \n").replace("*", "").replace("`", "").split("  ")[0]
        known = known.split("|")[0].strip()
        assert rows.count(known + " ") + rows.count(known + "\n") >= 1, known


@pytest.mark.parametrize("piece", [ITEM, PROSE, ROW, CODE])
def test_a_text_that_grows_is_cut_as_the_whole(piece: str) -> None:
    chance, source = random.Random(3), text_of(piece, 700)
    whole, grown, at = Document(source), Document(), 0
    while at < len(source):
        step = chance.randint(1, 900)
        grown.append(source[at : at + step])
        at += step
        if chance.random() < 0.1:
            grown.height(60)
    grown.finish()
    assert grown.pieces == whole.pieces > 3
    assert grown.source == source
    assert plain(grown) == plain(whole)
    assert grown.codes == whole.codes


def test_a_code_block_that_was_cut_is_copied_whole() -> None:
    body = "".join(CODE.format(n=n) for n in range(900))
    document = Document(f"before\n\n```python\n{body}```\n\nbetween\n\n```sh\nlast\n```\n")
    assert document.pieces > 5
    assert [(code.language, code.text) for code in document.codes] == [
        ("python", body.removesuffix("\n")),
        ("sh", "last"),
    ]
    assert document.last_code == document.codes[-1]
    heads = [row for row in plain(document, 90) if row.rstrip().endswith("copy")]
    assert len(heads) == 2  # a cut within is not to be seen


def test_a_table_that_was_cut_has_one_head_and_columns_in_line() -> None:
    rows = plain(Document(text_of(ROW, 1200)), 70)
    assert len([row for row in rows if row.startswith("a  ")]) == 1
    assert len({row.index("12.5") for row in rows if "12.5" in row}) == 1


@pytest.mark.parametrize("text", ["word " * 60_000, "x" * 200_000, "中文" * 60_000, "👩‍👩‍👧" * 20_000])
def test_a_line_without_end_is_cut_between_characters(text: str) -> None:
    document = Document(text)
    rows = plain(document, 40)
    assert max(cell_len(row) for row in rows) <= 40
    assert "".join(rows).replace(" ", "") == text.replace(" ", "")
    assert not [row for row in rows if row[:1] == "\u200d"]


@pytest.mark.parametrize("source", ["a\n" * 400_000, "```\n" * 30_000, "x" * 900_000, "> " * 200_000, "|" * 300_000])
def test_only_what_is_seen_is_laid_out(source: str) -> None:
    document = Document(source)
    height = document.height(60)
    assert height <= MOST + 3 * LIMIT + document.pieces
    for row in range(max(0, height - 40), height):
        document.row(row)
    assert document.laid_out <= 4
    for row in range(40):
        document.row(row)
    assert document.laid_out <= 8


def test_what_was_seen_gives_its_rows_back() -> None:
    document = Document(text_of(PROSE, 9000))
    for row in range(0, document.height(60), 20):
        document.row(row)
    assert document.pieces > 2 * KEPT
    assert document.laid_out <= KEPT


def test_who_reads_upwards_or_downwards_sees_every_row_in_its_order() -> None:
    source = text_of(PROSE, 900)
    expected = plain(Document(source))
    for down in (True, False):
        document = Document(source)
        at = 0 if down else document.height(60) - 20
        document.height(60)
        seen: list[str] = [document.row(row).content.plain for row in range(at, at + 20)]
        while 0 < at if not down else at + 20 < document.height(60):
            step = 1 if down else -1
            at += step
            view = [document.row(row).content.plain for row in range(at, at + 20)]
            at += document.settle()
            view = [document.row(row).content.plain for row in range(at, at + 20)]
            overlap = (seen[-19:], view[:-1]) if down else (seen[:19], view[1:])
            assert overlap[0] == overlap[1]
            seen = [*seen, view[-1]] if down else [view[0], *seen]
        assert seen == expected


def test_a_reply_that_grows_lays_out_its_end_alone() -> None:
    document, laid = Document(), []
    original = document.render

    def render(number: int, width: int) -> object:
        laid.append(len(document._pieces[number].text))
        return original(number, width)

    document.render = render  # type: ignore[method-assign, assignment]
    costs = []
    for n in range(6000):
        document.append(ITEM.format(n=n))
        laid.clear()
        document.height(60)
        costs.append(sum(laid))
    assert len(document.source) > 20 * LIMIT
    assert max(costs[-3000:]) <= max(costs[:1500]) + SIZE
    assert max(costs) <= (FEW + 1) * LIMIT


def test_plain_text_is_cut_too() -> None:
    text = "a line of thinking\n" * 9000
    thinking = PlainText(text)
    assert thinking.height(40) >= 1
    assert thinking.laid_out <= 2
    assert [line.content.plain for line in thinking.lines(40)] == text.splitlines()
    assert thinking.source == text


async def test_a_reply_of_megabytes_opens_at_its_end_and_is_read_from_its_beginning(start: Start) -> None:
    text = text_of(PROSE, 20_000) + "the very end"
    run = await start(text, size=(80, 24))
    run.screen.transcript.feed = lambda event: None  # type: ignore[method-assign]  # as if it had been opened
    await run.ask("go")
    again = await start(size=(80, 24))
    await again.sees("the very end")
    reply = again.screen.transcript.last_reply()
    assert reply is not None
    assert reply.document.pieces > 200
    assert reply.document.laid_out < 10
    again.screen.transcript.scroll_home(animate=False)
    await again.sees("Paragraph 0 with", "Paragraph 1 with")
    assert reply.document.laid_out < 20
    reply.text_select_all()
    copied = reply.get_selection(reply.text_selection)  # type: ignore[arg-type]
    assert copied is not None and "Paragraph 19999 " in copied[0]
    assert reply.document.laid_out < 30
