"""What is on the screen as a person's eyes get it: contrast, and what can be told apart where there are few colours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.color import Color, ColorSystem
from rich.style import Style
from textual.app import App
from textual.screen import ModalScreen

DECORATION = range(0x2500, 0x25A0)
"""Lines, boxes and blocks: they carry no meaning of their own."""


@dataclass(frozen=True)
class Shown:
    """A stretch of text in one style, in its row."""

    text: str
    style: Style
    row: int


def shown(app: App[object]) -> Iterator[Shown]:
    """Everything on the screen but blanks and decoration, and what is behind a dialog."""
    strips = app.screen._compositor.render_strips()
    if isinstance(app.screen, ModalScreen):
        box = app.screen.query(".box").first().region
        strips = [strips[row].crop(box.x, box.right) for row in box.line_range]
    for row, strip in enumerate(strips):
        for segment in strip:
            text = "".join(c for c in segment.text if ord(c) not in DECORATION).strip()
            if text and segment.style is not None:
                yield Shown(text, segment.style, row)


def luminance(colour: Color) -> float:
    """Relative luminance, 0 to 1 (WCAG 2.2, "relative luminance")."""
    channels = []
    for value in colour.get_truecolor():
        share = value / 255
        channels.append(share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4)
    red, green, blue = channels
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(style: Style) -> float:
    """Contrast of a text with what is behind it, 1 to 21 (WCAG 2.2, "contrast ratio")."""
    assert style.color is not None and style.bgcolor is not None, style
    assert not style.dim, "a terminal dims as it likes: what is dim has a colour"
    pair = luminance(style.color), luminance(style.bgcolor)
    return (max(pair) + 0.05) / (min(pair) + 0.05)


def appearance(style: Style, colours: bool) -> tuple[object, ...]:
    """What tells a text from others in a terminal of sixteen colours, or of none: weight is not counted."""
    front: object = None
    back: object = None
    if colours:
        front, back = _sixteen(style.color), _sixteen(style.bgcolor)
    if style.reverse:
        front, back = ("back", back), ("front", front)
    return front, back, bool(style.underline)


def _sixteen(colour: Color | None) -> object:
    if colour is None or colour.is_default:
        return None
    return colour.downgrade(ColorSystem.STANDARD).number
