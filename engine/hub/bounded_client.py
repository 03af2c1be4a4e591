"""The HTTP client that huggingface-hub is given: an answer is bounded in bytes and in seconds.

The library reads an answer to its end, however long it is and however slowly it comes, and unpacks it.
"""

from __future__ import annotations

import time
from typing import Any

import httpx2

from engine.common.units import byte_size
from engine.hub.access import busy_error, network_error, opened
from engine.hub.errors import HubServerError

SECONDS_A_BYTE = 20.0
"""Seconds without a byte after which a request is given up."""

MOST_SECONDS = 30.0
"""Seconds for a whole answer."""

MOST_BYTES = 32 << 20
"""Bytes of an answer, unpacked; a list of 20 thousand files takes 8 MB."""


class BoundedClient(httpx2.Client):
    """Raises our errors at once where the library would patiently retry."""

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """The answer, read whole. Raises `HubError`."""
        try:
            response = super().send(request, **{**options, "stream": True})
            if options.get("stream"):
                return response
            return self._whole(response)
        except httpx2.TransportError as error:
            raise network_error(error) from None

    def _whole(self, response: httpx2.Response) -> httpx2.Response:
        try:
            busy = busy_error(response.status_code)
            if busy is not None:
                raise busy
            data, until = bytearray(), time.monotonic() + MOST_SECONDS
            for piece in response.iter_bytes():
                data += piece
                if len(data) > MOST_BYTES:
                    raise _nonsense(f"It is longer than {byte_size(MOST_BYTES)}")
                if time.monotonic() > until:
                    raise _nonsense(f"It takes longer than {MOST_SECONDS:g} seconds")
        except httpx2.DecodingError:
            raise _nonsense("It cannot be unpacked") from None
        finally:
            response.close()
        headers = [
            (name, value)
            for name, value in response.headers.multi_items()
            if name.lower() not in ("content-encoding", "content-length", "transfer-encoding")
        ]
        whole = httpx2.Response(
            response.status_code, headers=headers, content=bytes(data), request=response.request
        )
        whole.history, whole.next_request = response.history, response.next_request
        return whole


def bounded_client() -> httpx2.Client:
    """A client for one thread or several. Raises `HubError` where a proxy cannot be used."""
    return opened(lambda: BoundedClient(timeout=SECONDS_A_BYTE, follow_redirects=True))


def _nonsense(why: str) -> HubServerError:
    return HubServerError("The hub's answer makes no sense", why, "Try again later")
