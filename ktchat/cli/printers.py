"""What `ktchat run` prints of a reply: text for people and pipes, or JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any, Protocol

from engine.common import units
from engine.common.insight import HOPS
from engine.protocol import (
    Event,
    Failed,
    Finished,
    Insight,
    Loaded,
    Notice,
    Progress,
    Quiet,
    Text,
    Thinking,
    WasThinking,
)
from ktchat.cli import output
from ktchat.common import words
from ktchat.session.chat import Started, Update
from ktchat.store.conversation import Turn

_CLEAR = "\r\x1b[K"
_DIM, _NORMAL = "\x1b[2m", "\x1b[0m"


class Printer(Protocol):
    """Shows the events of one run."""

    def load(self, event: Event) -> None:
        """An event of loading the model."""

    def show(self, update: Update, turn: Turn, session: str) -> None:
        """An event of the reply."""

    def note(self, text: str) -> None:
        """Tell the person something, on standard error."""

    def close(self) -> None:
        """Nothing more comes, for whatever reason."""


class TextPrinter:
    """The reply on standard output; progress and figures on standard error."""

    def __init__(self, thinking: bool, verbose: bool) -> None:
        self._thinking = thinking
        self._on_terminal = output.is_terminal(sys.stdout)
        self._progress = output.is_terminal(sys.stderr)
        self._figures = verbose or self._progress
        self._status = ""
        self._place = ""
        self._printed = 0  # characters of the raw reply
        self._thought = 0  # tokens of thinking
        self._at_line_start = True

    def load(self, event: Event) -> None:
        """Progress of loading, and what computes."""
        if isinstance(event, Progress):
            self._show_status(words.progress(event))
        elif isinstance(event, Loaded):
            self._place = words.place(event)

    def show(self, update: Update, turn: Turn, session: str) -> None:
        """Print what this event adds."""
        match update:
            case Progress():
                self._show_status(words.progress(update))
            case Thinking(text, tokens):
                self._think(text, tokens)
            case Text(text):
                self._say(text if self._on_terminal else turn.raw_reply[self._printed :])
                self._printed = len(turn.raw_reply)
            case WasThinking():
                self._printed = 0
                self.note("What was printed so far proved to be the model's thinking.")
            case Notice(text):
                self.note(text)
            case Quiet(quiet=True):
                self.note("The engine does not answer. Ctrl-C ends it.")
            case Finished(figures=figures):
                self._end_line()
                if self._figures and figures.reply_tokens:
                    known = filter(None, (words.figures(figures), self._place))
                    output.write(" · ".join(known) + "\n", sys.stderr)
            case Failed():
                self._end_line()
            case _:
                pass

    def note(self, text: str) -> None:
        """One line on standard error, on a line of its own where both share a terminal."""
        self._show_status("")
        if self._on_terminal:
            self._end_line()
        output.complain(text)

    def close(self) -> None:
        """Clear the status line and end the reply's last line."""
        self._end_line()

    def _think(self, text: str, tokens: int) -> None:
        self._thought += tokens
        if not self._thinking:
            if self._at_line_start:  # else the line of the reply would be overwritten
                self._show_status(f"thinking · {units.count(self._thought)} tokens")
            return
        self._show_status("")
        output.write(f"{_DIM}{text}{_NORMAL}" if self._progress else text, sys.stderr)

    def _say(self, text: str) -> None:
        self._show_status("")
        if self._thinking and self._thought and not self._printed:
            output.write("\n", sys.stderr)
        if text:
            self._at_line_start = text.endswith("\n")
            output.write(text)

    def _end_line(self) -> None:
        self._show_status("")
        if not self._at_line_start:
            self._at_line_start = True
            output.write("\n")

    def _show_status(self, text: str) -> None:
        if self._progress and text != self._status:
            self._status = text
            output.write(_CLEAR + text, sys.stderr)


class JsonPrinter:
    """Every event as one line of JSON (ASCII, raw text) on standard output."""

    def __init__(self) -> None:
        self._replied = 0
        self._thought = 0

    def load(self, event: Event) -> None:
        """An event of loading."""
        self._print(event)

    def show(self, update: Update, turn: Turn, session: str) -> None:
        """An event of the reply."""
        if isinstance(update, Started):
            data: dict[str, Any] = {"session": session, "turn": turn.id, "model": turn.model}
            if turn.attachments:
                known = [{"name": a.name, "sha256": a.sha256} for a in turn.attachments]
                data["attachments"] = known
            self._line("started", data)
            return
        if isinstance(update, Text):
            update = dataclasses.replace(update, text=turn.raw_reply[self._replied :])
            self._replied = len(turn.raw_reply)
        elif isinstance(update, Thinking):
            update = dataclasses.replace(update, text=turn.raw_thinking[self._thought :])
            self._thought = len(turn.raw_thinking)
        elif isinstance(update, WasThinking):
            self._replied, self._thought = 0, len(turn.raw_thinking)
        self._print(update)

    def note(self, text: str) -> None:
        """One line on standard error."""
        output.complain(text)

    def close(self) -> None:
        """Nothing is left open between lines."""

    def _print(self, event: Event) -> None:
        if isinstance(event, Failed):
            data: dict[str, Any] = {"error": event.error.to_dict()}
        elif isinstance(event, Insight):
            data = _insight(event)
        else:
            data = dataclasses.asdict(event)
        self._line(type(event).__name__.lower(), data)

    def _line(self, event: str, data: dict[str, Any]) -> None:
        output.line(json.dumps({"event": event, **data}))


def _insight(event: Insight) -> dict[str, Any]:
    """Counts as lists of numbers, a row a layer, and the seconds of a token by name."""
    data = dataclasses.asdict(event)
    if event.experts is not None:
        data["experts"]["uses"] = [list(row) for row in event.experts.rows()]
        data["experts"]["on_gpu"] = [list(row) for row in event.experts.rows_on_gpu()]
    data["hop"] = event.hop
    data["hop_seconds"] = dict(zip(HOPS, event.hop_seconds, strict=False))
    return data
