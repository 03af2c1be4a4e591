"""The model's reply in the transcript, while it comes and after."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content

from engine.protocol import Event, Notice, Prefilled, Progress, Text, Thinking, WasThinking
from ktchat.common import words
from ktchat.common.text import one_line
from ktchat.store.conversation import Turn, TurnState
from ktchat.store.tree import Part, Place
from ktchat.widgets.chat.markdown import Document
from ktchat.widgets.chat.message import actions
from ktchat.widgets.chat.plain import PlainText
from ktchat.widgets.chat.program_lines import MARK, marked, note, said
from ktchat.widgets.chat.rows import RowPart
from ktchat.widgets.chat.turn_view import ALONE, TurnView
from ktchat.widgets.formats import counted, first_token, whole_seconds
from ktchat.widgets.lines import BLANK, Line, styled, wrap

STEP = 2
"""Rows that a reply reserves below its text while it streams."""


@dataclass(slots=True)
class _Live:
    """What is known of a reply only while it is being written."""

    started: float = 0.0
    first: float = 0.0  # monotonic time of the first token
    tokens: int = 0
    thinking_tokens: int = 0
    thinking_since: float = 0.0
    activity: str = "waiting for the model"


class ReplyView(TurnView):
    """The model's reply. `feed` takes events; `settle` draws the turn as it ended."""

    part: ClassVar[Part] = "reply"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("t,enter,space", "fold", "Thinking", show=False),
    ]

    def __init__(self, turn: Turn, place: Place = ALONE, *, unfolded: bool = False) -> None:
        super().__init__(turn, place)
        self.unfolded = unfolded
        self.document = Document(turn.reply)
        self._thinking = _thinking(turn.thinking)
        self._thought_seconds = 0.0
        self._notices: list[str] = []
        self._live = _Live(started=time.monotonic()) if turn.state == TurnState.STREAMING else None
        self._pending: list[str] = []
        self._reserved = 0

    # The stream.

    def feed(self, event: Event) -> bool:
        """Take an event of the reply. True when there is something new to draw."""
        live = self._live
        handler = _EVENTS.get(type(event))
        if live is None or handler is None:
            return False
        handler(self, live, event)
        return True

    def draw(self) -> None:
        """Draw what `feed` took since the last call."""
        if self._live is None:
            return
        if self._pending:
            self.document.append("".join(self._pending))
            self._pending.clear()
            self._live.activity = ""
        self.changed()

    @property
    def height(self) -> int:
        """Grows by steps while the reply streams: laying out the screen again costs the most.

        What is reserved stays until the next turn, so that the end does not move the text.
        """
        rows = super().height
        if self._live is not None and rows > self._reserved:
            self._reserved = rows + STEP
        return max(rows, self._reserved)

    def release(self) -> None:
        """Give back the rows that were reserved."""
        if self._reserved:
            self._reserved = 0
            self.refresh(layout=True)

    def settle(self) -> None:
        """The reply ended: draw it as it was kept."""
        if self._live is not None and self._live.thinking_since:
            self._thought_seconds = time.monotonic() - self._live.thinking_since
        self._live = None
        self._pending.clear()
        if self.document.source != self.turn.reply:
            self.document = Document(self.turn.reply)
        else:
            self.document.finish()
        if self._thinking.source.rstrip() != self.turn.thinking.strip("\n").rstrip():
            self._thinking = _thinking(self.turn.thinking)
        self.changed()

    @property
    def streaming(self) -> bool:
        """Whether the reply is being written."""
        return self._live is not None

    def _progress(self, live: _Live, event: Progress) -> None:
        live.activity = words.progress(event)

    def _prefilled(self, live: _Live, event: Prefilled) -> None:
        live.activity = "writing"

    def _thought(self, live: _Live, event: Thinking) -> None:
        if not live.thinking_since:
            live.thinking_since = time.monotonic()
        self._count(live, event.tokens)
        live.thinking_tokens += event.tokens
        self._thinking.append(event.text)
        live.activity = f"thinking · {counted(live.thinking_tokens, 'token')}"

    def _said(self, live: _Live, event: Text) -> None:
        self._count(live, event.tokens)
        if live.thinking_since:
            self._thought_seconds = time.monotonic() - live.thinking_since
            live.thinking_since = 0.0
        self._pending.append(event.text)

    def _rethought(self, live: _Live, event: WasThinking) -> None:
        """What was said so far was reasoning."""
        said = (self.document.source + "".join(self._pending)).strip()
        self._thinking.append(f"\n\n{said}" if self._thinking else said)
        self.document = Document("")
        self._pending.clear()
        live.thinking_tokens = live.tokens
        self._thought_seconds = time.monotonic() - live.first
        live.thinking_since = 0.0

    def _noticed(self, live: _Live, event: Notice) -> None:
        self._notices.append(event.text)

    def _count(self, live: _Live, tokens: int) -> None:
        live.first = live.first or time.monotonic()
        live.tokens += tokens

    # Rows.

    def header(self) -> tuple[Content, Content]:
        right = self._figures()
        left = styled(one_line(self.turn.model, 60) or "Reply", ".author") + self.versions()
        if self.active and not self.streaming:
            words = (
                "copy",
                "regenerate",
                "edit",
                *(["continue"] if self.turn.can_go_on else []),
                "branch",
            )
            buttons = actions(*((word, _ACTIONS.get(word, word)) for word in words))
            fits = left.cell_length + buttons.cell_length + right.cell_length < self.size.width - 4
            right = buttons + right if fits else buttons
        return left, right

    def _figures(self) -> Content:
        live, figures = self._live, self.turn.figures
        parts: list[str] = []
        if live is not None:
            if live.first:
                passed = time.monotonic() - live.first
                if live.tokens > 8 and passed > 0.2:
                    parts.append(words.speed((live.tokens - 1) / passed))
                parts.append(f"first {first_token(live.first - live.started)}")
        elif self.turn.edited is not None:
            parts.append("changed by you")
        elif figures is not None and figures.reply_tokens:
            if figures.decode_tok_s:
                parts.append(words.speed(figures.decode_tok_s))
            parts += filter(None, [words.lookup(figures)])
            parts.append(f"first {first_token(figures.first_token_seconds)}")
            parts += filter(None, [words.restored(figures)])
        return styled(" · ".join(parts), ".dim")

    def body(self, width: int) -> Sequence[RowPart]:
        above = [row for notice in self._notices for row in note(notice, width)]
        parts: list[RowPart] = [above]
        if self._thinking:
            mark = "▾" if self.unfolded else "▸"
            title = styled(f"{mark} {self._thinking_title()}", ".note", ("fold", ()))
            above.append(Line(title, gutter=len(title)))
            parts += [self._thinking] if self.unfolded else []
            parts += [[BLANK]] if self.document else []
        if self._live is not None and self._live.activity and not self._live.thinking_since:
            parts.append([*note(self._live.activity, width)])
        ending = self._ending(width)
        between = [BLANK] if ending and self.document else []
        return [*parts, self.document, [*between, *ending, BLANK]]

    def _thinking_title(self) -> str:
        live, figures = self._live, self.turn.figures
        if live is not None and live.thinking_since:
            return live.activity
        tokens = live.thinking_tokens if live else figures.thinking_tokens if figures else 0
        seconds = self._thought_seconds
        title = f"thought for {whole_seconds(seconds)}" if seconds else "thought"
        return f"{title} · {counted(tokens, 'token')}" if tokens else title

    def _ending(self, width: int) -> list[Line]:
        """What is to be said of how the reply ended."""
        turn = self.turn
        if self._live is not None:
            return []
        if turn.state == TurnState.FAILED and turn.error is not None:
            return self._failure(width)
        how = turn.state if turn.state in words.ENDINGS else turn.reason or ""
        if how not in words.ENDINGS:
            empty = not (turn.raw_reply or turn.raw_thinking)
            return note("an empty reply", width) if empty else []
        style = ".warning" if how in _WARNINGS else ".note"
        ending = styled(words.ENDINGS[how], style)
        if self.last and turn.can_go_on:
            ending += styled(" · ", ".note") + styled("F9 goes on", ".action", ("go_on", ()))
        return said(ending, style, width)

    def _failure(self, width: int) -> list[Line]:
        error = self.turn.error
        assert error is not None
        rows = wrap(styled(one_line(error.what, 400), ".error"), width - len(MARK))
        for sentence in (error.why, error.todo):
            if sentence:
                rows.extend(wrap(Content(one_line(sentence, 400)), width - len(MARK)))
        if self.last:
            rows.append(Line(styled("Ctrl+R try again", ".action", ("regenerate", ()))))
        return marked(rows, ".error")

    # Actions.

    def copy_text(self) -> str:
        return self.turn.reply

    def action_copy(self) -> None:
        self.post_message(self.Copy(self.copy_text(), "reply"))

    def action_copy_code(self, number: int) -> None:
        """Copy a code block."""
        with contextlib.suppress(IndexError):
            self.post_message(self.Copy(self.document.code(number).text, "code block"))

    def action_fold(self) -> None:
        """Fold or unfold the thinking."""
        if self._thinking:
            self.unfolded = not self.unfolded
            self.changed()


_EVENTS: dict[type, Callable[..., None]] = {
    Progress: ReplyView._progress,
    Prefilled: ReplyView._prefilled,
    Thinking: ReplyView._thought,
    Text: ReplyView._said,
    WasThinking: ReplyView._rethought,
    Notice: ReplyView._noticed,
}
_ACTIONS = {"continue": "go_on"}
_WARNINGS = ("context", "repeats")


def _thinking(text: str) -> PlainText:
    return PlainText(text, ".thinking", styled("▏ ", ".dim"))
