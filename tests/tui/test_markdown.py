"""Lines and Markdown, without a screen: breaking, copying, growing."""

from __future__ import annotations

import random
import time

import pytest
from rich.cells import cell_len
from textual.content import Content

from ktchat.widgets.chat.markdown import Document
from ktchat.widgets.lines import Line, copied, ends, fold, indent, styled, wrap
from tests.support.clock import assert_within, computed_within

SAMPLE = """# Title

A paragraph with **bold**, *em*, `code` and [link](https://example.com). More words to wrap it.
Second line of it, see https://a.b/c and config.py

1. First item that is long enough to wrap around at forty columns
   - nested one
   - nested two

     loose paragraph
2. Second 中文 item
10. Tenth

- a

- b

> quote with **bold**
> - list in a quote

```python
def f(x):
    return x  # comment
```

| a | bb | ccc |
|---|:-:|--:|
| 1 | two words | 3 |
| long long long long long long | x | 中文 |

---
<div>html</div>

    indented code

last [one][ref]

[ref]: https://example.org
"""


def plain(lines: list[Line]) -> list[str]:
    return [line.content.plain for line in lines]


def shown(source: str, width: int = 60) -> list[str]:
    return plain(Document(source).lines(width))


@pytest.mark.parametrize("width", [4, 7, 20, 61])
@pytest.mark.parametrize(
    "text",
    [
        "hello world this is a longexceedinglylongword and more",
        "你好，世界。这是一个很长的句子（包含括号），用来测试换行。",
        "mix 中文 and English words 👩‍👩‍👧 here 中文, ok e\u0301a\u0300",
        "a b",
        "",
    ],
)
def test_wrapped_text_fits_and_copies_as_it_was(text: str, width: int) -> None:
    rows = wrap(Content(text), width)
    assert all(cell_len(row.content.plain) <= width for row in rows)
    assert copied(rows, 0, 0, len(rows), 1 << 30) == text


def test_chinese_punctuation_does_not_begin_a_row() -> None:
    text = "这是一个句子，还有一个句子。" * 6
    for width in range(8, 30):
        assert not [row for row in plain(wrap(Content(text), width)) if row[0] in "，。"]


def test_code_is_folded_without_losing_a_character() -> None:
    code = "x = [" + ", ".join(map(str, range(60))) + "]"
    rows = fold(Content(code), 20)
    assert "".join(plain(rows)) == code
    assert max(len(row) for row in plain(rows)) == 20


def test_a_copy_leaves_decoration_out() -> None:
    rows = indent(wrap(Content("one two three"), 7), Content("• "))
    rule = Line(styled("────", ".dim"), gutter=4)
    assert plain(rows) == ["• one two", "  three"]
    assert copied([*rows, rule], 0, 0, 9, 99) == "one two three"


def test_the_two_ends_of_a_row_fill_it_exactly() -> None:
    row = ends(Content("left"), Content("right"), 20)
    assert row.plain == "left           right"
    assert ends(Content("a very long left side"), Content("right"), 16).plain == "a very lo… right"


@pytest.mark.parametrize("width", [8, 23, 60, 100])
def test_a_document_that_grows_in_pieces_equals_the_whole(width: int) -> None:
    chance = random.Random(width)
    whole = Document(SAMPLE)
    for _ in range(5):
        grown, at = Document(), 0
        while at < len(SAMPLE):
            step = chance.randint(1, 9)
            grown.append(SAMPLE[at : at + step])
            at += step
            if chance.random() < 0.5:
                grown.lines(width)
        grown.finish()
        assert grown.lines(width) == whole.lines(width)
        assert grown.codes == whole.codes


def test_a_document_laid_out_at_another_width_equals_a_new_one() -> None:
    document = Document(SAMPLE)
    for width in (60, 30, 80):
        assert document.lines(width) == Document(SAMPLE).lines(width)


def test_rows_that_did_not_change_are_the_same_objects() -> None:
    document = Document("first paragraph\n\nsecond")
    before = list(document.lines(40))
    document.append(" grows")
    after = document.lines(40)
    assert after[0] is before[0]
    assert after[2].content.plain == "second grows"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("**b** *i* `c` ~~s~~", ["b i c s"]),
        ("one\ntwo", ["one", "two"]),
        ("- [x](javascript:alert(1))", ["• [x](javascript:alert(1))"]),
        ("<script>x</script>", ["<script>x</script>"]),
        ("[red]x[/red]", ["[red]x[/red]"]),
        ("3. three\n4. four", ["3. three", "4. four"]),
        ("![alt](http://a.b/c.png)", ["[alt]"]),
        ("> a\n> b", ["▏ a", "▏ b"]),
        ("", []),
    ],
)
def test_markdown_reads_as(source: str, expected: list[str]) -> None:
    assert shown(source) == expected


def test_only_web_links_can_be_clicked() -> None:
    source = "[a](https://x.y) [b](ftp://x.y) [c](/etc/passwd) [d](mailto:a@b.c)"
    (line,) = Document(source).lines(80)
    targets = [
        span.style.meta["@click"]
        for span in line.content.spans
        if not isinstance(span.style, str) and span.style.meta
    ]
    assert targets == [("open_link", ("https://x.y",))]


def test_a_table_too_wide_for_its_columns_is_still_readable() -> None:
    table = "| a | b | c | d | e |\n|--|--|--|--|--|\n| one | two | three | four | five |"
    for width in (8, 16, 24, 60):
        rows = shown(table, width)
        assert max(cell_len(row) for row in rows) <= width
        assert "".join("".join(rows).split()).replace("·", "").replace("─", "").startswith("abcde")


@pytest.mark.parametrize(
    "source",
    [
        "> " * 500 + "deep",
        "- " * 500 + "deep",
        "*" * 5000,
        "[" * 5000,
        "`" * 4999,
        "|" * 3000 + "\n" + "|-" * 3000,
        "```" + "x" * 20000 + "\n" + "y" * 20000,
        "a" * 50000,
    ],
)
def test_hostile_markdown_is_laid_out_in_bounded_time(source: str) -> None:
    with computed_within(5):
        Document(source).lines(20)


def test_a_word_more_costs_no_more_in_a_long_reply() -> None:
    item = "- **item** with `code` and some more words to make it a line\n"
    short, long = Document(item * 20), Document(item * 2000)

    def cost(document: Document) -> float:
        document.lines(80)
        times = []
        for _ in range(30):
            start = time.process_time()
            document.append("word ")
            document.lines(80)
            times.append(time.process_time() - start)
        return sorted(times)[len(times) // 2]

    assert_within(cost(long), 10 * cost(short) + 0.002)
