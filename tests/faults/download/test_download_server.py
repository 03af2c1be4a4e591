"""Downloads from servers that refuse, change and redirect."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from engine.hub.client import HubAccess
from engine.hub.errors import (
    FileChangedError,
    GatedModelError,
    HubError,
    HubMissingError,
    HubServerError,
    RateLimitError,
)
from tests.support.clock import soon, within
from tests.support.downloads import (
    NAME,
    REPO,
    SIZE,
    a_download,
    assert_whole,
    bytes_received,
    fetch,
    path_in,
    stopped_half_way,
)
from tests.support.hub_server import HubServer


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


@pytest.mark.xdist_group("clock")
def test_retry_after_is_obeyed_within_reason(server: HubServer, folder: Path) -> None:
    server.fault("status", value=429, headers={"Retry-After": "1"})
    started = time.monotonic()
    with within(2.0):
        fetch(server, folder)
    assert time.monotonic() - started >= 1.0
    path_in(folder).unlink()
    server.fault("status", value=429, headers={"Retry-After": "3600"})
    with within(1.0), pytest.raises(RateLimitError, match="some minutes"):
        fetch(server, folder)


def test_a_server_that_ignores_ranges_is_read_through(
    server: HubServer, folder: Path, connections: int
) -> None:
    kept = stopped_half_way(server, folder)
    server.fault("ignore-range", times=99)
    assert kept >= 0.4 * SIZE
    assert bytes_received(server, folder) <= 2.2 * SIZE  # twice where connections crossed
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
        await soon(lambda: download.progress().done >= 500_000 or task.done())
        server.signature = 2
        server.go_on()
        await task

    server.hold(900_000)
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
