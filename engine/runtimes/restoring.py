"""A sequence brought back from the disk: the longest prefix of a prompt that is whole there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from engine.disk_cache.chain import Chain, Layout
from engine.disk_cache.folder import ModelFolder
from engine.disk_cache.record import Bytes, Record
from engine.model.host_copies import HostCopies
from engine.runtimes.prefix_cache import PrefixCache
from engine.runtimes.snapshots import CachedSequence

READERS = 2
"""Threads that read and check files."""
AHEAD = 4
"""Files read while one is put into its place."""

Report = Callable[[int], bool]
"""Called with the tokens that are there; False: no more is wanted."""


class Target(NamedTuple):
    """Where a sequence is to go on."""

    position: int
    end: bool
    """An end is read, behind the whole pages; else the last page may be used in part."""
    logits: bool = False


class Restorer:
    """Reads what `folder` holds into the cache of a runtime, in the thread that owns that."""

    def __init__(
        self, folder: ModelFolder, layout: Layout, prefixes: PrefixCache, copies: HostCopies
    ) -> None:
        self._folder, self._layout = folder, layout
        self._prefixes, self._copies = prefixes, copies

    def restore(self, sequence: CachedSequence, tokens: Sequence[int], report: Report) -> int:
        """Lengthen the current `sequence` to the longest prefix of `tokens` on the disk; by how many tokens.

        At least the last token is left out, since its logits are wanted, unless those are kept. What proves to
        be no sound record is as if it were not there.
        """
        before = len(sequence.tokens)
        search = _Search(self._folder, Chain(self._layout, tokens))
        while (target := search.furthest(len(sequence.tokens))) is not None:
            if not self._load(sequence, search, target, report):
                break
        return len(sequence.tokens) - before

    def _load(
        self, sequence: CachedSequence, search: _Search, target: Target, report: Report
    ) -> bool:
        """To the target if all is sound, else as far as is of use; False: no more is wanted."""
        size, position = self._layout.page_size, target.position
        have = len(sequence.tokens)
        last = position // size if target.end else -(-position // size)
        pages = [search.chain.page(number) for number in range(have // size, last)]
        self._prefixes.reserve(sequence, position - have)
        for page, data in zip(pages, _read_ahead(self._folder, pages), strict=True):
            if data is None:
                search.broken.add(page.name)
                return True
            self._copies.write_page(sequence.pages[page.position // size], data)
            there = min(page.end, position)
            if not self._layout.keeps_state:
                sequence.tokens.extend(search.chain.tokens[len(sequence.tokens) : there])
            if not report(there):
                return False
        return not target.end or self._load_end(sequence, search, target)

    def _load_end(self, sequence: CachedSequence, search: _Search, target: Target) -> bool:
        position, chain = target.position, search.chain
        logits = None
        if target.logits:
            logits = search.read(chain.logits(position))
            if logits is None:
                return True
        data = search.read(chain.end(position))
        if data is None:
            return True
        if rest := len(data) - self._layout.state_bytes(position):
            self._copies.write_page(sequence.pages[position // self._layout.page_size], data[:rest])
        if not self._layout.keeps_state:
            sequence.tokens.extend(chain.tokens[len(sequence.tokens) : position])
            return True
        return self._prefixes.adopt(
            sequence,
            list(chain.tokens[:position]),
            lambda slot: self._copies.write_state(slot, position, data[rest:]),
            None if logits is None else logits.view(np.float32),
        )


class _Search:
    """How far the files that are there reach, for one prompt."""

    def __init__(self, folder: ModelFolder, chain: Chain) -> None:
        self.chain = chain
        self.broken: set[str] = set()
        """Files that proved not to be sound, and may not have let themselves be removed."""
        self._folder, self._layout = folder, chain.layout
        self._states: set[str] | None = None

    def read(self, record: Record) -> Bytes | None:
        """The payload; None where the file proves not to be sound."""
        data = record.read(self._folder.path)
        if data is None:
            self.broken.add(record.name)
        return data

    def furthest(self, have: int) -> Target | None:
        """The furthest position behind `have` that can be restored; None: there is none."""
        size, count = self._layout.page_size, len(self.chain.tokens)
        pages = have // size
        while (pages + 1) * size <= count and self._has(self.chain.page(pages)):
            pages += 1
        behind = range(min(count, pages * size + size - 1), have, -1)
        if self._layout.keeps_state:
            return next(filter(None, map(self._with_state, behind)), None)
        ends = (at for at in behind if pages * size < at < count)
        for position in ends:
            if self._has(self.chain.end(position)):
                return Target(position, end=True)
        position = min(pages * size, count - 1)
        return Target(position, end=False) if position > have else None

    def _with_state(self, position: int) -> Target | None:
        if self._states is None:
            self._states = {name for name in self._folder.names() if name.endswith(".end")}
        name = self.chain.end(position).name if self._states else ""
        if name not in self._states or name in self.broken:
            return None
        logits = self._has(self.chain.logits(position))
        if position == len(self.chain.tokens) and not logits:
            return None
        return Target(position, end=True, logits=logits)

    def _has(self, record: Record) -> bool:
        return record.name not in self.broken and self._folder.has(record)


def _read_ahead(folder: ModelFolder, records: Sequence[Record]) -> Iterator[Bytes | None]:
    """The payload of each, read by threads some records ahead."""
    with ThreadPoolExecutor(READERS, "kv-read") as readers:
        waiting: deque[Future[Bytes | None]] = deque()
        for record in records:
            waiting.append(readers.submit(record.read, folder.path))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
