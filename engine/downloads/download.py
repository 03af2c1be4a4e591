"""One model from the hub into the models folder: its files one after another, each checked.

A file gets its final name only when it is whole and matches its checksum. `Download.run` belongs to
an event loop; cancelling it keeps what came, and running it again goes on there.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.common.units import byte_size
from engine.common.whole_files import sync_folder
from engine.downloads import manifest
from engine.downloads.block_file import BLOCKS, JOURNAL, PART, disk_error
from engine.downloads.integrity import (
    RECORD,
    checksum_of,
    is_unchanged,
    record_of,
    remove_empty_folders,
    write_record,
)
from engine.downloads.journal import bytes_kept
from engine.downloads.stage import Stage
from engine.downloads.transfer import Transfer
from engine.downloads.transfer_options import Meter, TransferOptions
from engine.errors import KtchatError
from engine.hub.access import HubAccess, opened
from engine.hub.errors import DiskShortError, DownloadError, HubOfflineError
from engine.hub.names import HubFile, HubModel

INTERVAL = 0.2
"""Seconds between two reports."""
WINDOW = 5.0
"""Seconds over which the speed is taken."""


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """How far the download of one model is."""

    key: str
    """Names the download: `owner/repo:label`."""
    stage: Stage
    done: int
    """Bytes on disk."""
    total: int
    path: str
    """Where the model's first file will be."""
    speed: float = 0.0
    """Bytes a second over the last seconds."""
    seconds_left: float | None = None
    error: KtchatError | None = None
    """Why it failed, or why it waits."""

    @property
    def is_active(self) -> bool:
        """Whether it runs or waits for its turn."""
        return self.stage.is_active


Report = Callable[[DownloadProgress], None]


class Download:
    """The download of `model` into the models folder `folder`."""

    def __init__(
        self,
        access: HubAccess,
        model: HubModel,
        folder: Path,
        options: TransferOptions | None = None,
    ) -> None:
        self.model = model
        self.key = model.spec
        self.paths = [manifest.target(folder, file) for file in model.files]
        self._access, self._folder = access, folder
        self._options = options or TransferOptions()
        self._manifest = manifest.manifest_path(folder, model)
        self._meter = Meter()
        self._before = 0  # bytes of the files that are finished
        self._speed = _Speed()

    @property
    def received(self) -> int:
        """Bytes that came over the network in this run."""
        return self._meter.received

    def progress(
        self, stage: Stage | None = None, error: KtchatError | None = None
    ) -> DownloadProgress:
        """How far it is now; `stage` replaces the transfer's own."""
        meter = self._meter
        done = min(self._before + meter.done, self.model.size)
        speed = self._speed.update(meter.received) if stage is None else 0.0
        left = self.model.size - done
        return DownloadProgress(
            key=self.key,
            stage=stage or meter.stage,
            done=done,
            total=self.model.size,
            path=str(self.paths[0]),
            speed=speed,
            seconds_left=left / speed if speed > 1 and left else None,
            error=error or (meter.trouble if meter.stage is Stage.WAITING else None),
        )

    def measure(self) -> None:
        """Find how much is on disk already. Blocks shortly."""
        self._before = sum(
            file.size if self._is_finished(file, path) else bytes_kept(Path(f"{path}{JOURNAL}"))
            for file, path in zip(self.model.files, self.paths, strict=True)
        )
        self._meter = Meter()

    async def run(self, report: Report = lambda progress: None) -> Path:
        """Download what is missing; the path of the model's first file.

        Raises `KtchatError`; what came is kept then, unless the words say otherwise.
        """
        if self._access.offline:
            raise HubOfflineError("Nothing is downloaded", "HF_HUB_OFFLINE is set", "Unset it")
        manifest.make_folder(self._folder, self.paths[0].parent)
        ticker = asyncio.create_task(self._tick(report))
        try:
            with manifest.held(self._manifest):
                self.check_space()
                manifest.write(self._manifest, self.model)
                await self._all_files()
                manifest.remove(self._manifest)
        except OSError as error:
            raise disk_error(error, self.paths[0].name) from error
        finally:
            ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticker
        report(self.progress(Stage.DONE))
        return self.paths[0]

    async def _tick(self, report: Report) -> None:
        while True:
            report(self.progress())
            await asyncio.sleep(INTERVAL)

    async def _all_files(self) -> None:
        import httpx2

        limits = httpx2.Limits(max_connections=self._options.connections + 1)
        timeout = httpx2.Timeout(self._options.timeout)
        self._before = 0
        async with opened(lambda: httpx2.AsyncClient(timeout=timeout, limits=limits)) as client:
            # The first part comes last: a split model is listed by it, and only when it is whole.
            for file, path in reversed([*zip(self.model.files, self.paths, strict=True)]):
                self._meter.done = 0
                if not self._is_finished(file, path):
                    await self._one_file(client, file, path)
                self._meter.done = 0
                self._before += file.size

    async def _one_file(self, client: object, file: HubFile, path: Path) -> None:
        import httpx2

        assert isinstance(client, httpx2.AsyncClient)
        manifest.make_folder(self._folder, path.parent)
        if path.is_dir():
            raise DownloadError(f"{path.name} is a folder", str(path), "Move it away")
        part, journal = Path(f"{path}{PART}"), Path(f"{path}{JOURNAL}")
        if not part.exists() and path.is_file() and await self._reuse(file, path):
            return
        await Transfer(client, self._access, file, part, self._options, self._meter).run()
        Path(f"{path}{RECORD}").unlink(missing_ok=True)
        part.replace(path)
        journal.replace(f"{path}{BLOCKS}")
        sync_folder(path.parent)
        write_record(path, file.checksum, file)

    async def _reuse(self, file: HubFile, path: Path) -> bool:
        """Whether the file that is there already is the wanted one.

        A damaged one with known blocks becomes the part file, so that only its damage is fetched.
        """
        record, blocks = record_of(path), Path(f"{path}{BLOCKS}")
        if path.stat().st_size != file.size or path.is_symlink():
            return False
        if record is not None and record.checksum != file.checksum:
            return False  # another version; a running engine may have it mapped
        self._meter.stage = Stage.CHECKING
        kind = file.checksum.partition(":")[0]
        if await asyncio.to_thread(checksum_of, path, kind) == file.checksum:
            write_record(path, file.checksum, file)
            return True
        if record is not None and blocks.is_file():
            path.replace(f"{path}{PART}")
            blocks.replace(f"{path}{JOURNAL}")
        return False

    def _is_finished(self, file: HubFile, path: Path) -> bool:
        record = record_of(path)
        return (
            record is not None and record.checksum == file.checksum and is_unchanged(path, record)
        )

    def check_space(self) -> None:
        """Raises `DiskShortError` when what is missing does not fit on the disk."""
        self.measure()
        missing = self.model.size - self._before
        space = self._options.space(_existing(self._folder))
        if missing > space:
            raise DiskShortError(
                f"The disk has too little space for {self.key}",
                f"{byte_size(missing)} are missing and {byte_size(space)} may be used",
                f"Free {byte_size(missing - space)}, or set KTCHAT_HOME to another disk",
            )

    def discard(self) -> None:
        """Remove everything of this download that is not finished.

        Raises `DownloadBusyError` while some program downloads it, or another `KtchatError`.
        """
        if not self._manifest.parent.is_dir():
            return
        try:
            with manifest.held(self._manifest):
                for path in self.paths:
                    for ending in (PART, JOURNAL):
                        Path(f"{path}{ending}").unlink(missing_ok=True)
                manifest.remove(self._manifest)
            for path in self.paths:
                remove_empty_folders(path.parent, self._folder)
        except OSError as error:
            raise disk_error(error, self.paths[0].name) from error


class _Speed:
    """Bytes a second over the last seconds."""

    def __init__(self) -> None:
        self._marks: collections.deque[tuple[float, int]] = collections.deque()

    def update(self, received: int) -> float:
        now = time.monotonic()
        self._marks.append((now, received))
        while now - self._marks[0][0] > WINDOW:
            self._marks.popleft()
        since, before = self._marks[0]
        return (received - before) / (now - since) if now - since > 0.1 else 0.0


def _existing(folder: Path) -> Path:
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder
