"""One file from the hub to its part file, and the checksum of the whole.

Connections fetch spans of missing blocks (`engine.downloads.connections`). A follower reads the
blocks back from disk in order and feeds the checksum of the file; blocks of an earlier run are
compared with their noted digests on the way, so that a flipped bit on disk costs one block. When the
checksum differs although every block is on disk as it came, the bytes were wrong on the way: the file
is read from the server a second time, blocks that differ a third time, and what came twice is kept.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from engine.downloads.block_file import BlockFile, disk_error
from engine.downloads.block_map import HERE, MISSING, BlockMap
from engine.downloads.connections import Connections
from engine.downloads.stage import Stage
from engine.downloads.transfer_options import Meter, TransferOptions
from engine.hub.access import HubAccess
from engine.hub.errors import DamagedDownloadError
from engine.hub.names import HubFile

if TYPE_CHECKING:
    import httpx2

P = ParamSpec("P")
T = TypeVar("T")


class Transfer:
    """Fetches `file` into `part`. `run` once; cancelling it keeps what came."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        access: HubAccess,
        file: HubFile,
        part: Path,
        options: TransferOptions,
        meter: Meter,
    ) -> None:
        self._client, self._access, self._file = client, access, file
        self._part, self._options, self._meter = part, options, meter
        self._disk: BlockFile
        self._map: BlockMap
        self._old: set[int] = set()  # blocks of an earlier run, not yet compared
        self._connections: Connections
        self._syncing: asyncio.Task[None] | None = None
        self._sync_error: OSError | None = None
        self._pool = ThreadPoolExecutor(3, thread_name_prefix="download")

    async def run(self) -> None:
        """Fetch what is missing until the file is whole and matches its checksum; sync it.

        Raises `KtchatError` when that fails for good.
        """
        try:
            url = self._access.file_url(self._file)
            self._disk = BlockFile(self._file, self._part, url, self._options.space)
        except OSError as error:
            raise disk_error(error, self._file.name) from error
        try:
            self._begin()
            await self._complete()
            if self._syncing is not None:
                await self._syncing
            await self._in_thread(self._disk.sync)
            if self._sync_error is not None:
                raise self._sync_error
        except OSError as error:
            raise disk_error(error, self._file.name) from error
        finally:
            if self._syncing is not None:
                self._syncing.cancel()
            self._pool.shutdown(wait=True, cancel_futures=True)  # threads use the open file
            self._disk.close()

    def _begin(self) -> None:
        self._old = set(self._disk.journal.digests)
        self._map = BlockMap(self._disk.blocks, self._old)
        self._meter.done = sum(self._disk.length(number) for number in self._old)
        self._connections = Connections(
            *(self._client, self._access, self._file),
            self._disk,
            self._map,
            self._options,
            self._meter,
        )

    async def _complete(self) -> None:
        if await self._fetch_and_check():
            return
        for mend in (self._drop_damaged_blocks, self._read_again):
            if await mend() and await self._fetch_and_check():
                return
        await self._in_thread(self._disk.restart)
        self._meter.done = 0
        raise DamagedDownloadError(
            f"{self._file.name} does not match its checksum",
            "The server sends other bytes than the hub lists",
            "Nothing of it was kept; try again later or choose another repository",
        )

    async def _fetch_and_check(self) -> bool:
        """Fetch the missing blocks while they are followed; whether the checksum matches."""
        return await self._connections.feed(self._store, self._follow()) == self._file.checksum

    # What is here

    async def _follow(self) -> str:
        """Read every block back in order as soon as it is here; the checksum of the file."""
        kind, _, _ = self._file.checksum.partition(":")
        whole = hashlib.sha256() if kind == "sha256" else hashlib.sha1(usedforsecurity=False)
        if kind != "sha256":  # git's name for the content
            whole.update(f"blob {self._file.size}\0".encode())
        number = 0
        while number < self._disk.blocks:
            if self._map[number] != HERE:
                await self._map.change()
                continue
            if not self._map.left:
                self._meter.stage = Stage.CHECKING
            if await self._in_thread(self._feed, whole.update, number):
                number += 1
            else:
                self._forget([number])
        return f"{kind}:{whole.hexdigest()}"

    def _feed(self, update: Callable[[bytes], None], number: int) -> bool:
        """Add a block to the checksum unless it is an old one and damaged. In a thread."""
        data = self._disk.read(number)
        if number in self._old:
            self._old.discard(number)
            if not self._disk.is_as_noted(number, data):
                return False
        update(data)
        return True

    def _forget(self, numbers: list[int]) -> None:
        for number in numbers:
            self._disk.journal.drop(number)
            self._map.mark(number, MISSING)
            self._meter.done -= self._disk.length(number)
            self._meter.lost += self._disk.length(number)

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))

    # Mending

    async def _drop_damaged_blocks(self) -> bool:
        """Forget blocks that changed on disk since they came; whether there are any."""
        damaged = await self._in_thread(self._disk.damaged)
        self._forget(damaged)
        return bool(damaged)

    async def _read_again(self) -> bool:
        """Read the file from the server again and settle the blocks that differ; whether any do."""
        self._meter.stage = Stage.REPAIRING
        suspects: list[int] = []

        async def compare(number: int, data: bytes) -> None:
            if not await self._in_thread(self._disk.is_as_noted, number, data):
                suspects.append(number)
            self._map.mark(number, HERE)

        async def settle(number: int, data: bytes) -> None:
            if not await self._in_thread(self._disk.is_as_noted, number, data):
                await self._in_thread(self._disk.write, number, data)
                self._meter.lost += len(data)
            self._map.mark(number, HERE)

        for sink, numbers in ((compare, range(self._disk.blocks)), (settle, suspects)):
            for number in numbers:
                self._map.mark(number, MISSING)
            await self._connections.feed(sink, self._until_all_here())
        return bool(suspects)

    async def _until_all_here(self) -> None:
        while self._map.left:
            await self._map.change()

    async def _store(self, number: int, data: bytes) -> None:
        await self._in_thread(self._disk.write, number, data)
        self._meter.done += len(data)
        self._map.mark(number, HERE)
        if self._sync_error is not None:
            raise self._sync_error
        if self._disk.sync_is_due and (self._syncing is None or self._syncing.done()):
            self._syncing = asyncio.create_task(self._sync_aside())

    async def _sync_aside(self) -> None:
        """While blocks go on coming. The system tells of a failure once: it is remembered."""
        try:
            await self._in_thread(self._disk.sync)
        except OSError as error:
            self._sync_error = error
