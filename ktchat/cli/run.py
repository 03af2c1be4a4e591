"""`ktchat run`: one reply without the screen, saved as a session like any other.

Standard output gets the reply and nothing else. On a terminal it is made safe to draw; into a pipe
or a file it goes exactly as the model said it, with a newline at the end. Notes, figures and progress
go to standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import threading
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from engine.errors import KtchatError
from engine.protocol import (
    Failed,
    Figures,
    Finished,
    Loaded,
    Notice,
    Think,
)
from ktchat.cli import endpoint, load_options, model_path, output, standard_input
from ktchat.cli.making_room import make_room
from ktchat.cli.printers import JsonPrinter, Printer, TextPrinter
from ktchat.cli.run_request import Request, request
from ktchat.common import paths, usage
from ktchat.common.errors import SettingsError, UnknownSessionError
from ktchat.common.settings import OverflowPolicy, SettingsFile
from ktchat.library import models
from ktchat.session.chat import ChatSession, Engine, Started
from ktchat.store.store import Store
from ktchat.store.unsaved import UnsavedStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

STOP_SECONDS = 1.0
"""How long an interrupted reply may take to stop before the program leaves it behind."""

WRITE_SECONDS = 10.0
"""How long after a reply what was read may be written to the disk, where `-c` finds it."""

LEAVE_SECONDS = 1.8
"""How long an interrupted program may take in all."""


CUT = "The context is full: the reply is cut. ktchat run -c goes on, and makes room first."


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The arguments of `ktchat run`."""
    parser = subparsers.add_parser(
        "run",
        help="one reply without the screen",
        description="Send one message and print the reply. What is piped in is appended to it.",
        epilog=standard_input.IN_LOOPS,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("prompt", nargs="?", metavar="PROMPT", help="the message")
    keep = argparse.SUPPRESS  # what was given before the command holds
    add("-m", "--model", metavar="FILE", type=model_path, default=keep, help="the model (GGUF)")
    endpoint.add(parser, keep)
    load_options.add(parser, keep)
    add(
        "-f",
        "--file",
        dest="files",
        metavar="FILE",
        action="append",
        default=[],
        help="attach a text, a PDF, or a folder's list; again for more",
    )
    add("-c", "--continue", dest="last", action="store_true", help="go on with the last session")
    add("--no-save", action="store_true", help="keep nothing of this conversation on the disk")
    add(
        "--overflow",
        choices=get_args(OverflowPolicy),
        help="what to do when the message does not fit into the context; else as the settings say",
    )
    add("--system", metavar="TEXT", help="system message of the new session")
    add("--temperature", type=float, metavar="T", help="0: always the likeliest token")
    add("--top-k", type=int, metavar="N", help="choose among the N likeliest tokens; 0: all")
    add("--top-p", type=float, metavar="P", help="choose among tokens of total probability P")
    add("--min-p", type=float, metavar="P", help="leave out tokens below P times the likeliest")
    add("--repeat-penalty", type=float, metavar="X", help="above 1: fewer repetitions")
    add("--seed", type=int, metavar="N", help="same seed, same reply")
    add("--max-tokens", type=int, metavar="N", help="longest reply")
    add(
        "--think",
        choices=get_args(Think),
        help="whether and how much to think, as the model offers",
    )
    add("--thinking", action="store_true", help="print the model's thinking too (on stderr)")
    add("--no-stdin", dest="stdin", action="store_false", help="leave the standard input alone")
    add("--json", action="store_true", help="print events as JSON, one a line")
    add("-v", "--verbose", action="store_true", help="figures on stderr, also when it is a file")


def main(args: argparse.Namespace) -> int:
    """One reply; returns the exit code."""
    settings = SettingsFile(paths.settings_file(), load_options.overrides(args))
    if settings.notice:
        output.complain(settings.notice)
    asked = request(args, settings.settings, settings.overrides)
    settings.overrides = asked.said
    printer: Printer = JsonPrinter() if args.json else TextPrinter(args.thinking, args.verbose)
    with asyncio.Runner() as runner:
        return runner.run(
            _Run(asked, settings, printer, args.engine_factory or _engine(asked)).main()
        )


class _Run:
    """One run: its engine, its chat, and the signals that may end it early."""

    def __init__(
        self,
        request: Request,
        settings: SettingsFile,
        printer: Printer,
        engine_factory: Callable[[], Engine],
    ) -> None:
        self.request = request
        self.settings = settings
        self.printer = printer
        self.engine_factory = engine_factory
        self.signal = 0

    async def main(self) -> int:
        """Do the work until it is done or a signal ends it."""
        self._ended = asyncio.Event()
        self._listen()
        self.engine = self.engine_factory()
        self.chat = ChatSession(
            self.engine,
            (Store if self.request.save else UnsavedStore)(paths.database()),
            layers=self.settings.layers,
            notify=lambda words, severity: self.printer.note(words),
        )
        work = asyncio.create_task(self._work())
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await self._interrupt(work)
                return 128 + self.signal
            return work.result()
        finally:
            ended.cancel()
            self.printer.close()
            await self.chat.close()
            await self.engine.close(0.0 if self.signal else WRITE_SECONDS)

    async def _work(self) -> int:
        if self.request.last:
            await self._open_last()
        if not await self._load():
            return 1
        if self.request.think is not None:
            self.chat.choose_thinking(self.request.think)
        self.chat.watch = False  # nobody is there with a key to go on
        try:
            draft = self.request.draft
            await make_room(self.chat, draft, self.request.overflow, self.printer.note)
        except KtchatError as error:
            self.printer.load(Failed(error))
            if not self.signal:
                self.printer.note(str(error))
            return 1
        code = 0
        async with aclosing(self.chat.send(draft.text, draft.attachments)) as updates:
            async for update in updates:
                if isinstance(update, Started):
                    turn = update.turn
                self.printer.show(update, turn, self.chat.conversation.id)
                if isinstance(update, Finished) and self.request.save:
                    self._note_speed(update.figures)
                if isinstance(update, Finished) and update.reason == "context":
                    self.printer.note(CUT)
                if isinstance(update, Failed):
                    code = 1
                    self.printer.note(str(update.error))
        if self.request.model and not self.request.endpoint and self.request.save and code == 0:
            with suppress(SettingsError):
                self.settings.update(**self.settings.settings.with_recent(self.request.model))
        return code

    async def _open_last(self) -> None:
        store = self.chat.store
        last = await store.call(store.last_session)
        if last is None:
            raise UnknownSessionError("There is no session to go on with", "", "Leave out -c")
        await self.chat.open(last)

    async def _load(self) -> bool:
        path = self.request.model or models.default_model(
            self.chat.conversation.model_path or self.settings.settings.last_model
        )
        load = self.settings.load(path)
        if not self.request.save:
            load = replace(load, cache_folder="")
        async for event in self.chat.load(load):
            match event:
                case Failed(error):
                    self.printer.load(event)
                    if not self.signal:
                        self.printer.note(str(error))
                    return False
                case Notice(text):
                    self.printer.note(text)
                case Loaded():
                    self.printer.load(event)
                    return True
                case _:
                    self.printer.load(event)
        return False

    def _note_speed(self, figures: Figures) -> None:
        """Keep how fast the reply came and when the model was used: plans say it from now on."""
        from engine.plan.speed import record_run

        if self.chat.loaded is not None and not self.chat.loaded.origin:
            usage.note_opened(self.chat.loaded.path)
            record_run(Path(self.chat.loaded.path), figures, self.chat.loaded.device)

    async def _interrupt(self, work: asyncio.Task[int]) -> None:
        """Let the reply stop by itself, so that what came is kept; leave it behind otherwise."""
        self.chat.stop()
        self.engine.cancel()
        await asyncio.wait({work}, timeout=STOP_SECONDS)
        work.cancel()
        with suppress(asyncio.CancelledError, KtchatError, output.OutputClosedError):
            await work

    def _listen(self) -> None:
        """Take the signals by Python's handlers: they also run while a write to a pipe waits."""
        loop = asyncio.get_running_loop()

        def handle(number: int, frame: FrameType | None) -> None:
            if not self.signal:
                self.signal = number
                timer = threading.Timer(LEAVE_SECONDS, os._exit, [128 + number])
                timer.daemon = True
                timer.start()
                with suppress(RuntimeError):  # the loop has ended, and the program soon does
                    loop.call_soon_threadsafe(self._ended.set)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with suppress(ValueError):  # not the main thread
                signal.signal(number, handle)


def _engine(asked: Request) -> Callable[[], Engine]:
    """Makes the engine, for models here and on servers."""
    from ktchat.library.servers import Servers
    from ktchat.session.engines import either_engine

    return lambda: either_engine(Servers(endpoint=asked.endpoint))
