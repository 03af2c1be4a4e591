"""One reply of a server: the request, again without what it refuses; the stream; and the watch over it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from engine.errors import KtchatError
from engine.protocol import Event, Figures, Notice, Quiet, Reason
from engine.remote import errors
from engine.remote.events import Events, EventTooLongError
from engine.remote.http import Http
from engine.remote.reply import ReplyReader, ServerSaysError
from engine.remote.request import Refused
from engine.remote.server import api_path, root_path

if TYPE_CHECKING:
    import httpx2

PULSE_SECONDS = 5.0
"""Longest wait for a sign of life."""
GONE = 3
"""After so many attempts in a row at which nobody listened the server is gone."""

Say = Callable[[Event], None]


class Answering:
    """A reply on its way."""

    def __init__(
        self, http: Http, fields: dict[str, Any], refused: Refused, context: int, quiet: float
    ) -> None:
        """`context` in tokens, 0: unknown; `quiet`: seconds without a byte until the server is asked."""
        self._http = http
        self._fields = fields
        self._refused = refused
        self._context = context
        self._quiet = quiet
        self._reader = self._new_reader()
        self._heard = time.monotonic()
        self._is_quiet = False

    async def run(self, say: Say) -> None:
        """Have the reply written; `say` is told all but its end. Raises `KtchatError`."""
        reading = asyncio.create_task(self._read(say))
        watching = asyncio.create_task(self._watch(say))
        try:
            await asyncio.wait({reading, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise await watching
            await reading
        finally:
            for task in (reading, watching):
                task.cancel()
            await asyncio.wait({reading, watching})

    def rest(self) -> Iterator[Event]:
        """What was held back of a reply that was stopped."""
        yield from self._reader.flush()

    def figures(self) -> Figures:
        """The reply in numbers so far."""
        return self._reader.figures()

    @property
    def reason(self) -> Reason:
        """Why it ended."""
        return self._reader.reason

    # The request.

    async def _read(self, say: Say) -> None:
        http, place = self._http, self._http.address.place
        path = api_path(http.address, "chat/completions")
        for _ in range(len(self._fields) + 1):
            sent = self._refused.without(self._fields)
            self._reader = self._new_reader()  # time counts from here
            async with http.stream(path, sent) as (response, pieces):
                self._hear(say)
                if response.status_code == 200:
                    await self._take(response, pieces, say)
                    return
                status, headers, words = await http.refusal(response, pieces)
            named = []
            if not errors.is_too_long(status, words):
                named = self._refused.learn(status, words, sent)
            if not named:
                raise errors.refusal(
                    place, str(sent["model"]), status, headers, words, http.has_key
                )
            say(Notice(f"{place} does not take {' and '.join(named)}: left out from now on."))

    def _new_reader(self) -> ReplyReader:
        limit = self._fields.get("max_tokens")
        seed = self._fields["seed"] if "seed" in self._refused.without(self._fields) else 0
        return ReplyReader(self._context, seed, limit)

    # The stream.

    async def _take(
        self, response: httpx2.Response, pieces: AsyncGenerator[bytes, None], say: Say
    ) -> None:
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            await self._take_whole(pieces, say)
        elif kind == "text/event-stream":
            await self._take_events(pieces, say)
        else:
            raise errors.no_interface(
                self._http.address.place, "Its answer is neither a stream of events nor JSON"
            )
        for event in self._reader.flush():
            say(event)
        if not self._reader.finish:
            raise self._broke_off()

    async def _take_events(self, pieces: AsyncGenerator[bytes, None], say: Say) -> None:
        events = Events()
        try:
            async for piece in pieces:
                self._hear(say)
                for data in events.feed(piece):
                    self._feed(data, say)
                    if self._reader.done:
                        return
        except EventTooLongError:
            raise self._nonsense("A piece of it does not end") from None
        except errors.ServerBrokeOffError:
            for event in self._reader.flush():
                say(event)
            if not self._reader.finish:
                raise self._broke_off() from None

    async def _take_whole(self, pieces: AsyncGenerator[bytes, None], say: Say) -> None:
        """The answer of a server that does not stream."""
        whole = bytearray()
        async for piece in pieces:
            self._hear(say)
            whole += piece
        self._feed(whole.decode("utf-8", "replace"), say)

    def _feed(self, data: str, say: Say) -> None:
        try:
            for event in self._reader.feed(data):
                say(event)
        except ServerSaysError as error:
            raise self._failure(error.data) from None
        except ValueError:
            raise self._nonsense("It is not JSON") from None

    def _failure(self, data: Mapping[str, Any]) -> KtchatError:
        words, place = self._http.quoted(data), self._http.address.place
        inner = data.get("error")
        code = inner.get("code") if isinstance(inner, Mapping) else None
        if errors.is_too_long(0, words) and not self.figures().reply_tokens:
            return errors.refusal(place, "", 400, {}, words, self._http.has_key)
        if type(code) is int and code in (401, 403, 429):
            return errors.refusal(place, "", code, {}, words, self._http.has_key)
        return errors.ServerError(
            f"{place} failed", f"It says: {words}" if words else "", errors.AGAIN
        )

    def _broke_off(self) -> KtchatError:
        return errors.broke_off(self._http.address.place, silent=self._reader.empty)

    def _nonsense(self, why: str) -> errors.ServerAnswerError:
        place = self._http.address.place
        return errors.ServerAnswerError(f"The answer of {place} makes no sense", why, errors.AGAIN)

    # The watch.

    async def _watch(self, say: Say) -> KtchatError:
        """Look at the server's pulse while no byte comes; returns when nobody listens there any more.

        Any answer is a sign of life: a server that does not know the path lives too.
        """
        gone, path = 0, root_path(self._http.address, "health")
        while gone < GONE:
            passed = time.monotonic() - self._heard
            if passed < self._quiet:
                gone = 0
                await asyncio.sleep(self._quiet - passed)
                continue
            alive = await self._http.is_alive(path, PULSE_SECONDS)
            if time.monotonic() - self._heard < self._quiet:
                continue
            gone = gone + 1 if alive is None else 0
            self._say_quiet(not alive, say)
            await asyncio.sleep(self._quiet / GONE)
        return errors.broke_off(self._http.address.place)

    def _hear(self, say: Say) -> None:
        self._heard = time.monotonic()
        self._say_quiet(False, say)

    def _say_quiet(self, quiet: bool, say: Say) -> None:
        if quiet != self._is_quiet:
            self._is_quiet = quiet
            say(Quiet(quiet))
