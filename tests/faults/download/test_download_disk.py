"""Downloads onto disks that are full, broken, or laid with links."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from engine.downloads.block_file import BlockFile
from engine.downloads.download import Download
from engine.downloads.journal import bytes_kept
from engine.downloads.transfer_options import TransferOptions
from engine.hub.client import HubAccess
from engine.hub.errors import (
    DiskShortError,
    DownloadError,
    UnsafeNameError,
)
from engine.hub.names import HubFile, HubModel
from tests.support.downloads import (
    REPO,
    SIZE,
    assert_whole,
    fetch,
    path_in,
)
from tests.support.hub_server import HubServer


def test_a_full_disk_is_said_before_a_byte_comes(server: HubServer, folder: Path) -> None:
    options = TransferOptions(space=lambda path: SIZE - 1)
    with pytest.raises(DiskShortError, match=r"3\.0 MB are missing"):
        fetch(server, folder, options)
    assert server.bodies == 0


def test_a_disk_that_fills_up_stops_the_download_and_keeps_it(
    server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.downloads.block_file.CHECK_SPACE_EVERY", 256 << 10)
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
        broken.setattr("engine.downloads.block_file.SYNC_EVERY", 1_000_000)
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
