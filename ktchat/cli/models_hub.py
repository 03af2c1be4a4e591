"""`ktchat models search|pull`: finds models on the hub and downloads them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import itertools
import json
import shutil
import signal
import sys
import time
from collections.abc import Coroutine
from typing import Any

from engine.common.cells import ljust, rjust, shorten
from engine.common.units import byte_size, duration, short_count
from engine.downloads.download import Download, DownloadProgress
from engine.downloads.stage import Stage
from engine.errors import KtchatError
from engine.hub.client import Hub, SearchHit
from engine.machine.types import Hardware
from ktchat.cli import background, output
from ktchat.common import paths
from ktchat.common.errors import UsageError
from ktchat.common.text import one_line
from ktchat.library import plans, versions
from ktchat.library.mirrors import open_hub

PLAIN_INTERVAL = 10.0
"""Seconds between two lines of progress where there is no terminal."""
BAR = 24


def main(args: argparse.Namespace) -> int:
    """Run one action; returns the exit code."""
    return _ACTIONS[args.action](args, open_hub(args.send_token))


# search


def _search(args: argparse.Namespace, hub: Hub) -> int:
    if args.limit < 1:
        raise UsageError(f"{args.limit} results are not possible")
    query = " ".join(args.query)
    hits = background.run(lambda report: hub.search(query, args.limit))
    hardware = plans.machine(measure=False)
    choices = background.run(
        lambda report: [_look(hub, hit, hardware) for hit in hits[: versions.LOOKED_AT]]
    )
    rows = list(itertools.zip_longest(hits, choices))
    if args.json:
        output.line(json.dumps([_hit_as_json(hit, choice) for hit, choice in rows], indent=2))
        return 0
    for hit, choice in rows:
        gated = "  gated" if hit.gated else ""
        downloads = f"{short_count(hit.downloads)} downloads"
        label, size, fit = _proposal(choice)
        note = choice.versions[choice.best].note if choice is not None else ""
        output.line(
            f"{ljust(one_line(hit.repo, 80), 44)}  {ljust(shorten(one_line(hit.architecture), 11), 11)}  {rjust(downloads, 14)}"
            f"  {ljust(label, 10)}  {byte_size(size) if size else '':>8}  {fit}{gated}  {note}".rstrip()
        )
    if not hits:
        output.line("Nothing found.")
    return 0


def _look(hub: Hub, hit: SearchHit, hardware: Hardware) -> versions.HubChoice | None:
    """What a repository has for this machine; None when it cannot be listed."""
    choice = versions.HubChoice(hit.repo, hardware, hub)
    try:
        choice.open()
    except KtchatError:
        return None
    return choice


def _proposal(choice: versions.HubChoice | None) -> tuple[str, int, str]:
    """The version that suits the machine, its bytes, and its fit in words."""
    if choice is None:
        return "", 0, ""
    version = choice.versions[choice.best]
    return version.label, version.size, versions.rough_fit(version.size, choice.hardware)


def _hit_as_json(hit: SearchHit, choice: versions.HubChoice | None) -> dict[str, Any]:
    label, size, fit = _proposal(choice)
    return {**dataclasses.asdict(hit), "proposed": label, "size": size, "fit": fit}


# pull


def _pull(args: argparse.Namespace, hub: Hub) -> int:
    hardware = plans.machine(measure=False)
    wanted = versions.hub_name(args.spec, hardware)
    model = background.run(
        lambda report: hub.find(wanted, lambda model: versions.fits(model.size, hardware))
    )
    download = Download(hub.access, model, paths.models_folder())
    download.measure()
    show = _Json() if args.json else _Line() if output.is_terminal(sys.stderr) else _Plain()
    show.begin(download.progress())
    try:
        asyncio.run(_until_interrupted(download.run(show.draw)))
    except asyncio.CancelledError:
        show.end()
        _say_how_to_resume(download)
        raise KeyboardInterrupt from None
    except KtchatError:
        show.end()
        raise
    show.end()
    if not args.json:
        output.line(one_line(str(download.paths[0]), 1000))
    return 0


async def _until_interrupted(work: Coroutine[Any, Any, object]) -> None:
    """Do `work`; the first Ctrl-C cancels it, between two steps of it, and later ones do nothing."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    came = False

    def cancel(number: int, frame: object) -> None:
        nonlocal came
        if not came:
            came = True
            with contextlib.suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(task.cancel)

    before = signal.signal(signal.SIGINT, cancel)
    await task
    signal.signal(signal.SIGINT, before)


def _say_how_to_resume(download: Download) -> None:
    download.measure()
    done = download.progress().done
    output.complain(
        f"Stopped at {byte_size(done)} of {byte_size(download.model.size)}, which are kept."
        f" Go on with: ktchat models pull {download.key}"
    )


class _Plain:
    """Progress as lines on standard error, for logs."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._stage = ""

    def begin(self, progress: DownloadProgress) -> None:
        """What is going to be downloaded."""
        kept = f", {byte_size(progress.done)} are here already" if progress.done else ""
        output.write(f"{progress.key}: {byte_size(progress.total)}{kept}\n", sys.stderr)

    def draw(self, progress: DownloadProgress) -> None:
        """A line now and then, and whenever there is news."""
        now = time.monotonic()
        news = progress.stage in (Stage.WAITING, Stage.REPAIRING) and progress.stage != self._stage
        self._stage = progress.stage
        if news or now - self._last >= PLAIN_INTERVAL:
            self._last = now
            output.write(f"{words(progress)}\n", sys.stderr)

    def end(self) -> None:
        """Nothing more comes."""


class _Json(_Plain):
    """Progress as JSON lines on standard output, about one a second; the last says `done`."""

    def begin(self, progress: DownloadProgress) -> None:
        """Nothing: the first line says it."""
        self._last = 0.0

    def draw(self, progress: DownloadProgress) -> None:
        """A line."""
        now = time.monotonic()
        if now - self._last >= 1.0 or progress.stage is Stage.DONE:
            self._last = now
            entry = dataclasses.asdict(dataclasses.replace(progress, error=None))
            entry["error"] = progress.error.to_dict() if progress.error else None
            output.line(json.dumps(entry))


class _Line(_Plain):
    """Progress as one line of a terminal, with a bar."""

    def begin(self, progress: DownloadProgress) -> None:
        """The line as it begins."""
        self.draw(progress)

    def draw(self, progress: DownloadProgress) -> None:
        """The line as it is now; a wrapped one could not be taken back."""
        room = shutil.get_terminal_size().columns - 1
        filled = BAR * progress.done // max(1, progress.total)
        bar = "━" * filled + "─" * (BAR - filled)
        output.write(f"\r\x1b[K{f'{bar} {words(progress)}'[:room]}", sys.stderr)

    def end(self) -> None:
        """Remove the line."""
        output.write("\r\x1b[K", sys.stderr)


def words(progress: DownloadProgress) -> str:
    """Progress in a line: `3.1 GB of 18.6 GB · 52.0 MB/s · 5 min 1 s left`."""
    parts = [f"{byte_size(progress.done)} of {byte_size(progress.total)}"]
    if progress.stage is Stage.WAITING and progress.error is not None:
        parts.append(f"waiting: {progress.error.why or progress.error.what}")
    elif progress.stage is not Stage.DOWNLOADING:
        parts.append(progress.stage)
    elif progress.speed:
        parts.append(f"{byte_size(round(progress.speed))}/s")
        if progress.seconds_left is not None:
            parts.append(f"{duration(progress.seconds_left)} left")
    return " · ".join(parts)


_ACTIONS = {"search": _search, "pull": _pull}
