"""HTTP range requests for the hub's files: redirects, ranges, and whether the answer is the right one.

Every hop is asked with the headers that `engine.hub.access` allows for it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from engine.hub.access import HubAccess, RetryableError, changed, failure, network_error
from engine.hub.errors import HubServerError
from engine.hub.names import HubFile

if TYPE_CHECKING:
    import httpx2

MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Answer:
    """A body that is about to be read: bytes `start` to `end` (not included) of `size`."""

    response: httpx2.Response
    start: int
    end: int
    etag: str
    """Of the server that sends the body; empty when it is weak or absent."""


@asynccontextmanager
async def open_range(
    client: httpx2.AsyncClient,
    access: HubAccess,
    file: HubFile,
    start: int,
    end: int,
    etag: str = "",
) -> AsyncIterator[Answer]:
    """Ask for bytes `start` to `end` of a file; a server may send the whole file instead.

    Raises `RetryableError` for what may pass and `KtchatError` for what will not.
    """
    import httpx2

    url = access.file_url(file)
    try:
        for _ in range(MAX_REDIRECTS):
            headers = _headers(access, url, start, end, etag)
            async with client.stream("GET", url, headers=headers) as response:
                target = _next_hop(access, file, url, response)
                if target is None:
                    yield _answer(access, file, url, response, start, end)
                    return
                url = target
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        raise RetryableError(network_error(error, downloading=True)) from error
    raise HubServerError("The hub redirects in circles", "", "Try again later")


@contextmanager
def open_range_blocking(
    client: httpx2.Client, access: HubAccess, file: HubFile, start: int, end: int
) -> Iterator[Answer]:
    """As `open_range`, for a thread."""
    import httpx2

    url = access.file_url(file)
    try:
        for _ in range(MAX_REDIRECTS):
            headers = _headers(access, url, start, end, "")
            with client.stream("GET", url, headers=headers) as response:
                target = _next_hop(access, file, url, response)
                if target is None:
                    yield _answer(access, file, url, response, start, end)
                    return
                url = target
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        raise RetryableError(network_error(error)) from error
    raise HubServerError("The hub redirects in circles", "", "Try again later")


def _headers(access: HubAccess, url: str, start: int, end: int, etag: str) -> dict[str, str]:
    headers = {
        "Range": f"bytes={start}-{end - 1}",
        "Accept-Encoding": "identity",
        "User-Agent": "ktchat",
        **access.headers(url),
    }
    if etag:
        headers["If-Range"] = etag  # the hop that redirects ignores it
    return headers


def _next_hop(access: HubAccess, file: HubFile, url: str, response: httpx2.Response) -> str | None:
    """Where to ask next; None when `response` is the answer. Raises on every failure."""
    linked = response.headers.get("x-linked-etag", "").strip('W/"')
    pinned = re.fullmatch("[0-9a-f]{64}", linked) and file.checksum.startswith("sha256:")
    if pinned and file.checksum != f"sha256:{linked}":
        raise changed(file)
    if response.status_code in _REDIRECTS:
        target = urljoin(url, response.headers.get("location", ""))
        access.check(target)
        return target
    if response.status_code in (200, 206):
        return None
    raise failure(access, file.repo, response.status_code, response.headers, url)


def _answer(
    access: HubAccess, file: HubFile, url: str, response: httpx2.Response, start: int, end: int
) -> Answer:
    headers = response.headers
    if headers.get("content-encoding", "identity") != "identity":
        raise HubServerError("The server packs the file", "It was asked not to", "Try again later")
    etag = headers.get("etag", "")
    etag = etag if etag.startswith('"') else ""
    if response.status_code == 200:
        length = headers.get("content-length", str(file.size))
        if length != str(file.size):
            raise changed(file)
        return Answer(response, 0, file.size, etag)
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if match is None or int(match[1]) != start or not start <= int(match[2]) < end:
        raise RetryableError(
            HubServerError("The server sends another part than was asked for", "", "Try again")
        )
    if int(match[3]) != file.size:
        raise changed(file)
    return Answer(response, start, int(match[2]) + 1, etag)
