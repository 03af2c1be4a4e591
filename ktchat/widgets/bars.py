"""The rows around the conversation: model and context above, status and keys below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Static

from engine.common.units import count, short_count
from ktchat.common.text import one_line
from ktchat.widgets.lines import ends, styled

NEARLY_FULL = 0.85
"""Share of the context from which the header warns."""

METER_CELLS = 14
LEAST_NAME = 12
"""Cells of a model's name that stay, however much there is to say of it."""
MAX_WORDS = 400


class Header(Widget):
    """One row: the model at the left, the context at the right."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"name", "dim", "used", "free", "warning"}

    def __init__(self) -> None:
        super().__init__()
        self.auto_links = False  # what can be clicked is not underlined
        self._model = "no model"
        self._details = self.thinking = ""
        self._tokens = 0
        self._limit = 0
        self._busy = ""

    def show_model(self, name: str, details: str = "", busy: str = "") -> None:
        """Name the model; `busy` says what is being done to it (loading)."""
        self._model, self._details, self._busy = name, details, busy
        self.refresh()

    def show_thinking(self, choice: str) -> None:
        """What holds of the model's thinking; empty: there is no choice. A click chooses the next."""
        if choice != self.thinking:
            self.thinking = choice
            self.refresh()

    def show_context(self, used: int, size: int) -> None:
        """Tokens used of the context; a size of 0 hides the meter."""
        if (used, size) != (self._tokens, self._limit):
            self._tokens, self._limit = used, size
            self.refresh()

    @property
    def nearly_full(self) -> bool:
        """Whether little of the context is left."""
        return self._limit > 0 and self._tokens > self._limit * NEARLY_FULL

    def render(self) -> Content:
        width = self.content_size.width
        details, right = Content(""), self._context_words(width)
        for words in (self._details, self._busy):
            if words:
                details += styled(f" · {words}", ".dim")
        name = styled(self._model, ".name")
        if self.thinking and not self._busy:
            words = f" · thinking: {self.thinking}"
            more = details + styled(words, ".dim", ("screen.cycle_thinking", ()))
            if name.cell_length + more.cell_length + 1 + right.cell_length > width:
                right = self._context_words(0)
            if LEAST_NAME + more.cell_length + 1 + right.cell_length <= width:
                details = more
        room = max(LEAST_NAME, width - details.cell_length - right.cell_length - 1)
        if name.cell_length > room:
            name = name.truncate(room, ellipsis=True)
        return ends(name + details, right, width)

    def _context_words(self, width: int) -> Content:
        if not self._limit:
            return Content("")
        if self.nearly_full and width >= 60:
            free = max(0, self._limit - self._tokens)
            return styled(f"context nearly full: {count(free)} tokens left", ".warning")
        style = ".warning" if self.nearly_full else ".dim"
        numbers = styled(f"{short_count(self._tokens)} of {short_count(self._limit)}", style)
        if width < 60:
            return numbers
        return styled("ctx ", ".dim") + meter(self._tokens, self._limit) + Content(" ") + numbers


def meter(used: int, size: int, cells: int = METER_CELLS) -> Content:
    """A bar of halves of cells: `━━━━╸─────────`."""
    halves = min(2 * cells, round(2 * cells * used / size)) if size else 0
    full, half = divmod(max(halves, 1 if used else 0), 2)
    bar = "━" * full + "╸" * half
    return styled(bar, ".used") + styled("─" * (cells - len(bar)), ".free")


class Status(Static):
    """Words about what just happened, or what holds now. Empty most of the time."""

    SECONDS: ClassVar[dict[str, float]] = {"information": 5.0, "warning": 12.0, "error": 0.0}
    """How long passing words stay; 0: until the next ones."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"note", "warning", "error", "action"}

    def __init__(self) -> None:
        super().__init__()
        self._standing: Content | None = None
        self._passing: Content | None = None
        self._behind: Content | None = None
        self._timer: Timer | None = None

    def say(
        self,
        words: str,
        severity: str = "information",
        button: tuple[str, str] | None = None,
        seconds: float | None = None,
    ) -> None:
        """Passing words, made safe to draw; `button` is a word to click and its action."""
        words = one_line(words, MAX_WORDS)
        content = styled(words, f".{'note' if severity == 'information' else severity}")
        if button is not None:
            content += Content("  ") + styled(button[0], ".action", (button[1], ()))
        self._passing = content
        if self._timer is not None:
            self._timer.stop()
        seconds = self.SECONDS[severity] if seconds is None else seconds
        self._timer = self.set_timer(seconds, self.hush) if seconds else None
        self._draw()

    def hush(self) -> None:
        """Take passing words away."""
        self._passing = None
        self._draw()

    def stand(self, words: str, severity: str = "information") -> None:
        """Words that hold until they are replaced, made safe to draw; empty: none."""
        words = one_line(words, MAX_WORDS)
        style = f".{'note' if severity == 'information' else severity}"
        standing = styled(words, style) if words else None
        if standing is not None and standing != self._standing:
            self._passing = None  # news that hold go before news that pass
        self._standing = standing
        self._draw()

    def stand_behind(self, words: str) -> None:
        """Words on what goes on elsewhere, shown while there are no others; made safe to draw."""
        words = one_line(words, MAX_WORDS)
        self._behind = styled(words, ".note") if words else None
        self._draw()

    @property
    def words(self) -> str:
        """What is shown."""
        return (self._passing or self._standing or self._behind or Content("")).plain

    def _draw(self) -> None:
        self.update(self._passing or self._standing or self._behind or Content(""))


class KeyBar(Widget):
    """One row of keys that can be pressed now; as many as fit. Each can be clicked."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"key", "word"}

    def __init__(self, keys: Sequence[tuple[str, str, str]]) -> None:
        super().__init__()
        self.auto_links = False  # keys are not underlined
        self._keys = tuple(keys)

    def show(self, keys: Sequence[tuple[str, str, str]]) -> None:
        """Show other keys."""
        if tuple(keys) != self._keys:
            self._keys = tuple(keys)
            self.refresh()

    def render(self) -> Content:
        width = self.content_size.width
        content = Content("")
        for key, word, action in self._keys:
            gap = Content("  ") if content else Content("")
            item = styled(key, ".key", (action, ())) + styled(f" {word}", ".word", (action, ()))
            if content.cell_length + gap.cell_length + item.cell_length > width:
                break
            content += gap + item
        return content
