"""Processes beside each other that take units from one queue; one that crashes or hangs costs its unit only."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

Result = dict[str, Any]

UNIT_SECONDS = 300.0
"""After which a unit's process is stopped."""


def results(
    units: Iterable[str],
    command: Sequence[str],
    env: Mapping[str, str],
    jobs: int,
    seconds: float = UNIT_SECONDS,
) -> Iterator[Result]:
    """What processes of `command` answer to the units, a line of JSON to a line, as it comes.

    A unit without an answer has an "error".
    """
    waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[Result | None] = queue.SimpleQueue()
    for unit in (*units, *[None] * jobs):
        waiting.put(unit)
    for _ in range(jobs):
        threading.Thread(
            target=_lane, args=(waiting, done, command, env, seconds), daemon=True
        ).start()
    for _ in range(jobs):
        while (result := done.get()) is not None:
            yield result


def _lane(
    waiting: queue.SimpleQueue[str | None],
    done: queue.SimpleQueue[Result | None],
    command: Sequence[str],
    env: Mapping[str, str],
    seconds: float,
) -> None:
    worker: subprocess.Popen[str] | None = None
    while (unit := waiting.get()) is not None:
        if worker is None or worker.poll() is not None:
            worker = _start(command, env)
        done.put(_ask(worker, unit, seconds))
    if worker is not None:
        worker.communicate()
    done.put(None)


def _start(command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *command], env=env, text=True, stdin=pipe, stdout=pipe)


def _ask(worker: subprocess.Popen[str], unit: str, seconds: float) -> Result:
    assert worker.stdin is not None and worker.stdout is not None
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        worker.kill()

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        worker.stdin.write(unit + "\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
        result: Result = json.loads(line)
        return result
    except (OSError, ValueError):
        worker.kill()
        code = worker.wait()
        why = f"stopped after {seconds:.0f} s" if stopped.is_set() else f"ended with {code}"
        return {"unit": unit, "error": f"the compiling process {why}"}
    finally:
        timer.cancel()
