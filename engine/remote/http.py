"""HTTP with one server: answers bounded in bytes and seconds, and a key that goes to its origin alone.

No redirect is followed and no encoding is asked for; what comes packed all the same is unpacked within bounds.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from engine.common.threads import ask
from engine.common.units import byte_size
from engine.hub.access import opened
from engine.remote import errors
from engine.remote.address import Address, is_loopback, is_private

if TYPE_CHECKING:
    import httpx2

CONNECT_SECONDS = 10.0
"""Longest wait for a connection."""
ANSWER_SECONDS = 20.0
"""Longest wait for a whole answer that is no reply."""
MOST_BYTES = 8 << 20
"""Bytes of such an answer, unpacked."""
MOST_REPLY_BYTES = 64 << 20
"""Bytes of a reply with all that is around it, unpacked."""
PIECE = 64 << 10

_KEY = re.compile(r"[\x21-\x7e]{1,4096}")


def is_key(text: str) -> bool:
    """Whether a text can be sent as a key."""
    return bool(_KEY.fullmatch(text))


class Http:
    """The connections to one server. `key` is in no `repr` and in no error."""

    def __init__(self, address: Address, key: str = "", plain: bool = False) -> None:
        """`plain`: the person allows the key to go in clear to a server that is not on a private network."""
        self.address = address
        self._key = key
        self._plain = plain
        self._url = ""
        self._client: httpx2.AsyncClient | None = None
        self._closed = False

    @property
    def has_key(self) -> bool:
        """Whether a key is sent."""
        return bool(self._key)

    async def open(self) -> httpx2.AsyncClient:
        """Get ready. Raises `ServerError`: the key may not be sent, or there is no such host."""
        if self._client is not None:
            return self._client
        if self._key and not is_key(self._key):
            raise errors.ServerKeyError(
                f"The key for {self.address.place} cannot be sent",
                "It is empty, too long, or holds blanks or other characters that no key has",
                "Give it again",
            )
        url, headers = self.address.origin, {"Accept-Encoding": "identity", "User-Agent": "ktchat"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
            if not self.address.encrypted:
                url = await self._where_the_key_may_go(headers)
        self._url = url
        client = await ask(_client, headers, self.address.encrypted)
        if self._closed:  # meanwhile, or before
            await client.aclose()
            raise self._failure(ConnectionError())
        self._client = client
        return client

    async def get(self, path: str) -> Any:
        """The JSON at a path of the server (`/v1/models`). Raises `ServerError` and what `_answer` does."""
        return await self._answer("GET", path, None)

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that answers a body. Raises `ServerError`."""
        return await self._answer("POST", path, body)

    @asynccontextmanager
    async def stream(
        self, path: str, body: Mapping[str, Any]
    ) -> AsyncIterator[tuple[httpx2.Response, AsyncGenerator[bytes, None]]]:
        """The answer to a body as it comes, in pieces; however long it takes. Raises `ServerError`."""
        import httpx2

        client = await self.open()
        content = json.dumps(body).encode()
        timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS, write=60.0, pool=CONNECT_SECONDS)
        request = client.build_request(
            "POST",
            self._url + path,
            content=content,
            headers={"Content-Type": "application/json", "Accept": "text/event-stream"},
            timeout=timeout,
        )
        response = await self._sent(client, request)
        try:
            async with aclosing(self._pieces(response, MOST_REPLY_BYTES)) as pieces:
                yield response, pieces
        finally:
            await response.aclose()

    async def refusal(
        self, response: httpx2.Response, pieces: AsyncGenerator[bytes, None]
    ) -> tuple[int, Mapping[str, str], str]:
        """Status, headers and words of an answer that is none."""
        body = bytearray()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                async for piece in pieces:
                    body += piece
                    if len(body) > PIECE:
                        break
        except (errors.ServerError, TimeoutError):
            pass  # the status says enough
        return response.status_code, response.headers, errors.said(bytes(body), self._key)

    def quoted(self, data: Mapping[str, Any]) -> str:
        """What the server says of a failure in the middle of a reply."""
        return errors.said(data, self._key)

    async def close(self) -> None:
        """Close every connection; whoever waits for an answer gets an error."""
        self._closed = True
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def is_alive(self, path: str, seconds: float) -> bool | None:
        """Whether the server answers anything at all; None: nobody listens there any more."""
        import httpx2

        if self._client is None:
            return False
        try:
            async with self._client.stream("GET", self._url + path, timeout=seconds):
                return True
        except httpx2.ConnectError:
            return None
        except (httpx2.HTTPError, httpx2.StreamError):
            return False

    # Inside.

    async def _where_the_key_may_go(self, headers: dict[str, str]) -> str:
        """The origin for requests with a key in clear: a name is looked up once, so that what was checked is
        what is connected to. Raises `ServerError`."""
        address = self.address
        host = address.host.strip("[]")
        if self._plain or is_loopback(host) or is_private(host):
            return address.origin
        try:
            found = await ask(
                socket.getaddrinfo, host, address.port, socket.AF_UNSPEC, socket.SOCK_STREAM
            )
        except (OSError, UnicodeError):
            raise errors.ServerUnreachableError(
                f"{address.place} cannot be reached",
                "There is no host of that name",
                "Check its address and the network",
            ) from None
        numbers = [str(entry[4][0]) for entry in sorted(found, key=lambda entry: entry[0])]
        if not numbers or not all(map(is_private, numbers)):
            raise errors.PlainKeyError(
                f"The key was not sent to {address.place}",
                "Without https everybody on the way could read it",
                "Use https, or allow it on the screen: Ctrl+O, servers, t",
            )
        headers["Host"] = address.place
        number = f"[{numbers[0]}]" if ":" in numbers[0] else numbers[0]
        return f"http://{number}:{address.port}"

    async def _sent(self, client: httpx2.AsyncClient, request: httpx2.Request) -> httpx2.Response:
        """The beginning of an answer; once again on a new connection where the kept one was cut meanwhile."""
        import httpx2

        for again in (True, False):
            try:
                return await client.send(request, stream=True)
            except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError) as error:
                if not again or _is_nonsense(error):
                    raise self._failure(error) from None
            except (
                httpx2.HTTPError,
                httpx2.InvalidURL,
                RuntimeError,
            ) as error:  # or closed meanwhile
                raise self._failure(error) from None
        raise AssertionError

    def _failure(self, error: Exception) -> errors.ServerError:
        if _is_nonsense(error):
            return errors.no_interface(self.address.place, "It does not speak HTTP")
        return errors.unreachable(self.address.place, error)

    async def _answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        client, place = await self.open(), self.address.place
        request = client.build_request(method, self._url + path, json=body, timeout=CONNECT_SECONDS)
        data = bytearray()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                response = await self._sent(client, request)
                try:
                    async with aclosing(self._pieces(response, MOST_BYTES)) as pieces:
                        if response.status_code == 404:
                            raise errors.no_interface(place, f"It does not know {path}")
                        if response.status_code != 200:
                            status, headers, words = await self.refusal(response, pieces)
                            raise errors.refusal(place, "", status, headers, words, self.has_key)
                        async for piece in pieces:
                            data += piece
                finally:
                    await response.aclose()
        except TimeoutError as error:
            raise errors.unreachable(place, error) from None
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise errors.no_interface(place, "Its answer is not JSON") from None

    async def _pieces(self, response: httpx2.Response, most: int) -> AsyncGenerator[bytes, None]:
        """The body, unpacked, in pieces of at most `PIECE` bytes."""
        import httpx2

        place, total = self.address.place, 0
        unpack = self._unpacking(response.headers.get("content-encoding", ""))
        try:
            async for packed in response.aiter_raw():
                waiting = packed
                while waiting:
                    if unpack is None:
                        piece, waiting = waiting[:PIECE], waiting[PIECE:]
                    else:
                        piece = unpack.decompress(waiting, PIECE)
                        waiting = unpack.unconsumed_tail
                    total += len(piece)
                    if total > most:
                        raise errors.ServerAnswerError(
                            f"The answer of {place} does not end",
                            f"It is longer than {byte_size(most)}",
                            errors.AGAIN,
                        )
                    if piece:
                        yield piece
        except zlib.error:
            raise errors.ServerAnswerError(
                f"The answer of {place} makes no sense", "It cannot be unpacked", "Try again"
            ) from None
        except (httpx2.HTTPError, httpx2.StreamError):
            raise errors.broke_off(place) from None

    def _unpacking(self, encoding: str) -> Any:
        encoding = encoding.strip().lower()
        if encoding in ("", "identity"):
            return None
        if encoding in ("gzip", "x-gzip", "deflate"):
            return zlib.decompressobj(47)  # the header tells which of the two
        raise errors.ServerAnswerError(
            f"The answer of {self.address.place} makes no sense",
            "It is packed in a way that was not asked for",
            "Check what stands between here and the server",
        )


def _is_nonsense(error: Exception) -> bool:
    """Whether what came is no HTTP, and not a connection that was closed."""
    import httpx2

    return isinstance(error, httpx2.RemoteProtocolError) and "disconnected" not in str(error)


def _client(headers: Mapping[str, str], encrypted: bool) -> httpx2.AsyncClient:
    """A client; a proxy of the environment is used for https alone, where it sees nothing. Blocks shortly."""
    import httpx2

    return opened(
        lambda: httpx2.AsyncClient(
            headers=dict(headers),
            verify=encrypted,
            trust_env=encrypted,
            follow_redirects=False,
        )
    )
