"""The styles of everything that a conversation shows, in one place for all its messages.

The style sheet gives the component classes their meaning (`Palette > .code`). They belong to the
container and not to each message: a message then costs nothing to style.
"""

from __future__ import annotations

from typing import ClassVar

from textual.containers import VerticalScroll
from textual.style import Style


class Palette(VerticalScroll, can_focus=False):
    """A container of messages that knows their styles."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *("author", "you", "focused", "dim", "action", "note", "warning", "error", "thinking"),
        *("heading-1", "heading-2", "strong", "em", "struck", "code", "link"),
        *("code-block", "code-head", "code-copy", "code-comment", "code-keyword", "code-name"),
        *("code-string", "code-number", "code-deleted", "code-wrap", "unread"),
    }

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[str, Style] = {}

    def notify_style_update(self) -> None:
        self._known.clear()
        super().notify_style_update()

    def style_of(self, name: str) -> Style:
        """The meaning of a component class, with its background."""
        if name not in self._known:
            rules = self.get_component_styles(name)
            text = rules.text_style
            self._known[name] = Style(
                rules.background if rules.has_rule("background") else None,
                rules.color if rules.has_rule("color") else None,
                bold=text.bold,
                dim=text.dim,
                italic=text.italic,
                underline=text.underline,
                strike=text.strike,
            )
        return self._known[name]
