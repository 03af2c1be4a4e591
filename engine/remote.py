"""Requests for a hub's files: who gets the token, which redirects are followed, what an answer means.

Knows addresses, headers and status codes. Knows nothing of blocks, disks or of what the bytes mean.
A token goes to the configured endpoint alone; a redirect elsewhere is followed without it.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin, urlsplit

from engine.errors import KtchatError
from engine.hub_errors import (
    FileChangedError,
    GatedModelError,
    HubError,
    HubMissingError,
    HubNetworkError,
    HubServerError,
    HubTokenError,
    RateLimitError,
)
from engine.hub_names import HubFile

if TYPE_CHECKING:
    import httpx2

DEFAULT_ENDPOINT = "https://huggingface.co"
MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


class RetryableError(Exception):
    """A failure that may pass. `wait`: seconds that the server asked for; 0: it did not."""

    def __init__(self, error: KtchatError, wait: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait = wait


@dataclass(frozen=True, slots=True)
class HubAccess:
    """Where the hub is and what opens it. The token is in no `repr`."""

    endpoint: str = DEFAULT_ENDPOINT
    token: str | None = field(default=None, repr=False)
    offline: bool = False

    def __post_init__(self) -> None:
        scheme, host, _ = _origin(self.endpoint)
        if scheme not in ("http", "https") or not host:
            raise HubError(
                "HF_ENDPOINT is not an address", "", "Set it to https://HOST, or unset it"
            )

    @property
    def hosts(self) -> frozenset[str]:
        """The endpoint's own host name."""
        return frozenset({_origin(self.endpoint)[1]})

    def file_url(self, file: HubFile) -> str:
        """The address of a file at its commit."""
        return f"{self.endpoint}/{file.repo}/resolve/{quote(file.commit)}/{quote(file.path)}"

    def headers(self, url: str) -> dict[str, str]:
        """The token for `url`: at the endpoint itself, and never in clear over a network."""
        origin = _origin(url)
        private = origin[0] == "https" or origin[1] in _LOOPBACK
        if self.token and private and origin == _origin(self.endpoint):
            return {"Authorization": f"Bearer {self.token}"}
        return {}

    def check(self, url: str) -> None:
        """Refuse an address that leaves encryption. Raises `HubServerError`."""
        scheme, host, _ = _origin(url)
        allowed = ("https", "http") if self.endpoint.startswith("http://") else ("https",)
        if scheme not in allowed or not host:
            raise HubServerError(
                "The hub redirects to an address that is not https",
                "Bytes could be changed on their way",
                "Try again later",
            )


@dataclass(frozen=True, slots=True)
class Answer:
    """A body that is about to be read: bytes `start` to `end` (not included) of `size`."""

    response: httpx2.Response
    start: int
    end: int
    etag: str
    """Of the server that sends the body; empty when it is weak or absent."""


def _origin(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
        return parts.scheme, (parts.hostname or "").lower(), port
    except ValueError:
        return "", "", 0


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
        raise RetryableError(network_error(error)) from error
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


def changed(file: HubFile) -> FileChangedError:
    """The error for a file that is not the one that was listed."""
    return FileChangedError(
        f"{file.name} has changed on the hub",
        "It is not the file that was listed",
        "Download it again to get the new version",
    )


def network_error(error: Exception) -> HubNetworkError:
    """What a broken connection means; the words of the library may hold a signed address."""
    import httpx2

    if isinstance(error, httpx2.TimeoutException):
        why = "The server did not answer in time"
    elif isinstance(error, httpx2.ConnectError):
        why = "No connection could be made"
    else:
        why = "The connection broke"
    return HubNetworkError("The hub cannot be reached", why, "Check the network; what came is kept")


def failure(
    access: HubAccess, repo: str, status: int, headers: Mapping[str, str], url: str = ""
) -> Exception:
    """What a refusal means: a `RetryableError` if it may pass, else a `KtchatError`."""
    busy = busy_error(status)
    if busy is not None:
        return RetryableError(busy, wait=_retry_after(headers))
    if url and _origin(url) != _origin(access.endpoint):
        # A signed address that expired; the next attempt asks the hub for a fresh one.
        return RetryableError(
            HubServerError(f"The file server refuses the file ({status})", "", "Try again later")
        )
    page = f"{access.endpoint}/{repo}"
    code = headers.get("x-error-code", "")
    if code == "GatedRepo":
        return _gated(access, repo, page)
    if status == 401 and access.token:
        return HubTokenError(
            "The hub does not accept the token",
            "It is wrong, has expired, or the repository does not exist",
            "Make a new one at huggingface.co/settings/tokens and set HF_TOKEN",
        )
    if status in (401, 404) or code in ("RepoNotFound", "EntryNotFound", "RevisionNotFound"):
        return _missing(access, repo, code)
    if status == 403:
        return HubTokenError(
            f"The hub refuses access to {repo}",
            "The token does not allow it",
            "Make one that may read it at huggingface.co/settings/tokens and set HF_TOKEN",
        )
    if status == 416:
        return RetryableError(
            HubServerError("The server has a shorter file than it listed", "", "Try again later")
        )
    return HubServerError(f"The hub answers with status {status}", "", "Try again later")


def busy_error(status: int) -> HubError | None:
    """What a status means that may pass; None for the others."""
    if status != 408 and status != 429 and status < 500:
        return None
    if status == 429:
        return RateLimitError(
            "The hub wants a pause",
            "Too many requests came from here",
            "Try again in some minutes, or set HF_TOKEN for a higher limit",
        )
    return HubServerError(f"The hub has a failure ({status})", "", "Try again later")


def _gated(access: HubAccess, repo: str, page: str) -> GatedModelError:
    then = "then try again" if access.token else "then set HF_TOKEN to your token"
    return GatedModelError(
        f"{repo} is gated",
        "Its owner wants the licence to be accepted",
        f"Accept it at {page}, {then}",
    )


def _missing(access: HubAccess, repo: str, code: str) -> HubMissingError:
    if code == "EntryNotFound":
        return HubMissingError(f"{repo} does not have that file", "", "See: ktchat models info")
    if code == "RevisionNotFound":
        return HubMissingError(f"{repo} does not have that revision")
    todo = "Check the name" if access.token else "Check the name; for a private one set HF_TOKEN"
    return HubMissingError(f"{repo} is not on the hub", "", todo)


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("retry-after", "").strip()
    if text.isdigit():
        return min(float(text), 86400.0)
    try:
        when = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    return max(0.0, min(when - time.time(), 86400.0))
