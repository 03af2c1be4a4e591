"""What goes wrong with a server, in words. What it said itself is quoted, bounded and without the key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from engine.common.units import duration
from engine.errors import ContextError, KtchatError, RequestError
from engine.hub.access import retry_after

LONGEST_QUOTE = 300
"""Characters of what a server said."""

AGAIN = "What came is kept; Ctrl+R tries again"


class AddressError(RequestError):
    """No address of a server."""


class ServerError(KtchatError):
    """A server of models that refuses, fails or cannot be reached."""


class ServerUnreachableError(ServerError):
    """No connection, or no answer in time."""


class ServerBrokeOffError(ServerError):
    """An answer that ended before its end; what came is kept."""


class ServerAnswerError(ServerError):
    """An answer that makes no sense, or that does not end."""


class ServerKeyError(ServerError):
    """The server wants a key, or does not accept the one it got."""


class ServerModelError(ServerError):
    """The server has no such model, or several and none was named."""


class ServerBusyError(ServerError):
    """The server wants a pause."""


class PlainKeyError(ServerKeyError):
    """The key would go over a network in clear, and nobody has said yes to that."""


_TOO_LONG = re.compile(
    r"maximum context length|context[ _](?:length|window|size)|exceed_context_size"
    r"|exceeds? the (?:available |model'?s )?(?:maximum )?(?:context|input)"
    r"|longer than the model'?s (?:maximum )?context|prompt is too long|too many (?:input )?tokens",
    re.IGNORECASE,
)


def said(body: bytes | Mapping[str, Any], key: str = "") -> str:
    """What a server says of its refusal, in one line; empty: nothing."""
    data: Any = body
    if isinstance(body, bytes):
        try:
            data = json.loads(body)
        except (ValueError, RecursionError):
            text = body.decode("utf-8", "replace")
            return "" if "<" in text[:200] else _quoted(text, key)
    for _ in range(4):
        if not isinstance(data, Mapping):
            break
        data = next((data[name] for name in ("error", "message", "detail") if data.get(name)), "")
    if isinstance(data, list):  # of a server that checks fields: where, and what
        parts = [
            f"{'.'.join(map(str, item.get('loc', ())))}: {item.get('msg', '')}"
            for item in data[:20]
            if isinstance(item, Mapping) and isinstance(item.get("loc", ()), list)
        ]
        data = "; ".join(parts)
    return _quoted(data, key) if isinstance(data, str) else ""


def _quoted(text: str, key: str) -> str:
    text = text[: 8 * LONGEST_QUOTE]
    if key:
        text = text.replace(key, "…")
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= LONGEST_QUOTE else line[: LONGEST_QUOTE - 1].rstrip() + "…"


def refusal(
    place: str, model: str, status: int, headers: Mapping[str, str], words: str, has_key: bool
) -> KtchatError:
    """What a status means; `words`: what the server said, see `said`."""
    quote = f"It says: {words}" if words else ""
    if status in (401, 403):
        return _key_refused(place, status, quote, has_key)
    if is_too_long(status, words):
        return ContextError(
            "The conversation is longer than the model's context",
            quote or "The server does not take as much",
            "Begin a new session with Ctrl+N, or shorten the message",
        )
    if status == 404 and model:
        return ServerModelError(
            f"{place} has no model {model}", quote, "Ctrl+O, servers, t says which there are"
        )
    if status == 429:
        wait = retry_after(headers)
        todo = f"Try again in {duration(wait)}, with Ctrl+R" if wait else "Try again with Ctrl+R"
        return ServerBusyError(f"{place} wants a pause", quote or "Too much was asked", todo)
    if 300 <= status < 400:
        return ServerAnswerError(
            f"{place} sends on to another address",
            "It is not followed: what is sent is for this server alone",
            "Give the server's own address",
        )
    if status >= 500:
        return ServerError(f"{place} has a failure ({status})", quote, "Ctrl+R tries again")
    return ServerError(f"{place} refuses ({status})", quote, "Check the address and the model")


def is_too_long(status: int, words: str) -> bool:
    """Whether a refusal is that of a prompt longer than the context."""
    return status == 413 or (status in (0, 400, 422, 500) and bool(_TOO_LONG.search(words)))


def _key_refused(place: str, status: int, quote: str, has_key: bool) -> ServerKeyError:
    if not has_key:
        return ServerKeyError(
            f"{place} wants a key",
            quote,
            "Give one: Ctrl+O, servers, e; or set KTCHAT_ENDPOINT_KEY with --endpoint",
        )
    if status == 403:
        return ServerKeyError(
            f"{place} refuses", quote or "The key does not allow it", "Use another key"
        )
    return ServerKeyError(
        f"{place} does not accept the key", quote, "Check it: Ctrl+O, servers, e gives another"
    )


def no_interface(place: str, why: str) -> ServerAnswerError:
    """The error for a server that is something else."""
    return ServerAnswerError(
        f"{place} does not answer as a server of models does",
        why,
        "Check the address: it ends with /v1",
    )


def unreachable(place: str, error: Exception) -> ServerUnreachableError:
    """What a failed connection means; the words of the library are not shown."""
    import httpx2

    todo = "Start the server, or check its address and the network"
    if isinstance(error, httpx2.ConnectTimeout):
        why = "It does not answer in time"
    elif isinstance(error, httpx2.ConnectError):
        why = _why_not(error)
        if why == _CERTIFICATE:
            todo = "Check the address; a certificate of your own goes into SSL_CERT_FILE"
    elif isinstance(error, httpx2.TimeoutException | TimeoutError):
        why = "It does not answer in time"
    else:
        why = "The connection broke"
    return ServerUnreachableError(f"{place} cannot be reached", why, todo)


_CERTIFICATE = "Its certificate cannot be verified"


def _why_not(error: BaseException) -> str:
    """The system's reason, somewhere in the chain of causes."""
    seen: BaseException | None = error
    while seen is not None:
        text = f"{type(seen).__name__} {seen}"
        if isinstance(seen, ConnectionRefusedError) or "refused" in text:
            return "Nothing listens there"
        if "gaierror" in text or "Name or service" in text or "name resolution" in text:
            return "There is no host of that name"
        if "CERTIFICATE_VERIFY" in text:
            return _CERTIFICATE
        if "SSL" in text:
            return "It does not speak https"
        if "unreachable" in text or "No route" in text:
            return "There is no way to that host"
        seen = seen.__cause__ or seen.__context__
    return "No connection could be made"


def broke_off(place: str, silent: bool = False) -> ServerBrokeOffError:
    """The error for an answer without an end; `silent`: nothing of it came."""
    if silent:
        return ServerBrokeOffError(
            f"{place} broke off before its first word",
            "It went away, or the conversation is longer than its context",
            "Ctrl+R tries again, Ctrl+N begins a new session",
        )
    return ServerBrokeOffError(f"{place} broke off", "The connection ended in the middle", AGAIN)
