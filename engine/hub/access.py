"""Where the hub is, who gets its token, and what its refusals mean.

A token goes to the configured endpoint alone, and never in clear over a network. Whether it may go to an
endpoint that is not the hub's is the person's to say: `engine.hub.client.access_from_environment`.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import quote, urlsplit

from engine.errors import KtchatError
from engine.hub.errors import (
    FileChangedError,
    GatedModelError,
    HubError,
    HubMissingError,
    HubNetworkError,
    HubServerError,
    HubTokenError,
    RateLimitError,
)
from engine.hub.names import HUB_HOSTS, HubFile

T = TypeVar("T")

DEFAULT_ENDPOINT = "https://huggingface.co"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


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
        scheme, host, _ = origin_of(self.endpoint)
        if scheme not in ("http", "https") or not host:
            raise HubError(
                "HF_ENDPOINT is not an address", "", "Set it to https://HOST, or unset it"
            )
        if "@" in urlsplit(self.endpoint).netloc:
            raise HubError("HF_ENDPOINT holds a password", "It would be shown", "Use HF_TOKEN")

    @property
    def hosts(self) -> frozenset[str]:
        """The endpoint's own host name."""
        return frozenset({origin_of(self.endpoint)[1]})

    @property
    def asks(self) -> bool:
        """Whether a token would go to a machine that is neither the hub nor this one."""
        scheme, host, port = origin_of(self.endpoint)
        hub = scheme == "https" and host in HUB_HOSTS and port == 443
        return bool(self.headers(self.endpoint)) and not hub and host not in _LOOPBACK

    def file_url(self, file: HubFile) -> str:
        """The address of a file at its commit."""
        return f"{self.endpoint}/{file.repo}/resolve/{quote(file.commit)}/{quote(file.path)}"

    def headers(self, url: str) -> dict[str, str]:
        """The token for `url`: at the endpoint itself, and never in clear over a network."""
        origin = origin_of(url)
        private = origin[0] == "https" or origin[1] in _LOOPBACK
        if self.token and private and origin == origin_of(self.endpoint):
            return {"Authorization": f"Bearer {self.token}"}
        return {}

    def check(self, url: str) -> None:
        """Refuse an address that leaves encryption. Raises `HubServerError`."""
        scheme, host, _ = origin_of(url)
        allowed = ("https", "http") if self.endpoint.startswith("http://") else ("https",)
        if scheme not in allowed or not host:
            raise HubServerError(
                "The hub redirects to an address that is not https",
                "Bytes could be changed on their way",
                "Try again later",
            )


def opened(make: Callable[[], T]) -> T:
    """A client for the hub. Raises `HubError` where the environment names a proxy that it cannot use."""
    try:
        return make()
    except (ImportError, ValueError) as error:
        raise HubError(
            "The proxy cannot be used",
            "A variable such as ALL_PROXY names one that is not http",
            "Name an http proxy, unset it, or install socksio beside ktchat for socks5://",
        ) from error


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
        return parts.scheme, (parts.hostname or "").lower(), port
    except ValueError:
        return "", "", 0


def changed(file: HubFile) -> FileChangedError:
    """The error for a file that is not the one that was listed."""
    return FileChangedError(
        f"{file.name} has changed on the hub",
        "It is not the file that was listed",
        "Download it again to get the new version",
    )


def network_error(error: Exception, downloading: bool = False) -> HubNetworkError:
    """What a broken connection means; the words of the library may hold a signed address."""
    import httpx2

    if isinstance(error, httpx2.TimeoutException):
        why = "The server did not answer in time"
    elif isinstance(error, httpx2.ConnectError):
        why = "No connection could be made"
    else:
        why = "The connection broke"
    todo = "Check the network; what came is kept" if downloading else "Check the network"
    return HubNetworkError("The hub cannot be reached", why, todo)


def failure(
    access: HubAccess, repo: str, status: int, headers: Mapping[str, str], url: str = ""
) -> Exception:
    """What a refusal means: a `RetryableError` if it may pass, else a `KtchatError`."""
    busy = busy_error(status)
    if busy is not None:
        return RetryableError(busy, wait=retry_after(headers))
    if url and origin_of(url) != origin_of(access.endpoint):
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


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asked to wait, at most a day; 0: it did not."""
    text = headers.get("retry-after", "").strip()
    if text.isdigit():
        return min(float(text), 86400.0)
    try:
        when = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    return max(0.0, min(when - time.time(), 86400.0))
