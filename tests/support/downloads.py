"""Helpers for tests that download from the local hub."""

from __future__ import annotations

import asyncio
from pathlib import Path

from engine.downloads.download import Download, DownloadProgress
from engine.downloads.journal import bytes_kept
from engine.downloads.transfer_options import TransferOptions
from engine.hub.client import Hub, HubAccess
from tests.support.clock import soon
from tests.support.hub_server import HubServer

REPO = "own/Model-GGUF"
NAME = "Model-Q4_K_M.gguf"
SIZE = 3_000_000
BLOCK = 64 << 10
QUICK = TransferOptions(connections=3, attempts=4, backoff=0.01, timeout=60.0, patience=2.0)


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
        await soon(lambda: download.progress().done >= share * SIZE or task.done())
        task.cancel()
        await asyncio.wait([task])

    server.rate = 10_000_000
    server.hold(int(min(share + 0.25, 0.95) * SIZE))
    asyncio.run(until_half())
    server.go_on()
    return bytes_kept(Path(f"{path_in(folder)}.part.journal"))


def assert_whole(server: HubServer, folder: Path) -> None:
    """The file is there, right, and alone with its record and its blocks."""
    assert path_in(folder).read_bytes() == content(server)
    names = [NAME, f"{NAME}.blocks", f"{NAME}.origin.json"]
    assert sorted(path.name for path in (folder / REPO).iterdir()) == names
