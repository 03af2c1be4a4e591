"""Downloads over a line and from servers that fail in every way; a local hub plays them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import transfer
from engine.blocks import BlockFile
from engine.download import Download, DownloadProgress
from engine.errors import KtchatError
from engine.hub import Hub, HubAccess
from engine.hub_errors import (
    DamagedDownloadError,
    DiskShortError,
    DownloadBusyError,
    DownloadError,
    FileChangedError,
    GatedModelError,
    HubError,
    HubMissingError,
    HubNetworkError,
    HubOfflineError,
    HubServerError,
    RateLimitError,
    UnsafeNameError,
)
from engine.hub_names import HubFile, HubModel
from engine.journal import bytes_kept
from engine.transfer_options import TransferOptions
from tests.support.hub_server import HubServer, Repo, hub_server

REPO = "own/Model-GGUF"
NAME = "Model-Q4_K_M.gguf"
SIZE = 3_000_000
BLOCK = 64 << 10
QUICK = TransferOptions(connections=3, attempts=4, backoff=0.01, timeout=0.5, patience=2.0)


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub_server() as running:
        running.repos[REPO] = Repo({NAME: random.Random(1).randbytes(SIZE)})
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture(params=[1, 3], ids=["one connection", "three connections"])
def connections(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many connections a file of the tests gets."""
    if request.param > 1:
        monkeypatch.setattr(transfer, "MANY_CONNECTIONS", 1)
    return int(request.param)


def content(server: HubServer) -> bytes:
    return server.repos[REPO].files[NAME]


def path_in(folder: Path) -> Path:
    return folder / REPO / NAME


def a_download(server: HubServer, folder: Path, options: TransferOptions = QUICK) -> Download:
    hub = Hub(HubAccess(server.endpoint, "hf_good"))
    return Download(hub.access, hub.find(REPO), folder, options)


def fetch(
    server: HubServer, folder: Path, options: TransferOptions = QUICK
) -> list[DownloadProgress]:
    """Download the model; its progress."""
    seen: list[DownloadProgress] = []
    asyncio.run(a_download(server, folder, options).run(seen.append))
    return seen


def bytes_received(server: HubServer, folder: Path) -> int:
    """Download the model; how many bytes of it were read from the network."""
    download = a_download(server, folder)
    asyncio.run(download.run())
    return download.received


def stopped_half_way(server: HubServer, folder: Path, share: float = 0.5) -> int:
    """Begin a download and cancel it; bytes that were kept."""
    download = a_download(server, folder)

    async def until_half() -> None:
        task = asyncio.create_task(download.run())
        while download.progress().done < share * SIZE:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])

    server.rate = 10_000_000
    asyncio.run(until_half())
    server.rate = 0
    return bytes_kept(Path(f"{path_in(folder)}.part.journal"))


def assert_whole(server: HubServer, folder: Path) -> None:
    """The file is there, right, and alone with its record and its blocks."""
    assert path_in(folder).read_bytes() == content(server)
    names = [NAME, f"{NAME}.blocks", f"{NAME}.origin.json"]
    assert sorted(path.name for path in (folder / REPO).iterdir()) == names


# All is well


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


# The line


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
    seen = fetch(server, folder, TransferOptions(attempts=4, backoff=0.8, timeout=0.2))
    assert_whole(server, folder)
    waits = [progress for progress in seen if progress.stage == "waiting"]
    assert waits and isinstance(waits[0].error, HubNetworkError)


def test_a_slow_line_shows_its_speed_and_the_time_left(server: HubServer, folder: Path) -> None:
    server.fault("slow", value=3_500_000)
    seen = fetch(server, folder)
    assert_whole(server, folder)
    moving = [p for p in seen if p.stage == "downloading" and p.speed]
    assert moving and all(1e6 < p.speed < 6e6 for p in moving)
    left = [p.seconds_left for p in moving if p.seconds_left is not None]
    assert left and left == sorted(left, reverse=True) and left[0] < 3


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


# The server


@pytest.mark.parametrize("status", [401, 403, 404, 408, 410, 416, 429, 500, 502, 503, 504])
def test_a_passing_refusal_of_the_file_server_is_survived(
    server: HubServer, folder: Path, status: int
) -> None:
    server.fault("status", value=status, times=2)
    fetch(server, folder)
    assert_whole(server, folder)


@pytest.mark.parametrize("status", [403, 404, 416, 500])
def test_a_lasting_refusal_ends_in_words(server: HubServer, folder: Path, status: int) -> None:
    server.fault("status", value=status, times=99)
    with pytest.raises(HubServerError, match=str(status)):
        fetch(server, folder)
    assert not path_in(folder).exists()


@pytest.mark.parametrize(("status", "error"), [(429, RateLimitError), (503, HubServerError)])
def test_the_hub_itself_may_fail_for_a_while(
    server: HubServer, folder: Path, status: int, error: type[HubError]
) -> None:
    download = a_download(server, folder)
    server.fault("status", where="hub", value=status, times=2)
    asyncio.run(download.run())
    assert_whole(server, folder)
    path_in(folder).unlink()
    server.fault("status", where="hub", value=status, times=99, path="resolve")
    with pytest.raises(error):
        asyncio.run(a_download(server, folder).run())


def test_retry_after_is_obeyed_within_reason(server: HubServer, folder: Path) -> None:
    server.fault("status", value=429, headers={"Retry-After": "1"})
    started = time.monotonic()
    fetch(server, folder)
    assert 1.0 <= time.monotonic() - started < 2.0
    path_in(folder).unlink()
    server.fault("status", value=429, headers={"Retry-After": "3600"})
    started = time.monotonic()
    with pytest.raises(RateLimitError, match="some minutes"):
        fetch(server, folder)
    assert time.monotonic() - started < 1.0


def test_a_server_that_ignores_ranges_is_read_through_once(
    server: HubServer, folder: Path, connections: int
) -> None:
    kept = stopped_half_way(server, folder)
    server.fault("ignore-range", times=99)
    assert kept >= 0.4 * SIZE
    assert bytes_received(server, folder) <= 1.2 * SIZE
    assert_whole(server, folder)


def test_another_part_than_asked_for_is_not_taken(server: HubServer, folder: Path) -> None:
    server.fault("weak-range", times=2)
    fetch(server, folder)
    assert_whole(server, folder)


def test_a_changed_etag_keeps_the_bytes_when_the_content_is_the_same(
    server: HubServer, folder: Path, connections: int
) -> None:
    kept = stopped_half_way(server, folder)
    server.etag = "v2"
    assert bytes_received(server, folder) == SIZE - kept
    assert_whole(server, folder)


def test_a_changed_file_is_noticed_at_once(server: HubServer, folder: Path) -> None:
    stopped_half_way(server, folder)
    download = a_download(server, folder)
    server.repos[REPO].files[NAME] = os.urandom(SIZE)
    server.etag = "v2"
    server.requests.clear()
    with pytest.raises(FileChangedError, match="Download it again"):
        asyncio.run(download.run())
    assert not any(request.where == "cdn" for request in server.requests)
    fetch(server, folder)  # lists again, and gets the new one
    assert_whole(server, folder)


def test_a_file_of_another_size_is_noticed_on_a_plain_mirror(
    server: HubServer, folder: Path
) -> None:
    server.repos[REPO].plain = True
    download = a_download(server, folder)
    server.repos[REPO].files[NAME] += b"more"
    with pytest.raises(FileChangedError):
        asyncio.run(download.run())


def test_an_expired_address_is_renewed(server: HubServer, folder: Path, connections: int) -> None:
    server.fault("drop", value=1_000_000)
    download = a_download(server, folder)

    async def with_expiry() -> None:
        task = asyncio.create_task(download.run())
        while download.progress().done < 500_000:
            await asyncio.sleep(0.001)
        server.signature = 2
        await task

    server.rate = 5_000_000
    asyncio.run(with_expiry())
    assert_whole(server, folder)


def test_a_gated_or_absent_file_ends_in_words(server: HubServer, folder: Path) -> None:
    download = a_download(server, folder)
    server.repos[REPO].gated = True
    with pytest.raises(GatedModelError, match="then try again"):
        asyncio.run(download.run())
    server.repos[REPO].gated = False
    server.repos[REPO].files["other.gguf"] = server.repos[REPO].files.pop(NAME)
    with pytest.raises(HubMissingError, match="does not have that file"):
        asyncio.run(download.run())
    assert not list(folder.rglob("*.gguf"))


def test_a_mirror_without_another_host_serves_too(
    server: HubServer, folder: Path, connections: int
) -> None:
    server.redirects = False
    fetch(server, folder)
    assert_whole(server, folder)


def test_the_token_stays_with_the_hub(server: HubServer, folder: Path) -> None:
    server.repos[REPO].gated, server.repos[REPO].members = True, ("hf_good",)
    stopped_half_way(server, folder)
    for path in folder.rglob("*"):
        assert path.is_dir() or b"hf_good" not in path.read_bytes()
        assert path.is_dir() or b"sig=" not in path.read_bytes()
    fetch(server, folder)
    at_cdn = [request for request in server.requests if request.where == "cdn"]
    assert at_cdn and not any(request.token for request in at_cdn)
    assert any(request.token == "hf_good" for request in server.requests)


def test_a_redirect_away_from_encryption_is_refused() -> None:
    access = HubAccess("https://huggingface.co", "hf_secret")
    for url in ("http://huggingface.co/x", "http://127.0.0.1/x", "ftp://x/y", "file:///etc/passwd"):
        with pytest.raises(HubServerError):
            access.check(url)


def test_redirects_in_circles_end(server: HubServer, folder: Path) -> None:
    headers = {"Location": f"/{REPO}/resolve/main/{NAME}"}
    server.fault("status", where="hub", value=302, times=99, path="resolve", headers=headers)
    with pytest.raises(HubServerError, match="circles"):
        fetch(server, folder)


# Wrong bytes


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
    monkeypatch.setattr(transfer, "MANY_CONNECTIONS", chance.choice([1, SIZE + 1]))
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


# The disk


def test_a_full_disk_is_said_before_a_byte_comes(server: HubServer, folder: Path) -> None:
    options = TransferOptions(space=lambda path: SIZE - 1)
    with pytest.raises(DiskShortError, match=r"3\.0 MB are missing"):
        fetch(server, folder, options)
    assert server.bodies == 0


def test_a_disk_that_fills_up_stops_the_download_and_keeps_it(
    server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.blocks.CHECK_SPACE_EVERY", 256 << 10)
    room = iter([SIZE, *[10_000_000] * 4, *[0] * 99])
    with pytest.raises(DiskShortError, match="Free some space"):
        fetch(server, folder, TransferOptions(space=lambda path: next(room)))
    kept = bytes_kept(Path(f"{path_in(folder)}.part.journal"))
    assert kept >= 3 * (256 << 10)
    before = server.bodies
    fetch(server, folder)
    assert_whole(server, folder)
    assert server.bodies - before == SIZE - kept


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG])
def test_a_write_that_fails_ends_in_words(
    server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    pwrite = os.pwrite
    writes: list[int] = []

    def failing(handle: int, data: bytes, offset: int) -> int:
        writes.append(offset)
        if len(writes) > 10:
            raise OSError(code, os.strerror(code))
        return pwrite(handle, data, offset)

    with monkeypatch.context() as broken:
        broken.setattr(os, "pwrite", failing)
        with pytest.raises(DownloadError, match="cannot be written"):
            fetch(server, folder)
    fetch(server, folder)
    assert_whole(server, folder)


@pytest.mark.parametrize("when", [0, 1])
def test_a_failed_sync_is_not_forgotten(
    server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    """The system tells of lost writes once; the file must not be installed after that."""
    fsync, calls = BlockFile.sync, []

    def failing(self: BlockFile) -> None:
        calls.append(self)
        fsync(self)
        if len(calls) == when + 1:
            raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr("engine.blocks.SYNC_EVERY", 1_000_000)
        broken.setattr(BlockFile, "sync", failing)
        with pytest.raises(DownloadError, match="disk reports an error"):
            fetch(server, folder)
    assert len(calls) > when and not path_in(folder).exists()
    fetch(server, folder)
    assert_whole(server, folder)


def test_links_in_the_models_folder_are_not_followed(
    server: HubServer, folder: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    folder.mkdir()
    (folder / "own").symlink_to(outside)
    with pytest.raises(DownloadError, match="link"):
        fetch(server, folder)
    (folder / "own").unlink()
    path_in(folder).parent.mkdir(parents=True)
    Path(f"{path_in(folder)}.part").symlink_to(outside / "victim")
    with pytest.raises(DownloadError, match="link"):
        fetch(server, folder)
    assert not list(outside.iterdir())


@pytest.mark.parametrize("path", ["../../../evil.gguf", "/evil.gguf", "a/../../x.gguf", "con.gguf"])
def test_a_name_never_leaves_the_models_folder(server: HubServer, folder: Path, path: str) -> None:
    file = HubFile(REPO, "c" * 40, path, 4, "sha256:" + "0" * 64)
    with pytest.raises(UnsafeNameError):
        Download(HubAccess(server.endpoint), HubModel(REPO, "c" * 40, "", (file,)), folder)
    odd = HubFile("../x", "c" * 40, "a.gguf", 4, "sha256:" + "0" * 64)
    with pytest.raises(UnsafeNameError):
        Download(HubAccess(server.endpoint), HubModel("../x", "c" * 40, "", (odd,)), folder)


# Two at once, and nothing at all


def test_two_downloads_of_one_model_do_not_meet(server: HubServer, folder: Path) -> None:
    server.rate = 4_000_000
    first, second = a_download(server, folder), a_download(server, folder)

    async def both() -> None:
        task = asyncio.create_task(first.run())
        while first.progress().done < 100_000:
            await asyncio.sleep(0.001)
        with pytest.raises(DownloadBusyError):
            await second.run()
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


async def test_a_download_leaves_the_loop_free(server: HubServer, folder: Path) -> None:
    """Hashing and writing are in threads: the loop's longest wait stays short."""
    worst = 0.0
    task = asyncio.create_task(a_download(server, folder).run())
    while not task.done():
        before = time.monotonic()
        await asyncio.sleep(0.001)
        worst = max(worst, time.monotonic() - before)
    task.result()
    assert worst < 0.25


def test_every_error_has_words() -> None:
    from engine import hub_errors

    kinds = [kind for kind in vars(hub_errors).values() if isinstance(kind, type)]
    for kind in kinds:
        if issubclass(kind, KtchatError):
            error = kind("What", "why", "todo")
            assert type(KtchatError.from_dict(error.to_dict())) is kind
