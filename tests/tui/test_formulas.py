"""Formulas as Unicode, prices and variables as they are, boxes of tasks, and the sign where code wraps."""

from __future__ import annotations

import pytest

from ktchat.widgets.chat.latex import unicode_of
from ktchat.widgets.chat.markdown import Document
from ktchat.widgets.lines import copied
from tests.support.clock import computed_within


def shown(source: str, width: int = 60) -> list[str]:
    return [line.content.plain for line in Document(source).lines(width)]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (r"x^2", "x²"),
        (r"x_{i+1}", "xᵢ₊₁"),
        (r"\frac{1}{2}", "½"),
        (r"\frac{a+b}{\sqrt{c}}", "(a+b)/√c"),
        (r"\frac{a}{b}c", "(a/b)c"),
        (r"\frac{a}{b} + c", "a/b + c"),
        (r"\frac{1}{1+\frac{1}{x}}", "1/(1+1/x)"),
        (r"\sum_{i=1}^{n} x_i", "∑ᵢ₌₁ⁿ xᵢ"),
        (r"e^{-x^2}", "e^(−x²)"),
        (r"\text{softmax}(QK^T/\sqrt{d_k})V", "softmax(QKᵀ/√(dₖ))V"),
        (r"x \in \mathbb{R}^n", "x ∈ ℝⁿ"),
        (r"\alpha \cdot \beta \neq \pi", "α ⋅ β ≠ π"),
        (r"\left( \frac{x}{y} \right)", "( x/y )"),
        (r"O(n \log n)", "O(n log n)"),
        (r"\hat{x} = \sqrt[3]{8}", "x̂ = ³√8"),
        (r"90^\circ", "90°"),
        (r"100\% \le \{1, 2\}", "100% ≤ {1, 2}"),
        (r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}", None),
        (r"\frac{1}{1+\frac{1}{1+\frac{1}{x}}}", None),
        (r"\unheardof{x}", None),
        (r"a & b", None),
        (r"{x", None),
        (r"x}", None),
        (r"\frac{a}", None),
        (r"x^", None),
        ("{" * 200 + "x" + "}" * 200, None),
    ],
)
def test_a_formula_is_a_line_or_stays_whole(source: str, line: str | None) -> None:
    assert unicode_of(source) == line


@pytest.mark.parametrize(
    ("source", "rows"),
    [
        (r"so \(a^2\) and \[b_1\] and $c^3$ and $$d$$", ["so a² and b₁ and c³ and d"]),
        ("$$\nx = \\frac{1}{2}\n+ y\n$$\nafter", ["x = ½ + y", "", "after"]),
        ("\\[\na\n- b\n\\]", ["a − b"]),
        ("- $$\n  x^2\n  $$", ["• x²"]),
        ("| $x^2$ | b |\n|--|--|\n| 1 | 2 |", ["x²    b", "────  ────", "1     2"]),
        (r"$\begin{matrix}a_1 * b*c\end{matrix}$", [r"$\begin{matrix}a_1 * b*c\end{matrix}$"]),
        ("It costs $5 and $10.", ["It costs $5 and $10."]),
        ("from $5-$10, or US$100/A$150 (was $7)", ["from $5-$10, or US$100/A$150 (was $7)"]),
        ("echo $HOME and $PATH.", ["echo $HOME and $PATH."]),
        ("$HOME/bin:$PATH and $(pwd)/a:$(id)", ["$HOME/bin:$PATH and $(pwd)/a:$(id)"]),
        ("`$x^2$` and $x^2$", ["$x^2$ and x²"]),
        ("    $x^2$", [" code" + " " * 49 + " copy ", " $x^2$"]),
        ("$$\nnot closed", ["$$", "not closed"]),
    ],
)
def test_formulas_are_told_from_prices_variables_and_code(source: str, rows: list[str]) -> None:
    assert shown(source) == rows


def test_a_copy_has_the_source() -> None:
    source = r"so \(a^2\) and $\alpha + \beta + \gamma + \delta + \epsilon$ and $\foo{x}$"
    for width in (80, 20, 9):
        rows = Document(source).lines(width)
        assert copied(rows, 0, 0, len(rows), 1 << 30).replace("\n", " ") == source


@pytest.mark.parametrize(
    "source",
    [
        "$" * 20_000,
        "\\(" * 20_000,
        "$x" * 20_000,
        "\\[\n" * 5_000,
        "$$\nx\n" * 3_000,
        "$a^{" * 5_000,
        "$" + "{" * 1_999 + "$",
        ("$" + "x^{2}" * 390 + "$ ") * 100,
    ],
)
def test_hostile_formulas_take_bounded_time(source: str) -> None:
    with computed_within(10):
        Document(source).lines(40)


def test_tasks_have_boxes() -> None:
    assert shown("- [ ] open\n- [x] done\n- [y] no box\n1. [X] first\n\n[ ] no item") == [
        *("☐ open", "☑ done", "• [y] no box", "☑ first", "", "[ ] no item"),
    ]


def test_code_that_wraps_has_a_sign_that_is_not_copied() -> None:
    rows = Document("```\n" + "x" * 50 + "\nshort\n```").lines(24)
    assert [row.content.plain[0] for row in rows[1:]] == [" ", "»", "»", " "]
    assert copied(rows, 0, 0, len(rows), 1 << 30) == "x" * 50 + "\nshort"
