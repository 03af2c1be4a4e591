"""Reading parts of a file on the hub, for a plan before its download.

What was read is cached; how much may be fetched is bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from engine.common.units import byte_size
from engine.hub.access import HubAccess, RetryableError
from engine.hub.errors import HubServerError
from engine.hub.names import HubFile
from engine.hub.ranges import open_range_blocking

if TYPE_CHECKING:
    import httpx2


class RemoteFile:
    """A file on the hub, of which only the asked-for parts are fetched. For one thread at a time.

    For a plan before a download: `spec_from_header(remote.read, remote.size)`.
    """

    CHUNK = 256 << 10
    READ_AHEAD = 4
    """Chunks asked for at once when reads follow each other, as in a header."""
    LIMIT = 64 << 20
    """Bytes fetched in all; the headers of the largest vocabularies take 20 MiB."""
    CACHED = 128

    def __init__(self, client: httpx2.Client, access: HubAccess, file: HubFile) -> None:
        self._client = client
        self._access = access
        self._file = file
        self._chunks: OrderedDict[int, bytes] = OrderedDict()
        self._last = -1
        self.size = file.size
        self.fetched = 0
        """Bytes that went over the network."""

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`, fewer at the end of the file. Raises `HubError`."""
        end = min(offset + count, self.size)
        if offset < 0 or count <= 0 or offset >= end:
            return b""
        first, last = offset // self.CHUNK, (end - 1) // self.CHUNK
        data = b"".join(self._chunk(number, last) for number in range(first, last + 1))
        skipped = offset - first * self.CHUNK
        return data[skipped : skipped + end - offset]

    def _chunk(self, number: int, wanted: int) -> bytes:
        if number not in self._chunks:
            ahead = self.READ_AHEAD if number == self._last + 1 and number else 1
            self._fetch(number, max(wanted - number + 1, ahead))
        self._chunks.move_to_end(number)
        return self._chunks[number]

    def _fetch(self, first: int, count: int) -> None:
        start, end = first * self.CHUNK, min((first + count) * self.CHUNK, self.size)
        if self.fetched + end - start > self.LIMIT:
            raise HubServerError(
                f"The header of {self._file.name} is too large",
                f"It has over {byte_size(self.LIMIT)}",
            )
        data = self._with_one_retry(start, end)
        for number in range(first, first + -(-(end - start) // self.CHUNK)):
            begin = (number - first) * self.CHUNK
            self._chunks[number] = data[begin : begin + self.CHUNK]
            self._last = number
        while len(self._chunks) > self.CACHED + count:
            self._chunks.popitem(last=False)

    def _with_one_retry(self, start: int, end: int) -> bytes:
        try:
            return self._download(start, end)
        except RetryableError:
            pass
        try:
            return self._download(start, end)
        except RetryableError as error:
            raise error.error from None

    def _download(self, start: int, end: int) -> bytes:
        data = bytearray()
        with open_range_blocking(self._client, self._access, self._file, start, end) as answer:
            if answer.start != start and start > 1 << 20:
                raise HubServerError(
                    "The server cannot send parts of a file", "", "Plan after the download"
                )
            skip = start - answer.start
            for piece in answer.response.iter_raw():
                data += piece
                self.fetched += len(piece)
                if len(data) >= skip + end - start:
                    break
        if len(data) < skip + end - start:
            raise RetryableError(HubServerError("The connection broke", "", "Try again"))
        return bytes(data[skip : skip + end - start])
