"""The downloads of a running program: a queue that goes on in a thread of its own.

The thread has its own event loop, so that the screen's never waits for networks or disks. All methods
may be called from any thread and return at once. Downloads that an earlier run of the program left
are in the list from the start, paused.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path

from engine.downloads import manifest
from engine.downloads.download import Download, DownloadProgress
from engine.downloads.stage import Stage
from engine.downloads.transfer_options import TransferOptions
from engine.errors import KtchatError
from engine.hub.access import HubAccess
from engine.hub.client import Hub
from engine.hub.errors import DownloadError
from engine.hub.names import HubModel

PATIENT = TransferOptions(outage_attempts=120)
"""A program that runs on waits for about an hour until the network is back."""

Listener = Callable[[DownloadProgress], None]


class Ending(Enum):
    """What becomes of a download that is stopped."""

    PAUSE = auto()
    REMOVE = auto()
    """From the list; what came stays on the disk."""
    DISCARD = auto()
    """From the list and from the disk."""


@dataclass(slots=True)
class _Item:
    """A download in the list."""

    model: HubModel
    progress: DownloadProgress
    download: Download | None = None
    task: asyncio.Task[None] | None = None
    ending: Ending = Ending.PAUSE
    """What becomes of it when its task ends early."""


class DownloadQueue:
    """Downloads into `folder`, at most `active` at once. `start` before use, `close` at the end."""

    def __init__(
        self,
        folder: Path,
        hub: Hub | None = None,
        options: TransferOptions = PATIENT,
        active: int = 1,
    ) -> None:
        self._folder, self._hub = folder, hub or Hub()
        self._options, self._active = options, active
        self._lock = threading.Lock()
        self._items: dict[str, _Item] = {}
        self._listeners: list[Listener] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="downloads", daemon=True)

    def start(self) -> None:
        """Start the thread and list what an earlier run left. Reads the models folder."""
        for left in manifest.unfinished(self._folder):
            self._add(left.model, Stage.PAUSED)
        self._thread.start()

    def close(self, seconds: float = 3.0) -> None:
        """Stop everything, keeping what came; downloads are paused in the next run."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop)
            self._thread.join(seconds)

    def add(self, model: HubModel) -> str:
        """Queue a model (again); its key. One that runs or is queued already stays as it is."""
        with self._lock:
            item = self._items.get(model.spec)
            if item is not None and item.progress.is_active:
                return model.spec
        self._add(model, Stage.QUEUED)
        self._call(self._begin_next)
        return model.spec

    def pause(self, key: str) -> None:
        """Stop a download and keep what came."""
        self._call(lambda: self._end(key, Ending.PAUSE))

    def resume(self, key: str) -> None:
        """Go on with a download that was paused or failed."""
        self._call(lambda: self._resume(key))

    def cancel(self, key: str, keep: bool = False) -> None:
        """Stop a download and remove it from the list, and from the disk unless `keep`."""
        self._call(lambda: self._end(key, Ending.REMOVE if keep else Ending.DISCARD))

    def forget(self, key: str) -> None:
        """Remove a finished or cancelled download from the list; files stay."""
        with self._lock:
            item = self._items.get(key)
            if item is not None and item.progress.stage in (Stage.DONE, Stage.CANCELLED):
                del self._items[key]

    def states(self) -> tuple[DownloadProgress, ...]:
        """All downloads, in the order in which they were added."""
        with self._lock:
            return tuple(item.progress for item in self._items.values())

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` in the queue's thread at every change; what ends that."""
        with self._lock:
            self._listeners.append(listener)

        def end() -> None:
            with self._lock, contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return end

    async def events(self) -> AsyncIterator[DownloadProgress]:
        """Every change from now on, for one reader in its own event loop; of a slow one the
        latest of each download."""
        loop = asyncio.get_running_loop()
        latest: dict[str, DownloadProgress] = {}
        arrived = asyncio.Event()

        def put(progress: DownloadProgress) -> None:
            latest[progress.key] = progress
            arrived.set()

        def listener(progress: DownloadProgress) -> None:
            with contextlib.suppress(RuntimeError):  # the reader's loop may have ended
                loop.call_soon_threadsafe(put, progress)

        end = self.listen(listener)
        try:
            while True:
                await arrived.wait()
                arrived.clear()
                while latest:
                    yield latest.pop(next(iter(latest)))
        finally:
            end()

    # In the queue's thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks, timeout=2.0))
        self._loop.close()

    def _stop(self) -> None:
        self._loop.stop()

    def _call(self, function: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # closed
            self._loop.call_soon_threadsafe(function)

    def _add(self, model: HubModel, stage: Stage) -> None:
        download = Download(HubAccess(), model, self._folder)
        download.measure()
        progress = download.progress(stage)
        with self._lock:
            self._items.pop(model.spec, None)
            self._items[model.spec] = _Item(model, progress)
        self._call(lambda: self._tell(model.spec, progress))

    def _resume(self, key: str) -> None:
        item = self._items.get(key)
        if item is not None and item.progress.stage in (Stage.PAUSED, Stage.FAILED):
            self._tell(key, replace(item.progress, stage=Stage.QUEUED, error=None))
            self._begin_next()

    def _begin_next(self) -> None:
        running = sum(item.task is not None for item in self._items.values())
        for key, item in list(self._items.items()):
            if running >= self._active:
                return
            if item.progress.stage is Stage.QUEUED and item.task is None:
                item.ending = Ending.PAUSE
                item.task = self._loop.create_task(self._download(key, item))
                item.task.add_done_callback(functools.partial(self._ended, key, item))
                running += 1

    async def _download(self, key: str, item: _Item) -> None:
        access = await asyncio.to_thread(lambda: self._hub.access)
        item.download = Download(access, item.model, self._folder, self._options)
        self._tell(key, replace(item.progress, stage=Stage.STARTING))
        await item.download.run(lambda progress: self._tell(key, progress))

    def _ended(self, key: str, item: _Item, task: asyncio.Task[None]) -> None:
        """A task ended, perhaps before it began."""
        item.task = None
        error = None if task.cancelled() else task.exception()
        if task.cancelled() and item.ending is not Ending.PAUSE:
            self._remove(key, item, item.ending)
        elif task.cancelled():
            self._tell(key, self._last(item, Stage.PAUSED, None))
        elif error is not None:  # the thread's boundary: one download must not end the queue
            if not isinstance(error, KtchatError):
                error = DownloadError(f"{key} failed", type(error).__name__, "Resume it")
            self._tell(key, self._last(item, Stage.FAILED, error))
        if self._loop.is_running():
            self._begin_next()

    def _last(self, item: _Item, stage: Stage, error: KtchatError | None) -> DownloadProgress:
        if item.download is not None:
            return item.download.progress(stage, error)
        return replace(item.progress, stage=stage, error=error)

    def _end(self, key: str, ending: Ending) -> None:
        item = self._items.get(key)
        if item is None or item.progress.stage in (Stage.DONE, Stage.CANCELLED):
            return
        item.ending = ending
        if item.task is not None:
            item.task.cancel()
        elif ending is Ending.PAUSE:
            self._tell(key, replace(item.progress, stage=Stage.PAUSED))
        else:
            self._remove(key, item, ending)

    def _remove(self, key: str, item: _Item, ending: Ending) -> None:
        error: KtchatError | None = None
        if ending is Ending.DISCARD:
            try:
                Download(HubAccess(), item.model, self._folder).discard()
            except KtchatError as problem:
                error = problem
        gone = replace(
            item.progress, stage=Stage.CANCELLED, speed=0.0, seconds_left=None, error=error
        )
        self._tell(key, gone)
        with self._lock:
            self._items.pop(key, None)

    def _tell(self, key: str, progress: DownloadProgress) -> None:
        with self._lock:
            item = self._items.get(key)
            if item is not None:
                item.progress = progress
            listeners = list(self._listeners)
        for listener in listeners:
            listener(progress)
