"""Sequences on their way to the disk, while nobody waits for the model.

The thread that owns the runtime copies one page at a time, between commands; a thread beside it makes checksums and
writes. A message that arrives stops both, and what is left is written after its reply.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from engine.common.os_errors import os_reason
from engine.disk_cache.chain import Chain, Layout
from engine.disk_cache.folder import DEEPER_NS, CacheFolder, ModelFolder
from engine.disk_cache.record import Bytes, Record, Stopped
from engine.model.host_copies import HostCopies
from engine.runtimes.prefix_cache import PrefixCache
from engine.runtimes.snapshots import CachedSequence

_Work = Callable[[], Any]


class _Due(NamedTuple):
    """A sequence that is to be written."""

    session: str
    sequence: CachedSequence
    prompt: int
    """Tokens of its last prompt."""


class Saver:
    """Writes sequences of a runtime into `cache`, within `budget` bytes (None: its default)."""

    def __init__(
        self,
        cache: CacheFolder,
        layout: Layout,
        prefixes: PrefixCache,
        copies: HostCopies,
        budget: int | None = None,
    ) -> None:
        self.trouble = ""
        """Why something could not be written; empty: nothing failed."""
        self.wake: Callable[[], None] = lambda: None
        """Called by another thread when `advance` can do more."""
        self._cache, self._layout, self._budget = cache, layout, budget
        self._folder: ModelFolder = cache.model(layout.key)
        self._prefixes, self._copies = prefixes, copies
        self._due: list[_Due] = []
        self._task: Generator[_Work, Any, None] | None = None
        self._future: Future[Any] | None = None
        self._stopped = threading.Event()
        self._writer = ThreadPoolExecutor(1, "kv-write")
        self._room = 0
        self._began_ns = self._used_ns = 0

    def add(self, session: str, sequence: CachedSequence, prompt: int) -> None:
        """A sequence of this session has grown behind a prompt of so many tokens: it is the next to be written."""
        others = [due for due in self._due if due.sequence is not sequence]
        self._due = [*others, _Due(session, sequence, prompt)]

    def advance(self) -> bool:
        """Copy one page at most, if one is due and the writer is free; False: all is done.

        `wake` is called once more can be done. Begins anew after `stop`.
        """
        if self._future is not None and not self._future.done():
            return True
        if self._stopped.is_set():
            self._stopped.clear()
            self._task = self._future = None
        while self._task is not None or self._due:
            work = self._next_work()
            if work is not None:
                self._future = self._writer.submit(work)
                self._future.add_done_callback(lambda _: self.wake())
                return True
        return False

    def stop(self) -> None:
        """Stop writing, soon: what is left stays due. Any thread may call it."""
        self._stopped.set()

    def finish(self, seconds: float) -> bool:
        """Write what is due, for so long at most; whether all is written."""
        until = time.monotonic() + seconds
        while self.advance():
            assert self._future is not None
            try:
                self._future.exception(max(0.0, until - time.monotonic()))
            except TimeoutError:
                self.stop()
                return False
        return True

    def close(self) -> None:
        """Stop, and end the writer's thread."""
        self.stop()
        self._due.clear()
        self._writer.shutdown()

    def _next_work(self) -> _Work | None:
        """What the writer is to do next; None: the task is done."""
        if self._task is None:
            self._task, self._future = self._save(self._due[-1]), None
        result = None if self._future is None else self._future.result()
        try:
            return self._task.send(result)
        except StopIteration:
            self._task = None
            self._due.pop()
            return None

    def _save(self, due: _Due) -> Generator[_Work, Any, None]:
        """Yields work for the writer, and is sent what came of it."""
        sequence = due.sequence
        if not self._prefixes.holds(sequence):
            return
        self._prefixes.keep_if_current(sequence)
        missing = yield partial(self._begin, due.session, self._records(due))
        for record in missing:
            if not self._prefixes.holds(sequence):
                return
            payload = self._payload(record, sequence)
            if not (yield partial(self._write, record, payload)):
                return

    def _records(self, due: _Due) -> Callable[[], list[Record]]:
        """All of a sequence, those nearest to its beginning first: what is there can then be used.

        Without a state one can go on from any whole page; ends are where one is likely to: behind the prompt, where a
        reply's thinking is left out of the next one, and behind the reply.
        """
        tokens, kept = list(due.sequence.tokens), dict(due.sequence.snapshots)
        size, count, chain = self._layout.page_size, len(tokens), Chain(self._layout, tokens)
        positions = set(kept) if self._layout.keeps_state else {count, min(due.prompt, count)}
        if not self._layout.keeps_state:
            positions = {position for position in positions if position % size}

        def records() -> list[Record]:
            every = [chain.page(number) for number in range(count // size)]
            every += [chain.end(position) for position in positions]
            every += [
                chain.logits(p) for p in positions if p in kept and kept[p].logits is not None
            ]
            return sorted(every, key=lambda record: record.end)

        return records

    def _payload(self, record: Record, sequence: CachedSequence) -> list[Bytes]:
        """Copies of what a record holds. Of a state that was given up meanwhile, nothing."""
        number = record.position // self._layout.page_size
        if record.kind == "page":
            return self._copies.read_page(sequence.pages[number])
        snapshot = sequence.snapshots.get(record.end)
        if record.kind == "logits":
            assert snapshot is not None and snapshot.logits is not None
            return [np.ascontiguousarray(snapshot.logits).view(np.uint8)]
        page = self._copies.read_page(sequence.pages[number]) if record.tokens else []
        state = [] if snapshot is None else self._copies.read_state(snapshot.slot, record.end)
        return [*page, *state]

    # In the writer's thread.

    def _begin(self, session: str, records: Callable[[], list[Record]]) -> Sequence[Record]:
        """Note what the session has; which of it is not there yet."""
        every = records()
        self._began_ns = time.time_ns()
        self._used_ns = self._began_ns - max((r.end for r in every), default=0) * DEEPER_NS
        budget = self._cache.budget(self._budget)
        try:
            self._folder.make()
            self._folder.remove_parts()
            self._folder.note(session, [record.name for record in every])
            there = self._folder.names()
            self._folder.touch((r for r in every if r.name in there), self._began_ns)
            self._room = budget - self._cache.used()
            if self._room < 0:  # it was larger before
                self._room = self._cache.make_room(0, budget, self._used_ns)
        except OSError as error:
            self._fail(error)
            return []
        return [record for record in every if record.name not in there]

    def _write(self, record: Record, payload: Sequence[Bytes]) -> bool:
        """Whether more can be written."""
        try:
            if not self._has_room(record.size):
                return False
            record.write(self._folder.path, payload, self._stopped.is_set)
            self._folder.touch([record], self._began_ns)
        except Stopped:
            return False
        except OSError as error:
            self._fail(error)
            return False
        self._room -= record.size
        return True

    def _has_room(self, count: int) -> bool:
        if self._room < count:
            budget = self._cache.budget(self._budget)
            self._room = self._cache.make_room(count, budget, self._used_ns)
        if not self._cache.has_disk_for(count):
            self.trouble = f"{self._cache.path}: the disk is nearly full"
            return False
        return self._room >= count

    def _fail(self, error: OSError) -> None:
        self.trouble = f"{self._cache.path}: {os_reason(error)[0]}"
