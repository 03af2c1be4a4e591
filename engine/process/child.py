"""The engine's child process: started, listened to, held to limits, ended.

Runs in one asyncio loop, without threads. Linux: a pidfd tells of the child's end.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.common.os_errors import os_reason
from engine.common.units import byte_size
from engine.errors import EngineError, KtchatError, without_secrets
from engine.process.environment import environment
from engine.process.event_queue import EventQueue
from engine.process.exit_report import AGAIN, died
from engine.process.signs_of_life import SignsOfLife
from engine.protocol import Command, Count, Counted, Event, Failed, Quiet
from engine.wire import Frames, Item, encode

WORKER = (sys.executable, "-P", "-m", "engine.worker")
START_SECONDS = 30.0
"""Longest wait for a new child's first word."""
LOOK_SECONDS = 0.25
"""How often a child that works is looked at for signs of life."""
LOG_TAIL = 8 << 10
"""Last bytes of the child's output that are kept."""
LOG_LIMIT = 64 << 20
"""Bytes of output after which a child is taken to be broken."""
UNREAD_LIMIT = 10_000
"""Unread events after which a child is taken to be broken."""
EVENTS = (10_000, 1_000)
"""Events that a child may send at any time, and more for each second since its start."""
BYTES = (64 << 20, 1 << 20)
"""The same for bytes."""


class Child(asyncio.Protocol):
    """One engine process. `error` says why it ended, once it has."""

    def __init__(self, process: subprocess.Popen[bytes], log: int) -> None:
        self.error: KtchatError | None = None
        self.events: EventQueue | None = None
        self.pid = process.pid
        self._process = process
        self._log_fd = log
        self._log = b""
        self._log_bytes = 0
        self._frames = Frames()
        self._counts: dict[int, asyncio.Future[Counted | None]] = {}
        self._event_count = 0
        self._bytes = 0
        self._transport: asyncio.WriteTransport | None = None
        self._hung_up = False
        self._quiet = False
        self._loop = asyncio.get_running_loop()
        self._born = self._loop.time()
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._exited)
        self._loop.add_reader(self._log_fd, self._read_log)
        self._start = self._loop.call_later(START_SECONDS, self._not_started)

    @classmethod
    async def start(cls, command: Sequence[str] = WORKER) -> Child:
        """Start `command` with the number of its socket as last argument. Raises `EngineError`."""
        ours, theirs = socket.socketpair()
        log, output = os.pipe()
        # Not 0, 1 or 2, which are free when our own standard streams are closed.
        passed = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, 3)
        os.set_blocking(log, False)
        ours.setblocking(False)
        try:
            process = subprocess.Popen(
                [*command, str(passed)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(passed,),
                start_new_session=True,
                env=environment(os.environ),
            )
        except OSError as error:
            ours.close()
            os.close(log)
            raise EngineError("The engine could not be started", *os_reason(error)) from error
        finally:
            theirs.close()
            os.close(passed)
            os.close(output)
        child = cls(process, log)
        try:
            await child._loop.create_connection(lambda: child, sock=ours)
        except BaseException:
            child.kill(EngineError("The engine was not needed any more"))
            raise
        return child

    def run(self, command: Command) -> EventQueue:
        """Send a command; its events go to the queue returned. One at a time.

        Raises `RequestError` when it is too long to be sent.
        """
        assert self.events is None or self.events.ended.done()
        frame = encode(command)
        self.events = EventQueue()
        self._watch(self.events, SignsOfLife(self.pid, self._loop.time()))
        if self.error is not None:
            self.events.put(Failed(self.error))
        self._write(frame)
        return self.events

    @property
    def quiet(self) -> bool:
        """Whether it has a command to do and gives no sign of life."""
        return self._quiet

    def send(self, command: Command) -> None:
        """Send a command that has no events of its own."""
        self._write(encode(command))

    def count(self, question: Count) -> asyncio.Future[Counted | None]:
        """Send a question that is answered beside all commands; None where the child ends first.

        Raises `RequestError` when it is too long to be sent.
        """
        frame = encode(question)
        answer: asyncio.Future[Counted | None] = self._loop.create_future()
        self._counts[question.id] = answer
        if self.error is not None:
            self._end_counts()
        self._write(frame)
        return answer

    def kill(self, error: KtchatError) -> None:
        """End it now; what it was doing fails with `error`."""
        self._fail(error)
        self._kill_group()

    async def stop(self, close_command: Command, patience: float) -> None:
        """Ask it to end, and kill it after `patience` seconds; returns when it is gone."""
        self.send(close_command)
        self._fail(EngineError("The engine was closed"))
        await asyncio.wait([self.gone], timeout=patience)
        if not self.gone.done():
            self._kill_group()
            await asyncio.wait([self.gone], timeout=1.0)

    async def noticed(self) -> None:
        """Return once an end that has already come is known here: `error` is current then."""
        if self.error is None and _is_dead(self.pid):
            await asyncio.wait([self.gone])

    def log_tail(self) -> str:
        """The end of what it printed, without control characters and keys."""
        text = self._log.decode(errors="replace")
        text = "".join(char if char.isprintable() or char == "\n" else " " for char in text)
        return without_secrets(text)

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ready."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Bytes came from the child."""
        if self.error is not None:
            return
        self._start.cancel()
        self._bytes += len(data)
        try:
            for item in self._frames.feed(data):
                self._take(item)
        except KtchatError as error:
            self.kill(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """The child closed its end, mostly by ending: its status follows at once."""
        self._hung_up = True
        self._loop.call_later(0.5, self.kill, EngineError("The engine closed its pipe", "", AGAIN))
        if self._process.returncode is not None:
            self._conclude()

    def _watch(self, events: EventQueue, signs: SignsOfLife) -> None:
        """Say when it falls quiet over a command, and when it lives again."""
        if events.ended.done():
            self._quiet = False
            return
        signs.look(self._loop.time(), self._bytes)
        if signs.quiet != self._quiet:
            self._quiet = signs.quiet
            events.put(Quiet(self._quiet))
        self._loop.call_later(LOOK_SECONDS, self._watch, events, signs)

    def _write(self, frame: bytes) -> None:
        if self.error is None and self._transport is not None:
            self._transport.write(frame)

    def _take(self, item: Item) -> None:
        self._event_count += 1
        age = self._loop.time() - self._born
        for what, count, (burst, rate) in (
            ("events", self._event_count, EVENTS),
            ("bytes", self._bytes, BYTES),
        ):
            if count > burst + rate * age:
                raise EngineError("The engine sent too much", f"{count} {what}", AGAIN)
        if isinstance(item, Counted) and item.id in self._counts:
            answer = self._counts.pop(item.id)
            if not answer.done():
                answer.set_result(item)
            return
        if not isinstance(item, Event | Counted):
            raise EngineError("The engine sent a command", type(item).__name__, AGAIN)
        if isinstance(item, Counted) or self.events is None or self.events.ended.done():
            raise EngineError("The engine spoke unasked", type(item).__name__, AGAIN)
        if len(self.events) >= UNREAD_LIMIT:
            raise EngineError("The engine sent too much", f"{UNREAD_LIMIT} unread events", AGAIN)
        self.events.put(item)

    def _not_started(self) -> None:
        why = f"It said nothing for {START_SECONDS:g} seconds"
        self.kill(EngineError("The engine did not start", why, AGAIN))

    def _read_log(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._log_fd, 1 << 16)
            self._log = (self._log + data)[-LOG_TAIL:]
            self._log_bytes += len(data)
            if not data:
                self._loop.remove_reader(self._log_fd)
        if self._log_bytes > LOG_LIMIT:
            self._log_bytes = 0
            why = f"More than {byte_size(LOG_LIMIT)}"
            self.kill(EngineError("The engine printed too much", why, AGAIN))

    def _exited(self) -> None:
        """The process has ended. Until `poll` its number, and so its group's, is its own."""
        self._kill_group()
        self._process.poll()
        self._loop.remove_reader(self._pidfd)
        self._loop.remove_reader(self._log_fd)
        self._read_log()
        os.close(self._pidfd)
        os.close(self._log_fd)
        if self._hung_up:
            self._conclude()
        else:
            # Its last events may still be in the socket; a grandchild may keep that open.
            self._loop.call_later(0.2, self._conclude)

    def _conclude(self) -> None:
        self._start.cancel()
        self._fail(died(self._process.returncode or 0, self.log_tail()))
        if self._transport is not None:
            self._transport.abort()
        if not self.gone.done():
            self.gone.set_result(None)

    def _fail(self, error: KtchatError) -> None:
        if self.error is None:
            self.error = error
            if self.events is not None and not self.events.ended.done():
                self.events.put(Failed(error))
            self._end_counts()

    def _end_counts(self) -> None:
        """Nothing is counted any more."""
        for answer in self._counts.values():
            if not answer.done():
                answer.set_result(None)
        self._counts.clear()

    def _kill_group(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


def _is_dead(pid: int) -> bool:
    """Whether a process has ended, though it may not be reaped and its other threads may still be ending."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"
