"""`ktchat models search|info|pull`: what asks the hub.

Knows arguments and words. The hub is in `engine.hub`, the download in `engine.download`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import shutil
import signal
import sys
import time
from collections.abc import Coroutine
from typing import Any

from engine.download import Download, DownloadProgress
from engine.errors import KtchatError
from engine.hub import Hub, Repository
from engine.hub_names import HubModel, best
from ktchat import paths
from ktchat.cli import background, output
from ktchat.errors import UsageError
from ktchat.text import one_line
from ktchat.words import duration, file_size, short_count

PLAIN_INTERVAL = 10.0
"""Seconds between two lines of progress where there is no terminal."""
BAR = 24


def main(args: argparse.Namespace) -> int:
    """Run one action; returns the exit code."""
    return _ACTIONS[args.action](args, Hub())


# search and info


def _search(args: argparse.Namespace, hub: Hub) -> int:
    if args.limit < 1:
        raise UsageError(f"{args.limit} results are not possible")
    query = " ".join(args.query)
    hits = background.run(lambda report: hub.search(query, args.limit))
    if args.json:
        output.line(json.dumps([dataclasses.asdict(hit) for hit in hits], indent=2))
        return 0
    for hit in hits:
        gated = "  gated" if hit.gated else ""
        arch = one_line(hit.architecture, 11)
        downloads = f"{short_count(hit.downloads)} downloads"
        output.line(f"{one_line(hit.repo, 80):<44}  {arch:<11}  {downloads:>14}{gated}")
    if not hits:
        output.line("Nothing found.")
    return 0


def _info(args: argparse.Namespace, hub: Hub) -> int:
    ref = hub.ref(args.spec)
    repository = background.run(lambda report: hub.repository(ref.repo, ref.revision))
    if not ref.file and not ref.quantisation:
        proposed = best(repository.models, _fits)
        if args.json:
            output.line(json.dumps(_repository_as_json(repository, proposed), indent=2))
        else:
            _print_repository(repository, proposed)
        return 0
    from engine.hub_names import choose

    model = choose(repository.models, ref)
    fit = background.run(lambda report: _fit(hub, model))
    if args.json:
        output.line(json.dumps({**_model_as_json(model), "fit": fit}, indent=2))
        return 0
    output.line(f"{model.spec} · {file_size(model.size)}")
    for file in model.files:
        output.line(f"{file_size(file.size):>8}  {one_line(file.path, 200)}  {file.checksum}")
    for text in fit:
        output.line(text)
    return 0


def _fit(hub: Hub, model: HubModel) -> list[str]:
    """Whether a model fits this machine, in words; only headers are read."""
    from engine.hardware import probe
    from engine.plan import make_plan

    try:
        spec = hub.spec(model)
        plan = make_plan(spec, probe(paths.models_folder(), measure=False))
    except KtchatError as error:
        return [one_line(f"No plan: {error}", 1000)]
    return [one_line(text, 400) for text in plan.words()]


def _print_repository(repository: Repository, proposed: HubModel | None) -> None:
    licence = one_line(repository.licence, 40)
    about = [one_line(repository.architecture, 40), licence and f"licence {licence}"]
    about.append("gated" if repository.gated else "")
    output.line(" · ".join([repository.repo, *(text for text in about if text)]))
    for model in repository.models:
        files = f"  {len(model.files)} files" if len(model.files) > 1 else ""
        mark = "  proposed" if model is proposed else ""
        label = one_line(model.label, 60)
        output.line(f"{label:<16}  {file_size(model.size):>8}{files}{mark}")
    if not repository.models:
        output.line("It has no GGUF model.")


def _repository_as_json(repository: Repository, proposed: HubModel | None) -> dict[str, Any]:
    return {
        **{k: v for k, v in dataclasses.asdict(repository).items() if k != "models"},
        "models": [
            {**_model_as_json(model), "proposed": model is proposed} for model in repository.models
        ],
    }


def _model_as_json(model: HubModel) -> dict[str, Any]:
    return {**dataclasses.asdict(model), "spec": model.spec, "size": model.size}


def _fits(model: HubModel) -> bool:
    """Whether a model's weights fit this machine's memory, roughly and without reading them."""
    from engine.hardware import probe

    hardware = probe(paths.models_folder(), measure=False)
    return model.size < 0.9 * (hardware.memory.total + sum(gpu.total for gpu in hardware.gpus))


# pull


def _pull(args: argparse.Namespace, hub: Hub) -> int:
    model = background.run(lambda report: hub.find(args.spec, _fits))
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
        f"Stopped at {file_size(done)} of {file_size(download.model.size)}, which are kept."
        f" Go on with: ktchat models pull {download.key}"
    )


class _Plain:
    """Progress as lines on standard error, for logs."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._stage = ""

    def begin(self, progress: DownloadProgress) -> None:
        """What is going to be downloaded."""
        kept = f", {file_size(progress.done)} are here already" if progress.done else ""
        output.write(f"{progress.key}: {file_size(progress.total)}{kept}\n", sys.stderr)

    def draw(self, progress: DownloadProgress) -> None:
        """A line now and then, and whenever there is news."""
        now = time.monotonic()
        news = progress.stage in ("waiting", "repairing") and progress.stage != self._stage
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
        if now - self._last >= 1.0 or progress.stage == "done":
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
    parts = [f"{file_size(progress.done)} of {file_size(progress.total)}"]
    if progress.stage == "waiting" and progress.error is not None:
        parts.append(f"waiting: {progress.error.why or progress.error.what}")
    elif progress.stage != "downloading":
        parts.append(progress.stage)
    elif progress.speed:
        parts.append(f"{file_size(round(progress.speed))}/s")
        if progress.seconds_left is not None:
            parts.append(f"{duration(progress.seconds_left)} left")
    return " · ".join(parts)


_ACTIONS = {"search": _search, "info": _info, "pull": _pull}
