"""Connections that fetch a file's missing blocks, each a span of blocks at a time.

A connection that breaks tries again, with growing waits. A server that ignores ranges is read from the
start by one connection.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from engine.downloads.block_file import BlockFile
from engine.downloads.block_map import BlockMap
from engine.downloads.stage import Stage
from engine.downloads.transfer_options import Meter, TransferOptions
from engine.hub.access import HubAccess, RetryableError
from engine.hub.errors import HubNetworkError
from engine.hub.names import HubFile
from engine.hub.ranges import Answer, open_range

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")
Sink = Callable[[int, bytes], Awaitable[None]]
"""Takes a block that came: its number and bytes."""

MANY_CONNECTIONS = 64 << 20
"""Files smaller than this get one connection."""
SPAN = 256 << 20
"""Bytes asked for in one request, at most."""
MAX_NEW_ETAGS = 8


class Connections:
    """Fetches what `blocks` says is missing of `file`; `disk` knows the blocks' sizes and the ETag."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        access: HubAccess,
        file: HubFile,
        disk: BlockFile,
        blocks: BlockMap,
        options: TransferOptions,
        meter: Meter,
    ) -> None:
        self._client, self._access, self._file = client, access, file
        self._disk, self._map, self._options, self._meter = disk, blocks, options, meter
        many = file.size >= MANY_CONNECTIONS
        self._connections = max(1, options.connections) if many else 1
        self._active = 0  # of them, at work
        self._whole_files_only = False  # the server ignores ranges
        self._new_etags = 0

    async def feed(self, sink: Sink, work: Awaitable[T]) -> T:
        """Do `work` while missing blocks are fetched and given to `sink`; what `work` returns."""
        finished = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._connections):
                    group.create_task(self._connection(sink, finished))
                result = await work
                finished.set()
                self._map.wake()
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        return result

    async def _connection(self, sink: Sink, finished: asyncio.Event) -> None:
        """Fetch span after span; waits for blocks that are to come again."""
        failures = 0
        while not finished.is_set():
            span = None if self._whole_files_only and self._active else self._take()
            if span is None:
                await self._map.change()
                continue
            left = self._map.left
            self._active += 1
            try:
                await self._fetch(span, sink)
                failures = 0
            except RetryableError as error:
                failures = failures + 1 if self._map.left == left else 1
                is_outage = isinstance(error.error, HubNetworkError)
                options = self._options
                if failures >= (options.outage_attempts if is_outage else options.attempts):
                    raise error.error from None
                await self._wait_before_retry(error, failures)
            finally:
                self._active -= 1
                self._map.wake()

    def _take(self) -> range | None:
        """The next missing blocks, for one request."""
        shares = 2 * self._connections if self._connections > 1 else 1
        return self._map.take(min(-(-self._disk.blocks // shares), SPAN // self._disk.block))

    async def _fetch(self, span: range, sink: Sink) -> None:
        mine = set(span)
        start = span.start * self._disk.block
        end = min(span.stop * self._disk.block, self._file.size)
        etag = self._disk.journal.etag
        try:
            async with open_range(
                self._client, self._access, self._file, start, end, etag
            ) as answer:
                if self._is_useful(answer, start, etag):
                    await self._read(answer, mine, sink)
        finally:
            self._map.release(mine)

    def _is_useful(self, answer: Answer, start: int, etag: str) -> bool:
        """Whether to read the answer; not when a better one is to be had."""
        journal = self._disk.journal
        if answer.etag:
            journal.set_etag(answer.etag)
        if answer.start == start:
            return True
        if etag and answer.etag and answer.etag != etag and self._new_etags < MAX_NEW_ETAGS:
            self._new_etags += 1
            return False  # If-Range did not hold; the content is pinned, so ask for the part again
        others = self._whole_files_only and self._active > 1
        self._whole_files_only = True
        return not others

    async def _read(self, answer: Answer, mine: set[int], sink: Sink) -> None:
        number = answer.start // self._disk.block
        data = bytearray()
        self._meter.trouble = None
        async for piece in answer.response.aiter_raw():
            if self._meter.stage is not Stage.REPAIRING:
                self._meter.stage = Stage.DOWNLOADING
            self._meter.received += len(piece)
            data += piece
            while number < self._disk.blocks and len(data) >= self._disk.length(number):
                length = self._disk.length(number)
                if self._map.claim(number, mine):
                    await sink(number, bytes(data[:length]))
                del data[:length]
                number += 1
            if number * self._disk.block >= answer.end:
                return
        raise RetryableError(
            HubNetworkError("The connection broke", "", "Check the network; what came is kept")
        )

    async def _wait_before_retry(self, error: RetryableError, failures: int) -> None:
        longest = min(self._options.backoff * 2 ** (failures - 1), self._options.longest_wait)
        wait = max(error.wait, longest * random.uniform(0.5, 1.0))
        if error.wait > self._options.patience:
            raise error.error
        self._meter.stage, self._meter.trouble = Stage.WAITING, error.error
        await asyncio.sleep(wait)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
