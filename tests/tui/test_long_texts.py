"""Long texts: laid out as far as they are seen, equal to short ones, in their places while one reads."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from rich.cells import cell_len

from ktchat.store.conversation import Conversation, Turn, TurnState
from ktchat.store.store import Store
from ktchat.widgets.chat.cutting import LIMIT, SIZE
from ktchat.widgets.chat.long_text import FEW, KEPT, MOST
from ktchat.widgets.chat.markdown import Document
from ktchat.widgets.chat.plain import PlainText
from tests.tui.conftest import Start

ITEM = "- **item** number #{n:05d} with `code` and some more words that make it a line\n"
PROSE = "Paragraph #{n:05d} with **bold** words, which is as long as the paragraphs of replies are, or nearly so.\n\n"
ROW = "| cell #{n:05d} | 12.5 | some words in the third cell |\n"
CODE = "    value = compute(#{n:05d}, 'text')  # and a comment\n"
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
    words = "".join(plain(document, 90)).split()
    numbers = re.findall(r"#\d{5}", "".join(words))
    assert numbers == [f"#{n:05d}" for n in range(1500)]


@pytest.mark.parametrize("piece", [ITEM, PROSE, ROW, CODE])
def test_a_text_that_grows_is_cut_as_the_whole(piece: str) -> None:
    chance, source = random.Random(3), text_of(piece, 400)
    whole, grown, at = Document(source), Document(), 0
    while at < len(source):
        step = chance.randint(1, 900)
        grown.append(source[at : at + step])
        at += step
        if chance.random() < 0.1:
            grown.height(60)
    grown.finish()
    assert grown.pieces == whole.pieces > 2
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


@pytest.mark.parametrize(
    "text", ["word " * 60_000, "x" * 200_000, "中文" * 60_000, "👩‍👩‍👧" * 20_000]
)
def test_a_line_without_end_is_cut_between_characters(text: str) -> None:
    document = Document(text)
    rows = plain(document, 40)
    assert max(cell_len(row) for row in rows) <= 40
    assert "".join(rows).replace(" ", "") == text.replace(" ", "")
    assert not [row for row in rows if row[:1] == "\u200d"]


@pytest.mark.parametrize(
    "source",
    ["a\n" * 400_000, "```\n" * 30_000, "x" * 900_000, "> quoted words\n" * 30_000, "|" * 300_000],
)
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
    document = Document(text_of(PROSE, 6000))
    for row in range(0, document.height(60), 30):
        document.row(row)
    assert document.pieces > KEPT + 20
    assert document.laid_out <= KEPT


def test_who_reads_upwards_or_downwards_sees_every_row_in_its_order() -> None:
    source = text_of(PROSE, 300)
    expected = plain(Document(source))
    for down in (True, False):
        document = Document(source)
        at = 0 if down else document.height(60) - 20
        document.height(60)
        seen: list[str] = [document.row(row).content.plain for row in range(at, at + 20)]
        while at > 0 if not down else at + 20 < document.height(60):
            at += 1 if down else -1
            view = [document.row(row).content.plain for row in range(at, at + 20)]
            if document.unsettled is not None:
                at += document.settle()
                view = [document.row(row).content.plain for row in range(max(0, at), at + 20)]
            same = 19 if at >= 0 else len(view)
            assert (seen[-19:], seen[:same])[not down] == (view[:-1], view[-same:])[not down]
            if at >= 0:
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
    for _ in range(300):
        document.append(ITEM.format(n=1) * 9)
        laid.clear()
        document.height(60)
        costs.append(sum(laid))
    assert len(document.source) > 15 * LIMIT
    assert max(costs[-100:]) <= max(costs[:150]) + SIZE
    assert max(costs) <= (FEW + 1) * LIMIT


def test_plain_text_is_cut_too() -> None:
    text = "a line of thinking\n" * 9000
    thinking = PlainText(text)
    assert thinking.height(40) >= 1
    assert thinking.laid_out <= 2
    assert [line.content.plain for line in thinking.lines(40)] == text.splitlines()
    assert thinking.source == text


async def test_a_reply_of_megabytes_opens_at_its_end_and_is_read_from_its_beginning(
    start: Start, home: Path
) -> None:
    reply = text_of(PROSE, 20_000) + "the very end"
    conversation = Conversation(title="long", turns=[Turn("go", reply, state=TurnState.COMPLETE)])
    store = Store(home / "ktchat.db")
    store.save_conversation(conversation)
    store.close()
    run = await start(size=(80, 24))
    run.screen.sessions.open(conversation.id)
    await run.sees("the very end")
    view = run.screen.transcript.last_reply()
    assert view is not None
    assert view.document.pieces > 200
    assert view.document.laid_out < 10
    run.screen.transcript.scroll_home(animate=False)
    await run.sees("Paragraph #00000 with", "Paragraph #00001 with")
    assert view.document.laid_out < 20
    view.text_select_all()
    await run.until(lambda: view.text_selection)
    copied = view.get_selection(view.text_selection)  # type: ignore[arg-type]
    assert copied is not None
    assert "Paragraph #19999 " in copied[0]
    assert view.document.laid_out < 30
