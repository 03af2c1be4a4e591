"""The engine's child process: `python -m engine.worker <socket>`.

The main thread's asyncio loop reads commands and writes events; one background thread owns the model
and decodes. The process ends when its parent does.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import queue
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from engine.common.os_errors import os_reason
from engine.errors import EngineError, KtchatError, MemoryShortError, RequestError
from engine.generation.counting import Counting
from engine.process import confinement, fault_injection
from engine.process.lifetime import die_with_parent
from engine.protocol import (
    AnswerNow,
    Cancel,
    Close,
    Count,
    Counted,
    Event,
    Failed,
    Generate,
    Last,
    Load,
    Notice,
    Observe,
    Progress,
    enqueue,
)
from engine.wire import Frames, Item, encode

if TYPE_CHECKING:
    from engine.runtimes.base import CancelFlag, Model

Emit = Callable[[Event], None]
OpenModel = Callable[[Load, "CancelFlag", Emit], "Model"]
"""Loads a model; emits Progress and Notice meanwhile."""

INTERVAL = 0.015
"""Seconds between two sendings while text streams: less than a screen's frame."""


LEAVE_SECONDS = 2.0
"""How long a model that gives way to another one may still write to the disk."""


class Outbox:
    """Events on their way out: `emit` in any thread, sent by the loop, coalesced in between.

    The first event of a kind goes at once, and so does the last of a command. While the parent does not
    read, text grows here.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._lock = threading.Lock()
        self._events: list[Event | Counted] = []
        self._due = False
        self._paused = False
        self._sent_at = 0.0
        self._sent: type[Event | Counted] | None = None
        self.transport: asyncio.WriteTransport | None = None

    def emit(self, event: Event | Counted) -> None:
        """Send an event soon."""
        with self._lock:
            enqueue(self._events, event)
            due, self._due = self._due, True
        if not due or isinstance(event, Last):
            self._loop.call_soon_threadsafe(self._send)

    def pause(self) -> None:
        """The parent reads too slowly."""
        self._paused = True

    def resume(self) -> None:
        """The parent has caught up."""
        self._paused = False
        self._send()

    def _send(self) -> None:
        if self._paused or self.transport is None:
            return
        with self._lock:
            kinds = {type(event) for event in self._events}
            wait = self._sent_at + INTERVAL - self._loop.time()
            if kinds == {self._sent} and wait > 0:
                self._loop.call_later(wait, self._send)
                return
            events, self._events = self._events, []
            self._due = False
        if events:
            self.transport.write(b"".join(map(encode, events)))
            self._sent, self._sent_at = type(events[-1]), self._loop.time()


class Worker(asyncio.Protocol):
    """Takes commands, one `Load` or `Generate` at a time, and answers with events."""

    def __init__(self, open_model: OpenModel) -> None:
        from engine.runtimes.base import CancelFlag

        self._open_model = open_model
        self._outbox = Outbox(asyncio.get_running_loop())
        self._emit = fault_injection.faulty(self._outbox.emit)
        self._counting = Counting(self._outbox.emit)
        self._frames = Frames()
        self._cancelled, self._answer_now = CancelFlag(), CancelFlag()
        self._observed = CancelFlag()
        self._running: int | None = None
        self._model: Model | None = None
        self._commands: queue.SimpleQueue[Load | Generate | Close | None] = queue.SimpleQueue()
        """None: more can be written to the disk, if nothing else is to be done."""
        threading.Thread(target=self._work, name="decode", daemon=True).start()

    # asyncio calls these, in the main thread.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ready."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._outbox.transport = transport

    def pause_writing(self) -> None:
        """The socket is full."""
        self._outbox.pause()

    def resume_writing(self) -> None:
        """The socket has room."""
        self._outbox.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """The parent is gone, whatever the other thread does."""
        os._exit(0)

    def data_received(self, data: bytes) -> None:
        """Bytes came from the parent."""
        try:
            for item in self._frames.feed(data):
                self._take(item)
        except KtchatError as error:
            self._outbox.emit(Failed(error))

    def _take(self, command: Item) -> None:
        match command:
            case Load() | Generate():
                # Lowered here, not when the work begins: a Cancel may already be behind it.
                self._cancelled.clear()
                self._answer_now.clear()
                self._running = command.id if isinstance(command, Generate) else None
                self._commands.put(command)
                if self._model is not None and self._model.on_disk is not None:
                    self._model.on_disk.stop()
            case Count():
                self._counting.ask(command)
            case Cancel() if command.id == self._running:
                self._cancelled.set()
            case AnswerNow() if command.id == self._running:
                self._answer_now.set()
            case Observe(on):
                (self._observed.set if on else self._observed.clear)()
            case Close(seconds):
                if not seconds or self._model is None or self._model.on_disk is None:
                    os._exit(0)
                self._cancelled.set()
                self._commands.put(command)
                asyncio.get_running_loop().call_later(seconds, os._exit, 0)

    # The background thread.

    def _work(self) -> None:
        while True:
            command = self._commands.get()
            try:
                if isinstance(command, Load | Generate):
                    with self._counting.at_work:
                        self._do(command)
            except KtchatError as error:
                self._emit(Failed(error))
            except MemoryError as error:
                why = str(error) or "The system gave no more"
                todo = "Close other programs, or use a smaller context or model"
                self._emit(Failed(MemoryShortError("Memory ran out", why, todo)))
            except Exception as error:  # the boundary of the thread: everything becomes an event
                sys.excepthook(type(error), error, error.__traceback__)
                words = f"{type(error).__name__}: {error}", ""
                why, todo = os_reason(error) if isinstance(error, OSError) else words
                self._emit(Failed(EngineError("The engine met an unexpected error", why, todo)))
            with self._counting.at_work:
                self._write(command if isinstance(command, Close) else None)

    def _do(self, command: Load | Generate) -> None:
        if isinstance(command, Load):
            self._emit(Progress("load", 0, 0))
            if self._model is not None:
                if self._model.on_disk is not None:
                    self._model.on_disk.finish(LEAVE_SECONDS)
                self._counting.use(None)
                self._model.close()
                self._model = None
            self._model = self._open_model(command, self._cancelled, self._emit)
            if self._model.on_disk is not None:
                self._model.on_disk.listen(lambda: self._commands.put(None))
            self._counting.use(self._model)
            self._emit(self._model.loaded)
        elif self._model is None:
            raise RequestError("No model is loaded", "", "Open a model first")
        else:
            from engine.generation.decoder import reply

            on_disk = self._model.on_disk
            if on_disk is not None and (words := on_disk.notice()):
                self._emit(Notice(words))
            flags = self._answer_now, self._observed
            reply(self._model, command, self._cancelled, self._emit, *flags)
            if on_disk is not None and command.session is not None:
                on_disk.save(command.session)

    def _write(self, close: Close | None) -> None:
        """What is due to the disk: a little of it while no command waits, or all at the end."""
        on_disk = self._model.on_disk if self._model is not None else None
        try:
            if on_disk is not None and close is not None:
                on_disk.finish(close.seconds)
            elif on_disk is not None and self._commands.empty():
                on_disk.advance()
        except Exception as error:  # nobody waits for it, and nobody may be told unasked
            sys.excepthook(type(error), error, error.__traceback__)
        if close is not None:
            os._exit(0)


def open_model(load: Load, cancelled: CancelFlag, emit: Emit) -> Model:
    """The model that a `Load` asks for."""
    from engine.generation.loading import load_model

    return load_model(load, cancelled, emit)


def serve(descriptor: int, open_model: OpenModel = open_model) -> None:
    """Answer commands from the socket `descriptor` until its other end is closed."""
    _prepare()
    asyncio.run(_serve(socket.socket(fileno=descriptor), open_model))


async def _serve(connection: socket.socket, open_model: OpenModel) -> None:
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: Worker(open_model), sock=connection)
    await loop.create_future()


def _prepare() -> None:
    """Die with the parent, do without the network, die first when memory runs out, leave a trace and no core dump."""
    die_with_parent()
    confinement.without_network(local=True)  # before there are threads
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


if __name__ == "__main__":
    serve(int(sys.argv[1]))
