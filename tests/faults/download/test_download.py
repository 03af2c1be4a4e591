"""Downloads when all is well, two at once, and none at all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from engine.downloads.download import Download
from engine.errors import KtchatError
from engine.hub.client import HubAccess
from engine.hub.errors import (
    DamagedDownloadError,
    DownloadBusyError,
    HubOfflineError,
)
from tests.support.clock import assert_within, soon
from tests.support.downloads import (
    BLOCK,
    NAME,
    REPO,
    SIZE,
    a_download,
    assert_whole,
    bytes_received,
    content,
    fetch,
    path_in,
    stopped_half_way,
)
from tests.support.hub_server import HubServer, Repo


def test_a_model_arrives_whole_and_under_its_name(
    server: HubServer, folder: Path, connections: int
) -> None:
    seen = fetch(server, folder)
    assert_whole(server, folder)
    assert (seen[-1].stage, seen[-1].done, seen[-1].total) == ("done", SIZE, SIZE)
    assert server.bodies == SIZE
    assert path_in(folder).stat().st_mode & 0o077 == 0
    record = json.loads(Path(f"{path_in(folder)}.origin.json").read_text())
    assert record["checksum"] == f"sha256:{hashlib.sha256(content(server)).hexdigest()}"
    assert (record["repo"], record["commit"], record["path"]) == (REPO, "c" * 40, NAME)


def test_what_is_here_is_not_fetched_again(server: HubServer, folder: Path) -> None:
    fetch(server, folder)
    fetch(server, folder)
    assert server.bodies == SIZE


def test_a_damaged_model_is_mended_by_its_damage(server: HubServer, folder: Path) -> None:
    fetch(server, folder)
    with path_in(folder).open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"damage")
    assert bytes_received(server, folder) == BLOCK
    assert_whole(server, folder)
    assert bytes_received(server, folder) == 0


def test_a_file_that_was_put_there_is_recognised(server: HubServer, folder: Path) -> None:
    path_in(folder).parent.mkdir(parents=True)
    path_in(folder).write_bytes(content(server))
    assert bytes_received(server, folder) == 0
    path_in(folder).write_bytes(bytes(SIZE))
    assert bytes_received(server, folder) == SIZE
    assert_whole(server, folder)


def test_an_old_version_in_use_is_replaced_and_not_written_to(
    server: HubServer, folder: Path
) -> None:
    fetch(server, folder)
    old = content(server)
    with path_in(folder).open("rb") as in_use:
        server.repos[REPO] = Repo({NAME: os.urandom(SIZE)}, commit="d" * 40)
        fetch(server, folder)
        assert in_use.read() == old
    assert_whole(server, folder)


def test_a_split_model_is_one_download(server: HubServer, folder: Path) -> None:
    parts = {f"BF16/m-BF16-0000{n}-of-00003.gguf": os.urandom(200_000 * n) for n in (1, 2, 3)}
    server.repos[REPO] = Repo(parts)
    fetch(server, folder)
    for name, data in parts.items():
        assert (folder / REPO / name).read_bytes() == data


def test_a_new_version_replaces_the_old_one(server: HubServer, folder: Path) -> None:
    fetch(server, folder)
    server.repos[REPO] = Repo({NAME: os.urandom(SIZE)}, commit="d" * 40)
    fetch(server, folder)
    assert_whole(server, folder)


def test_a_file_outside_lfs_is_checked_by_git_s_name(server: HubServer, folder: Path) -> None:
    server.repos[REPO].plain = True
    fetch(server, folder)
    assert_whole(server, folder)
    server.repos[REPO] = Repo({NAME: b"GGUF" * 1000}, plain=True)
    download = a_download(server, folder)
    server.repos[REPO].files[NAME] = b"FUGG" * 1000
    with pytest.raises(DamagedDownloadError):
        asyncio.run(download.run())


def test_two_downloads_of_one_model_do_not_meet(server: HubServer, folder: Path) -> None:
    server.hold(1_000_000)
    first, second = a_download(server, folder), a_download(server, folder)

    async def both() -> None:
        task = asyncio.create_task(first.run())
        await soon(lambda: first.progress().done >= 100_000 or task.done())
        with pytest.raises(DownloadBusyError):
            await second.run()
        server.go_on()
        await task

    asyncio.run(both())
    assert_whole(server, folder)


def test_offline_nothing_is_asked(server: HubServer, folder: Path) -> None:
    model = a_download(server, folder).model
    server.requests.clear()
    with pytest.raises(HubOfflineError):
        asyncio.run(Download(HubAccess(server.endpoint, offline=True), model, folder).run())
    assert not server.requests


def test_discarding_leaves_nothing(server: HubServer, folder: Path) -> None:
    stopped_half_way(server, folder)
    a_download(server, folder).discard()
    assert list(folder.iterdir()) == []


@pytest.mark.xdist_group("clock")
async def test_a_download_leaves_the_loop_free(server: HubServer, folder: Path) -> None:
    """Hashing and writing are in threads: the loop's longest wait stays short."""
    worst = 1.0
    for number in range(3):  # what holds it up does so each time
        task, waits = asyncio.create_task(a_download(server, folder / str(number)).run()), [0.0]
        while not task.done():
            before = time.monotonic()
            await asyncio.sleep(0.001)
            waits.append(time.monotonic() - before)
        task.result()
        if (worst := min(worst, max(waits))) < 0.25:
            break
    assert_within(worst, 0.25)


def test_every_error_has_words() -> None:
    from engine.hub import errors as hub_errors

    kinds = [kind for kind in vars(hub_errors).values() if isinstance(kind, type)]
    for kind in kinds:
        if issubclass(kind, KtchatError):
            error = kind("What", "why", "todo")
            assert type(KtchatError.from_dict(error.to_dict())) is kind
