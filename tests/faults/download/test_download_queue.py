"""The queue of downloads in a running program: order, pausing, restarts, events."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.downloads.download import DownloadProgress
from engine.downloads.queue import DownloadQueue
from engine.downloads.transfer_options import TransferOptions
from engine.hub.client import Hub, HubAccess
from engine.hub.errors import HubNetworkError
from tests.support.clock import assert_within, until, within
from tests.support.hub_server import HubServer, Repo, hub_server

QUICK = TransferOptions(attempts=3, backoff=0.01, timeout=60.0)
SIZE = 1_500_000


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub_server() as running:
        for name in "abc":
            running.repos[f"own/{name}"] = Repo({f"{name}-Q4_0.gguf": os.urandom(SIZE)})
        yield running


@pytest.fixture
def hub(server: HubServer) -> Hub:
    return Hub(HubAccess(server.endpoint, "hf_good"))


@pytest.fixture
def queue(hub: Hub, tmp_path: Path) -> Iterator[DownloadQueue]:
    running = DownloadQueue(tmp_path, hub, QUICK)
    running.start()
    yield running
    running.close()


def stage(queue: DownloadQueue, key: str) -> str:
    return next((state.stage for state in queue.states() if state.key == key), "gone")


def done(queue: DownloadQueue, key: str) -> int:
    return next((state.done for state in queue.states() if state.key == key), 0)


def test_one_after_the_other(queue: DownloadQueue, hub: Hub, server: HubServer) -> None:
    server.rate = 3_000_000
    running: list[int] = []
    queue.listen(lambda _: running.append(sum(s.stage == "downloading" for s in queue.states())))
    keys = [queue.add(hub.find(f"own/{name}")) for name in "abc"]
    assert [state.key for state in queue.states()] == keys
    until(lambda: all(state.stage == "done" for state in queue.states()))
    assert max(running) == 1
    for state in queue.states():
        assert Path(state.path).stat().st_size == state.total == state.done == SIZE


def test_pause_and_resume_keep_the_bytes(queue: DownloadQueue, hub: Hub, server: HubServer) -> None:
    server.rate = 3_000_000
    server.hold(SIZE - 400_000)
    key = queue.add(hub.find("own/a"))
    until(lambda: done(queue, key) > 300_000)
    queue.pause(key)
    until(lambda: stage(queue, key) == "paused")
    here = done(queue, key)
    sent = server.bodies
    time.sleep(0.1)
    assert server.bodies - sent <= 65536 and done(queue, key) == here
    server.go_on()
    queue.resume(key)
    until(lambda: stage(queue, key) == "done")
    assert server.bodies <= SIZE + 4 * 65536


def test_a_paused_one_lets_the_next_begin(
    queue: DownloadQueue, hub: Hub, server: HubServer
) -> None:
    server.hold(SIZE - 400_000)
    first, second = queue.add(hub.find("own/a")), queue.add(hub.find("own/b"))
    until(lambda: done(queue, first) > 0)
    assert stage(queue, second) == "queued"
    queue.pause(first)
    until(lambda: stage(queue, first) == "paused")
    server.go_on()
    until(lambda: stage(queue, second) == "done")
    assert stage(queue, first) == "paused"


def test_cancelling_removes_what_came_or_keeps_it(
    queue: DownloadQueue, hub: Hub, server: HubServer, tmp_path: Path
) -> None:
    server.hold(SIZE - 400_000)
    key = queue.add(hub.find("own/a"))
    until(lambda: done(queue, key) > 0)
    queue.cancel(key, keep=True)
    until(lambda: stage(queue, key) == "gone")
    assert list((tmp_path / "own" / "a").glob("*.part"))
    for _ in range(3):  # at once, and while it runs
        server.hold(SIZE - 400_000)
        queue.cancel(queue.add(hub.find("own/a")))
        until(lambda: stage(queue, key) == "gone")
        assert list(tmp_path.iterdir()) == []
    server.hold(SIZE - 400_000)
    key = queue.add(hub.find("own/a"))
    until(lambda: done(queue, key) > 0)
    queue.cancel(key)
    until(lambda: stage(queue, key) == "gone")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.xdist_group("clock")
def test_a_restart_lists_what_is_unfinished(
    queue: DownloadQueue, hub: Hub, server: HubServer, tmp_path: Path
) -> None:
    server.hold(SIZE - 400_000)
    key = queue.add(hub.find("own/a"))
    until(lambda: done(queue, key) > 300_000)
    with within(1.0):
        queue.close()
    server.go_on()
    again = DownloadQueue(tmp_path, hub, QUICK)
    again.start()
    (state,) = again.states()
    assert (state.key, state.stage) == (key, "paused") and state.done > 300_000
    again.resume(key)
    until(lambda: stage(again, key) == "done")
    again.close()


def test_a_failure_is_shown_and_resumed(queue: DownloadQueue, hub: Hub, server: HubServer) -> None:
    server.fault("drop", value=500_000)
    server.fault("drop", value=0, times=50)
    key = queue.add(hub.find("own/a"))
    until(lambda: stage(queue, key) == "failed")
    (state,) = queue.states()
    assert isinstance(state.error, HubNetworkError) and state.done >= 400_000
    server.faults.clear()
    queue.add(hub.find("own/a"))
    until(lambda: stage(queue, key) == "done")


def test_an_outage_is_waited_for(hub: Hub, server: HubServer, tmp_path: Path) -> None:
    options = TransferOptions(attempts=2, outage_attempts=50, backoff=0.01, longest_wait=0.05)
    queue = DownloadQueue(tmp_path, hub, options)
    queue.start()
    server.fault("drop", value=0, times=20)
    seen: list[DownloadProgress] = []
    queue.listen(seen.append)
    key = queue.add(hub.find("own/a"))
    until(lambda: stage(queue, key) == "done")
    waits = [progress for progress in seen if progress.stage == "waiting"]
    assert waits and all(isinstance(progress.error, HubNetworkError) for progress in waits)
    queue.close()


def test_adding_twice_is_adding_once(queue: DownloadQueue, hub: Hub, server: HubServer) -> None:
    server.rate = 3_000_000
    model = hub.find("own/a")
    assert queue.add(model) == queue.add(model)
    assert len(queue.states()) == 1
    until(lambda: stage(queue, model.spec) == "done")
    queue.forget(model.spec)
    assert queue.states() == ()


def test_unknown_names_are_harmless(queue: DownloadQueue) -> None:
    for act in (queue.pause, queue.resume, queue.cancel, queue.forget):
        act("own/absent:Q4_0")
    assert queue.states() == ()


async def test_events_reach_an_event_loop(
    queue: DownloadQueue, hub: Hub, server: HubServer
) -> None:
    server.rate = 3_000_000
    key = queue.add(hub.find("own/a"))
    seen: list[DownloadProgress] = []
    async for progress in queue.events():
        seen.append(progress)
        if progress.stage == "done":
            break
    assert {progress.key for progress in seen} == {key}
    counts = [progress.done for progress in seen]
    assert counts == sorted(counts) and counts[-1] == SIZE
    assert any(progress.speed > 0 for progress in seen)


@pytest.mark.xdist_group("clock")
async def test_a_running_download_leaves_the_reader_s_loop_free(
    queue: DownloadQueue, hub: Hub, server: HubServer
) -> None:
    server.repos["own/big"] = Repo({"big-Q4_0.gguf": bytes(30_000_000)})
    key = queue.add(await asyncio.to_thread(hub.find, "own/big"))
    waits = []
    while stage(queue, key) != "done":
        before = time.perf_counter()
        await asyncio.sleep(0.002)
        waits.append(time.perf_counter() - before)
    waits.sort()
    assert_within(waits[len(waits) // 2], 0.05)


def test_closing_ends_the_thread(hub: Hub, tmp_path: Path) -> None:
    queue = DownloadQueue(tmp_path, hub, QUICK)
    queue.start()
    queue.close()
    queue.close()
    assert not [t for t in threading.enumerate() if t.name == "downloads"]
    queue.pause("x")
