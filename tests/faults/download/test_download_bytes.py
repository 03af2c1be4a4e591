"""Downloads whose bytes are wrong on the way or on disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from pathlib import Path

import pytest

from engine.downloads import connections
from engine.downloads.block_file import BlockFile
from engine.downloads.journal import bytes_kept
from engine.downloads.transfer_options import TransferOptions
from engine.hub.errors import (
    DamagedDownloadError,
    HubError,
)
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
from tests.support.hub_server import HubServer


def test_a_flipped_bit_on_disk_costs_one_block(
    server: HubServer, folder: Path, connections: int
) -> None:
    kept = stopped_half_way(server, folder)
    part = Path(f"{path_in(folder)}.part")
    noted = Path(f"{part}.journal").read_text().splitlines()
    blocks = sorted(entry["n"] for line in noted if "n" in (entry := json.loads(line)))
    with part.open("r+b") as file:
        file.seek(blocks[len(blocks) // 2] * BLOCK + 1000)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    assert bytes_received(server, folder) == SIZE - kept + BLOCK
    assert_whole(server, folder)


def test_a_block_that_rots_while_downloading_costs_one_block(
    server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = BlockFile.write

    def rotten(self: BlockFile, number: int, data: bytes) -> None:
        write(self, number, data)
        if number == 7 and not rots:
            rots.append(number)
            os.pwrite(self._handle, b"rot", 7 * self.block + 5)

    rots: list[int] = []
    monkeypatch.setattr(BlockFile, "write", rotten)
    fetch(server, folder)
    assert_whole(server, folder)
    assert rots and server.bodies <= SIZE + BLOCK


@pytest.mark.parametrize("offset", [0, 1_234_567, SIZE - 1])
def test_a_bit_flipped_on_the_way_is_found_by_reading_again(
    server: HubServer, folder: Path, connections: int, offset: int
) -> None:
    server.fault("flip", value=offset)
    received = bytes_received(server, folder)
    assert_whole(server, folder)
    assert 2 * SIZE < received <= 2 * SIZE + BLOCK


def test_bits_flipped_in_both_readings_are_settled_by_a_third(
    server: HubServer, folder: Path, connections: int
) -> None:
    download = a_download(server, folder)

    async def with_a_second_flip() -> None:
        task = asyncio.create_task(download.run())
        while download.progress().stage != "repairing" and not task.done():
            await asyncio.sleep(0)
        server.fault("flip", value=2_000_000)
        await task

    server.fault("flip", value=100)
    asyncio.run(with_a_second_flip())
    assert_whole(server, folder)
    assert 2 * SIZE + BLOCK < download.received <= 2 * SIZE + 2 * BLOCK


def test_bytes_that_never_match_are_not_installed(server: HubServer, folder: Path) -> None:
    server.repos[REPO].listed[NAME] = "0" * 64
    with pytest.raises(DamagedDownloadError, match="Nothing of it was kept"):
        fetch(server, folder)
    assert not path_in(folder).exists()
    assert bytes_kept(Path(f"{path_in(folder)}.part.journal")) == 0
    assert server.bodies == 2 * SIZE
    server.repos[REPO].listed.clear()
    fetch(server, folder)
    assert_whole(server, folder)


@pytest.mark.parametrize(
    "damage",
    [b"", b"garbage", b"{}\n", b"[1]\n" * 50, b'{"n": 99999, "sha256": "' + b"0" * 64 + b'"}\n'],
    ids=["empty", "garbage", "no head", "no objects", "far block"],
)
def test_a_damaged_journal_costs_bytes_and_nothing_else(
    server: HubServer, folder: Path, damage: bytes
) -> None:
    stopped_half_way(server, folder, 0.2)
    journal = Path(f"{path_in(folder)}.part.journal")
    head = journal.read_bytes().splitlines(keepends=True)[0]
    for text in (damage, head + damage, journal.read_bytes() + damage, journal.read_bytes()[:-9]):
        journal.write_bytes(text)
        fetch(server, folder)
        assert_whole(server, folder)
        path_in(folder).rename(Path(f"{path_in(folder)}.part"))


@pytest.mark.parametrize("seed", range(10))
def test_no_mixture_of_faults_installs_wrong_bytes(
    server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(connections, "MANY_CONNECTIONS", chance.choice([1, SIZE + 1]))
    kinds = ["drop", "ignore-range", "flip", "weak-range", "status", "slow"]
    for _ in range(3):
        for _ in range(chance.randrange(1, 6)):
            kind = chance.choice(kinds)
            value = {
                "status": chance.choice([403, 404, 416, 429, 500, 503]),
                "slow": 20_000_000,
            }.get(kind, chance.randrange(SIZE))
            server.fault(kind, times=chance.randrange(1, 4), value=value)
        server.etag = f"v{chance.randrange(3)}"
        server.signature += chance.randrange(2)
        with contextlib.suppress(HubError, DamagedDownloadError):
            fetch(server, folder, TransferOptions(attempts=3, backoff=0.001))
        assert not path_in(folder).exists() or path_in(folder).read_bytes() == content(server)
    server.faults.clear()
    fetch(server, folder)
    assert_whole(server, folder)
