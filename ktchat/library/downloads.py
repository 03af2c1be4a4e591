"""The one download queue of the running program, and its progress in words.

It goes on while screens open and close. Everything heavy is imported by `start`, which blocks
shortly: call it in a thread. Before `start` nothing is listed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from engine.common.units import byte_size, duration
from engine.downloads.stage import Stage
from ktchat.common.text import one_line
from ktchat.library.mirrors import Mirrors

if TYPE_CHECKING:
    from engine.downloads.download import DownloadProgress
    from engine.downloads.queue import DownloadQueue
    from engine.hub.client import Hub
    from engine.hub.names import HubModel


class Downloads:
    """Downloads into the models folder `folder`. Methods may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._queue: DownloadQueue | None = None
        self._hub: Hub | None = None
        self._closed = False
        self.mirrors = Mirrors()

    @property
    def hub(self) -> Hub:
        """The hub that models come from. Imports what asks it: for a thread."""
        with self._lock:
            return self._open_hub()

    def _open_hub(self) -> Hub:
        if self._hub is None:
            from engine.hub.client import Hub

            self._hub = Hub(says=self.mirrors.says)
        return self._hub

    def mirror_to_ask(self) -> str:
        """The mirror that would get the person's token and was not asked about; empty: none. For a thread."""
        endpoint = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/")
        if not endpoint:
            return ""
        from engine.errors import KtchatError
        from engine.hub.errors import TokenUnaskedError

        try:
            _ = self.hub.access
        except TokenUnaskedError:
            return endpoint
        except KtchatError:  # told of where the hub is asked
            return ""
        return ""

    def start(self) -> DownloadQueue:
        """Start the queue, once, and list what an earlier run left. Blocks: for a thread."""
        with self._lock:
            if self._queue is None:
                from engine.downloads.queue import DownloadQueue

                self._queue = DownloadQueue(self.folder, self._open_hub())
                self._queue.start()
                if self._closed:
                    self._queue.close()
            return self._queue

    def add(self, model: HubModel) -> str:
        """Queue a model; its key. Blocks shortly: for a thread."""
        return self.start().add(model)

    def pause(self, key: str) -> None:
        """Stop a download and keep what came."""
        if self._queue is not None:
            self._queue.pause(key)

    def resume(self, key: str) -> None:
        """Go on with a download that was paused or failed."""
        if self._queue is not None:
            self._queue.resume(key)

    def cancel(self, key: str) -> None:
        """Stop a download and delete what came of it."""
        if self._queue is not None:
            self._queue.cancel(key)

    def forget(self, key: str) -> None:
        """Take a finished download from the list."""
        if self._queue is not None:
            self._queue.forget(key)

    def states(self) -> tuple[DownloadProgress, ...]:
        """All downloads, in the order in which they were added."""
        return self._queue.states() if self._queue is not None else ()

    def state(self, key: str) -> DownloadProgress | None:
        """One download; None when it is not in the list."""
        return next((state for state in self.states() if state.key == key), None)

    async def events(self) -> AsyncIterator[DownloadProgress]:
        """Every change from now on; the queue must have been started."""
        assert self._queue is not None
        async for progress in self._queue.events():
            yield progress

    def close(self) -> None:
        """Stop everything, keeping what came. Blocks for up to some seconds."""
        with self._lock:
            self._closed = True
            if self._queue is not None:
                self._queue.close()


# Words.


def title(key: str) -> str:
    """A download's name in few words, safe to draw: `Qwen3-30B-A3B Q4_K_M`."""
    repo, _, label = key.partition(":")
    name = repo.rpartition("/")[2]
    for ending in ("-GGUF", "-gguf"):
        name = name.removesuffix(ending)
    return one_line(f"{name} {label}".strip(), 80)


def percent(progress: DownloadProgress) -> str:
    """`42 %`; 100 % only when everything is there."""
    share = 100 * progress.done // progress.total if progress.total else 0
    return f"{min(share, 99 if progress.done < progress.total else 100)} %"


def status_line(states: Iterable[DownloadProgress]) -> str:
    """What goes on, in one short line; empty when nothing does."""
    active = [state for state in states if state.is_active]
    running = [state for state in active if state.stage is not Stage.QUEUED] or active
    if not running:
        return ""
    first = running[0]
    name = title(first.key).partition(" ")[0]
    if first.stage is Stage.WAITING:
        line = f"the download of {name} waits at {percent(first)}"
    else:
        line = f"downloading {name} {percent(first)}"
    return f"{line} · {len(active) - 1} more" if len(active) > 1 else line


def stage_words(progress: DownloadProgress) -> str:
    """What a download does and how fast: `52.0 MB/s · 5 min 1 s left`; safe to draw."""
    error = progress.error
    if progress.stage is Stage.FAILED:
        return one_line(str(error), 400) if error is not None else "failed"
    if progress.stage is Stage.WAITING and error is not None:
        return f"waiting: {one_line(error.why or error.what, 200)}"
    if progress.stage is not Stage.DOWNLOADING:
        return _STAGES.get(progress.stage, progress.stage)
    if not progress.speed:
        return "downloading"
    words = f"{byte_size(round(progress.speed))}/s"
    if progress.seconds_left is not None:
        words += f" · {duration(progress.seconds_left)} left"
    return words


_STAGES = {
    Stage.QUEUED: "waits for its turn",
    Stage.STARTING: "asking the hub",
    Stage.CHECKING: "checking the checksum",
    Stage.REPAIRING: "mending what is damaged",
    Stage.DONE: "here, checksum is right",
}
