"""Where the time of a token goes: spans in rows, and the file that a trace viewer opens.

Chrome's trace event format: chrome://tracing and ui.perfetto.dev read it. Every time is nanoseconds of
`time.perf_counter_ns`, which on Linux is CLOCK_MONOTONIC, so that native code reads the same clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import KtchatError
from kernels.timing import DEVICE, HOST, NATIVE, Stamps

PYTHON = "python"
ROWS = (PYTHON, NATIVE, HOST, DEVICE)
"""Rows in the order in which they are shown; others follow. All but the first are work."""

TOKEN = "token"
"""Spans of the Python row with this name are whole tokens."""

_PROCESS = 1


class Span(NamedTuple):
    """Something that took from `start` to `end` nanoseconds."""

    name: str
    start: int
    end: int
    args: dict[str, int | float | str]


class _Ops(NamedTuple):
    names: Sequence[str]
    layers: Sequence[int | None]
    stamps: Stamps


class Row:
    """Spans that stand below each other: one thread, or one device. Takes ops as `OpTimes` says."""

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._ops: list[_Ops] = []

    def ops(self, names: Sequence[str], layers: Sequence[int | None], stamps: Stamps) -> None:
        """Ops that ran one after another; only kept, because a token waits meanwhile."""
        self._ops.append(_Ops(names, layers, stamps))

    def add(self, span: Span) -> None:
        """One more span."""
        self._spans.append(span)

    def spans(self) -> list[Span]:
        """All spans by their start, enclosing ones first."""
        spans = [*self._spans, *_layered(_op_spans(self._ops))]
        return sorted(spans, key=lambda span: (span.start, -span.end))


class Trace:
    """Rows of spans, begun when it is made."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}

    def row(self, name: str) -> Row:
        """The row of this name; there from now on."""
        return self._rows.setdefault(name, Row())

    def span(
        self, row: str, name: str, start_ns: int, end_ns: int, **args: int | float | str
    ) -> None:
        """Add a span; `args` are shown with it. Spans of a row lie inside each other or apart."""
        self.row(row).add(Span(name, start_ns, end_ns, args))

    def spans(self, row: str) -> list[Span]:
        """A row's spans by their start; none when there is no such row."""
        return self._rows[row].spans() if row in self._rows else []

    def work(self) -> list[tuple[int, int]]:
        """When ops, experts or the device were at work: (start, end), in order and apart."""
        rows = [name for name in self._rows if name != PYTHON]
        return _union((s.start, s.end) for name in rows for s in self.spans(name))

    @property
    def overhead(self) -> float:
        """The share of a token in which nothing was at work: of the traced tokens the median.

        Raises `ValueError` without a token.
        """
        work = self.work()
        return statistics.median(
            1 - _covered(work, token.start, token.end) / (token.end - token.start)
            for token in self._tokens()
        )

    @property
    def token_ns(self) -> float:
        """The nanoseconds that a traced token took, the median."""
        return statistics.median(token.end - token.start for token in self._tokens())

    def share(self, name: str) -> float:
        """The share of a token that Python's spans of this name take, the median again."""
        return statistics.median(
            sum(span.end - span.start for span in self._inside(token) if span.name == name)
            / (token.end - token.start)
            for token in self._tokens()
        )

    def _tokens(self) -> list[Span]:
        return [span for span in self.spans(PYTHON) if span.name == TOKEN]

    def _inside(self, token: Span) -> Iterator[Span]:
        return (s for s in self.spans(PYTHON) if token.start <= s.start and s.end <= token.end)

    def to_dict(self, **about: int | float | str) -> dict[str, Any]:
        """The file's object; `about` goes with it, times are microseconds from the first span."""
        names = [name for name in ROWS if name in self._rows]
        names += [name for name in self._rows if name not in ROWS]
        rows = [(number, name, self.spans(name)) for number, name in enumerate(names, 1)]
        origin = min((span.start for _, _, spans in rows for span in spans), default=0)
        events = [_about("process_name", 0, name="ktchat")]
        for number, name, spans in rows:
            events.append(_about("thread_name", number, name=name))
            events.append(_about("thread_sort_index", number, sort_index=number))
            events += [_event(span, number, origin) for span in spans]
        about |= {"clock": "CLOCK_MONOTONIC", "origin_ns": origin}
        return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": about}


def check_writable(path: Path) -> None:
    """Raise what `write_trace` would, as far as that can be known before. Leaves nothing behind."""
    with _written(path):
        pass


def write_trace(path: Path, content: dict[str, Any]) -> None:
    """Write `Trace.to_dict` to `path`, whole or not at all. Raises `KtchatError`."""
    with _written(path) as part:
        part.write_text(json.dumps(content))
        part.replace(path.resolve())


@contextlib.contextmanager
def _written(path: Path) -> Iterator[Path]:
    """A new file beside `path`, gone afterwards unless it was moved there."""
    try:
        target = path.resolve()
        if target.exists() and not target.is_file():
            raise KtchatError(
                "The trace cannot be written", f"{path} is no file", "Name a file with --trace"
            )
        part = target.with_name(f".ktchat-trace.{os.getpid()}.part")
        try:
            part.open("x").close()
            yield part
        finally:
            part.unlink(missing_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
        why = getattr(error, "strerror", None) or error
        raise KtchatError(
            "The trace cannot be written",
            f"{path}: {why}",
            "Name a file in a folder that you may write to",
        ) from error


def _event(span: Span, number: int, origin: int) -> dict[str, Any]:
    event = {"ph": "X", "name": span.name, "pid": _PROCESS, "tid": number}
    event |= {"ts": (span.start - origin) / 1000, "dur": (span.end - span.start) / 1000}
    return event | {"args": span.args} if span.args else event


def _about(kind: str, number: int, **args: int | str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": _PROCESS, "tid": number, "args": args}


def _op_spans(ops: Iterable[_Ops]) -> Iterator[tuple[str, int | None, int, int]]:
    for names, layers, stamps in ops:
        starts, ends = map(int, stamps[:-1]), map(int, stamps[1:])
        yield from zip(names, layers, starts, ends, strict=True)


def _layered(ops: Iterable[tuple[str, int | None, int, int]]) -> list[Span]:
    """Ops with the layers that most of them do not know: those around the op that appends to the cache.

    A layer begins with the products before it (queries, keys and values) and ends where the next one's
    begin. The embedding has none, nor has the last product, which makes the logits.
    """
    spans: list[Span] = []
    begun: list[Span] = []  # the products whose layer is not known yet
    layer: int | None = None
    for name, known, start, end in ops:
        if name == "embed":
            layer = None
            begun.clear()
        elif known is not None:
            layer = known
        span = Span(name, start, end, {})
        spans.append(span)
        if name == "norm_linear":
            begun.append(span)
            continue
        if layer is not None:
            for one in (*begun, span):
                one.args["layer"] = layer
        begun.clear()
    return spans


def _union(intervals: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The intervals without overlaps, in order."""
    out: list[tuple[int, int]] = []
    for start, end in sorted(intervals):
        if out and start <= out[-1][1]:
            out[-1] = out[-1][0], max(out[-1][1], end)
        else:
            out.append((start, end))
    return out


def _covered(intervals: Iterable[tuple[int, int]], start: int, end: int) -> int:
    """How much of `start` to `end` the intervals fill, which do not overlap."""
    return sum(max(0, min(b, end) - max(a, start)) for a, b in intervals)
