"""The plain chat as a program: the main thread reads and waits, the chat lives in an event loop beside it.

So a line is read by readline as in any program, and a signal reaches whatever goes on.
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import threading
import time
from collections.abc import Coroutine
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any

from engine.common.threads import ask
from engine.errors import KtchatError
from ktchat import __version__
from ktchat.attachments.attachment import Draft
from ktchat.cli import output
from ktchat.cli.plain import commands, models, sessions
from ktchat.cli.plain.reader import Reader
from ktchat.cli.plain.state import PlainChat
from ktchat.cli.plain.voice import Voice
from ktchat.common import paths
from ktchat.common.settings import SettingsFile
from ktchat.common.text import one_line
from ktchat.session.chat import ChatSession, Engine
from ktchat.store.store import Store

QUIT_SECONDS = 2.0
"""Time within which a second Ctrl+C leaves."""
CLOSE_SECONDS, WRITE_SECONDS = 10.0, 1.0
"""Time that saving and ending the engine may take on the way out, and of it the writing of the KV cache."""
LEAVE_SECONDS = 1.8
"""How long a program that was told to end may take."""
HISTORY = 200
INTERRUPTED = 130


class _Ended(BaseException):
    """A signal ends the program while a line is read."""


class Program:
    """One run. `main` returns the exit code."""

    def __init__(
        self, model: str | None, settings: SettingsFile, engine: Engine | None, endpoint: str = ""
    ) -> None:
        """`endpoint` is the model's address where the command line names a server."""
        self._model, self._settings, self._engine = model, settings, engine
        self._endpoint = endpoint
        self._reader = Reader()
        self._voice = Voice()
        self._loop = asyncio.new_event_loop()
        self._questions: SimpleQueue[tuple[str, asyncio.Future[str | None]]] = SimpleQueue()
        self._awake, self._wake = os.pipe()
        self._reading = False
        self._ended = 0  # the signal that ends the program
        self._interrupted_at = 0.0
        self._put_away = ""  # what was typed when the line was left
        self._aside = ""  # what was not sent and is in the history
        self.unsaved = ""
        """Words on what could not be saved."""

    def main(self) -> int:
        """Chat until the person leaves."""
        self._listen()
        thread = threading.Thread(target=self._loop.run_forever, name="chat", daemon=True)
        thread.start()
        self._plain = self._wait(self._make())
        try:
            with suppress(_Ended):
                self._wait(self._start())
                while self._plain.leaving is None and not self._ended:
                    self._next()
        finally:
            left = self._reader.left or self._plain.prefill or self._put_away or self._aside
            self._wait(self._close(left), takes_lines=False)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(CLOSE_SECONDS)
        if self._ended:
            return 128 + self._ended
        failed = self._plain.failed and not self._reader.at_terminal
        return self._plain.leaving or int(failed or bool(self.unsaved))

    # In the main thread.

    def _next(self) -> None:
        """Read the next message or command, and see it done."""
        plain, reader = self._plain, self._reader
        ahead, prefill = reader.is_waiting, plain.prefill
        if ahead or not reader.fits(prefill):
            prefill = ""
            if plain.prefill and not ahead:
                self._aside = plain.prefill
                reader.remember([self._aside])
                self._voice.say("Up brings the message into the line")
        try:
            text = self._read(lambda: reader.message(prefill))
        except EOFError:
            plain.leaving = 0
            return
        except KeyboardInterrupt:
            self._interrupted()
            return
        self._put_away = ""
        if not ahead:
            plain.prefill = ""
        if ahead or not reader.at_terminal:
            self._voice.echo(f"You: {text}")
        if reader.pasted:
            self._voice.say(f"{reader.pasted} lines came at once: they are one message")
        if not text.startswith("/"):
            self._aside = ""
        try:
            self._wait(commands.take(plain, text))
        except output.OutputClosedError:
            raise
        except Exception as error:  # a fault of our own: said, not hidden, and the chat goes on
            plain.failed = True
            self._voice.say(f"an internal error: {type(error).__name__}: {one_line(str(error))}")

    def _read(self, read: Any) -> str:
        if self._ended:
            raise _Ended
        self._reading = True
        try:
            return str(read())
        finally:
            self._reading = False

    def _interrupted(self) -> None:
        """Ctrl+C at the prompt: what was typed goes into the history; the second one leaves."""
        now, typed = time.monotonic(), self._reader.unfinished
        output.line()
        if now - self._interrupted_at < QUIT_SECONDS:
            self._plain.leaving = INTERRUPTED
            return
        self._interrupted_at, self._put_away = now, typed
        self._reader.remember([typed])
        kept = "; Up brings back what was typed" if typed.strip() and self._reader.edits else ""
        self._reader.unfinished = ""
        self._voice.say(f"Ctrl+C again leaves{kept}")

    def _wait(self, work: Coroutine[Any, Any, Any], takes_lines: bool = True) -> Any:
        """See something done in the event loop; meanwhile lines are taken, and questions are asked."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.add_done_callback(lambda _: os.write(self._wake, b"."))
        takes_lines = takes_lines and self._reader.at_terminal
        while not future.done():
            watched = [self._awake, *([0] if takes_lines else [])]
            ready = select.select(watched, [], [])[0]
            if self._awake in ready:
                os.read(self._awake, 64)
            self._ask()
            if 0 in ready:
                takes_lines = self._take_lines()
        return future.result()

    def _ask(self) -> None:
        """Put a question of the chat to the person."""
        try:
            question, answer = self._questions.get_nowait()
        except Empty:
            return
        line: str | None = None
        with suppress(EOFError, KeyboardInterrupt):
            line = self._read(lambda: self._reader.line(question))
        if line is None:
            output.line()
        self._loop.call_soon_threadsafe(_set, answer, line)

    def _take_lines(self) -> bool:
        """Take what was typed while something goes on; False: the input is at its end."""
        plain = self._plain
        try:
            typed = self._reader.typed()
        except EOFError:
            plain.leaving = 0
            self._loop.call_soon_threadsafe(plain.stop)
            return False
        for lines in typed:
            self._reader.wait_with([line for line in lines if not self._taken_at_once(line)])
        return True

    def _taken_at_once(self, line: str) -> bool:
        """Whether a line is a command for what goes on now; all else waits for its end."""
        plain, command = self._plain, line.strip()
        if command == "/stop":
            self._loop.call_soon_threadsafe(plain.stop)
        elif command == "/answer" and plain.thinking:
            self._loop.call_soon_threadsafe(plain.chat.answer_now)
        else:
            return False
        return True

    def _listen(self) -> None:
        """Take the signals: while a line is read they end that, else they stop what goes on."""

        def interrupt(number: int, frame: FrameType | None) -> None:
            if self._reading:
                raise KeyboardInterrupt
            self._loop.call_soon_threadsafe(self._stop)

        def end(number: int, frame: FrameType | None) -> None:
            if not self._ended:
                self._ended = number
                timer = threading.Timer(LEAVE_SECONDS, os._exit, [128 + number])
                timer.daemon = True
                timer.start()
            if self._reading:
                raise _Ended
            self._loop.call_soon_threadsafe(self._stop)

        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGINT, interrupt)
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, end)

    # In the event loop.

    async def _make(self) -> PlainChat:
        if self._engine is None:
            from ktchat.library.servers import Servers
            from ktchat.session.engines import either_engine

            self._engine = either_engine(Servers(endpoint=self._endpoint))
        store = Store(paths.database())
        chat = ChatSession(self._engine, store, layers=self._settings.layers)
        asks = self._question if self._reader.at_terminal else None
        plain = PlainChat(chat, self._settings, self._voice, asks)
        chat.notify = plain.notify
        return plain

    async def _start(self) -> None:
        from ktchat.library.models import default_model
        from ktchat.session.indexing import index

        plain, settings = self._plain, self._settings
        plain.say(f"{__version__}, line by line; /help lists the commands")
        if settings.notice:
            plain.say(settings.notice)
        try:
            path = self._model or default_model(settings.settings.last_model)
        except KtchatError as error:
            plain.say(f"error: {error}")
        else:
            await models.load(plain, path)
        await sessions.start(plain)
        store = plain.chat.store
        with suppress(KtchatError):  # without a history the prompt works too
            earlier = await store.call(store.recent_prompts, HISTORY)
            await ask(self._reader.remember, earlier[::-1])
        self._reader.complete([f"/{command.name}" for command in commands.COMMANDS])
        plain.later(index(store))

    async def _question(self, words: str) -> str | None:
        answer: asyncio.Future[str | None] = self._loop.create_future()
        self._voice.finish()
        self._questions.put((words, answer))
        os.write(self._wake, b"?")
        return await answer

    def _stop(self) -> None:
        if hasattr(self, "_plain"):
            self._plain.stop()

    async def _close(self, left: str) -> None:
        from ktchat.session.last_resort import keep_unsaved

        chat = self._plain.chat
        if left.strip() or chat.draft:
            chat.keep_draft(Draft(left, chat.draft.attachments))
        await self._plain.rest()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._end(chat), CLOSE_SECONDS)
        self.unsaved = keep_unsaved(chat.saver)

    async def _end(self, chat: ChatSession) -> None:
        await chat.close()
        await chat.engine.close(WRITE_SECONDS)


def _set(answer: asyncio.Future[str | None], line: str | None) -> None:
    if not answer.done():
        answer.set_result(line)
