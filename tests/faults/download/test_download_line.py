"""Downloads over a line that drops, stalls and crawls."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.downloads.transfer_options import TransferOptions
from engine.hub.errors import (
    HubNetworkError,
)
from tests.support.clock import assert_within
from tests.support.downloads import (
    BLOCK,
    SIZE,
    a_download,
    assert_whole,
    fetch,
    path_in,
)
from tests.support.hub_server import HubServer


def test_dropped_connections_cost_less_than_a_block_each(
    server: HubServer, folder: Path, connections: int
) -> None:
    for bytes_before in (0, 1, 300_000, 70_000, 500_000):
        server.fault("drop", value=bytes_before)
    fetch(server, folder, TransferOptions(connections=3, attempts=6, backoff=0.001))
    assert_whole(server, folder)
    assert server.bodies <= SIZE + 5 * BLOCK


def test_a_line_that_stalls_is_given_up_and_tried_again(server: HubServer, folder: Path) -> None:
    server.fault("stall", value=200_000)
    seen = fetch(server, folder, TransferOptions(attempts=4, backoff=0.8, timeout=1.0))
    assert_whole(server, folder)
    waits = [progress for progress in seen if progress.stage == "waiting"]
    assert waits and isinstance(waits[0].error, HubNetworkError)


@pytest.mark.xdist_group("clock")
def test_a_slow_line_shows_its_speed_and_the_time_left(server: HubServer, folder: Path) -> None:
    server.fault("slow", value=3_500_000)
    seen = fetch(server, folder)
    assert_whole(server, folder)
    moving = [p for p in seen if p.stage == "downloading" and p.speed]
    assert moving and all(p.speed < 6e6 for p in moving)
    assert_within(1 / max(p.speed for p in moving), 1 / 1e6)
    left = [p.seconds_left for p in moving if p.seconds_left is not None]
    assert left and left[-1] < left[0]
    assert_within(left[0], 3)


def test_a_dead_line_ends_in_words_and_keeps_what_came(server: HubServer, folder: Path) -> None:
    server.fault("drop", value=1_000_000)
    server.fault("drop", value=0, times=99)
    with pytest.raises(HubNetworkError, match="what came is kept"):
        fetch(server, folder)
    assert not path_in(folder).exists()
    server.faults.clear()
    before = server.bodies
    fetch(server, folder)
    assert server.bodies - before <= SIZE - 1_000_000 + BLOCK
    assert_whole(server, folder)


def test_no_server_at_all_ends_in_words(server: HubServer, folder: Path) -> None:
    download = a_download(server, folder)
    server.close()
    with pytest.raises(HubNetworkError):
        asyncio.run(download.run())
