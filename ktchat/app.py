"""The full-screen application: what lives as long as the program does.

It starts and closes engine and store, and handles signals and themes. Nothing heavy is imported before the first frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Input, TextArea
from textual.worker import Worker, WorkerState

from engine.common.threads import ask
from engine.errors import KtchatError
from ktchat.common import paths
from ktchat.common.settings import SettingsFile
from ktchat.context import AppContext
from ktchat.library.downloads import Downloads
from ktchat.screens.chat.chat import ChatScreen
from ktchat.screens.chat.command_dialog import open_commands
from ktchat.terminal.driver import TerminalDriver
from ktchat.terminal.hang_up import watch_terminal
from ktchat.terminal.restore import Restorer
from ktchat.themes import DARK, THEMES, theme_for

if TYPE_CHECKING:
    from ktchat.screens.chat.command import Command
    from ktchat.session.chat import Engine
    from ktchat.store.store import Store

CLOSE_SECONDS, WRITE_SECONDS = 1.5, 1.0
"""Time that saving and ending the engine may take on the way out, and of it the writing of the KV cache."""

QUIT_SECONDS = 2.0
"""Time within which a second Ctrl+C quits."""

SLOW_SECONDS = 0.8
"""After so long a start that waits for the disk is told of."""

INTERRUPTED = 130


class KtchatApp(App[None]):
    """`KtchatApp(model, engine=...).run()`; what is not given is made when it is needed."""

    CSS_PATH = Path(__file__).with_name("ktchat.tcss")
    TITLE = "ktchat"
    CLOSE_TIMEOUT = 1.0
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "interrupt", "Copy, stop, quit", show=False, priority=True),
        Binding("ctrl+q", "quit", "Quit", show=False, priority=True),
    ]

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        engine: Engine | None = None,
        store: Store | None = None,
        settings: SettingsFile | None = None,
        endpoint: str = "",
    ) -> None:
        """`endpoint` is the model's address where the command line names a server."""
        super().__init__(driver_class=TerminalDriver)
        self._model = str(model) if model else ""
        self._engine = engine
        self._store = store
        self.context = AppContext(
            settings or SettingsFile(paths.settings_file()),
            Downloads(paths.models_folder()),
            endpoint=endpoint,
        )
        self._terminal = Restorer(1)
        self._interrupted_at = 0.0
        self._ending = self._asked = False
        self.unsaved = ""
        """Words on what could not be saved, once the program has ended."""
        for theme in THEMES:
            self.register_theme(theme)
        wanted = self.context.settings.settings.theme
        self.theme = wanted if wanted in self.available_themes else DARK
        self.chat_screen = ChatScreen(self.context)
        self.context.notify = self.chat_screen.status.say
        self.chat_screen.slash.listed = self._commands

    def get_default_screen(self) -> Screen[None]:
        """The chat."""
        return self.chat_screen

    def on_load(self) -> None:
        """Before the terminal is changed: from here on signals end the program in order."""
        loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread() and not self.is_headless:
            # Not by the loop: it may be what hangs, drawing on a terminal that is gone.
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, lambda number, _: self._terminate(loop, number))
            # Nor is an interrupt the loop's: when it closes, Python's default would break the way out.
            signal.signal(signal.SIGINT, lambda *_: self._interrupt(loop))
            if os.isatty(0):
                threading.Thread(target=watch_terminal, args=(0,), daemon=True).start()

    def on_mount(self) -> None:
        """The first start begins with the wizard, unless a model was named."""
        self.theme = theme_for(self.theme, self)
        if not self._model and not self.context.settings.settings.setup_done:
            self.action_setup()

    def on_ready(self) -> None:
        """The first frame is on the screen: now the rest."""
        self.run_worker(self._start(), group="start", exit_on_error=False)

    async def _start(self) -> None:
        from ktchat.session.chat import ChatSession
        from ktchat.session.indexing import index
        from ktchat.store.store import Store

        screen, settings = self.chat_screen, self.context.settings.settings
        if self._engine is None:
            from ktchat.session.engines import either_engine

            self._engine = either_engine(self.context.servers)
        store = self._store or Store(paths.database())
        file, notify = self.context.settings, self.context.notify
        self.context.chat = ChatSession(self._engine, store, layers=file.layers, notify=notify)
        if file.notice:
            screen.status.say(file.notice, "warning")
        self._load_model(settings.last_model)
        screen.activity.changed()
        opening = asyncio.create_task(screen.sessions.start(settings.last_session))
        if not (await asyncio.wait({opening}, timeout=SLOW_SECONDS))[0]:
            screen.status.say("waiting for the file of saved sessions: another program holds it")
        await opening
        with contextlib.suppress(KtchatError):  # without a history the prompt works too
            screen.prompt.earlier = await store.call(store.recent_prompts)
        self.watch(self, "theme", screen.settings.keep_theme, init=False)
        self.run_worker(screen.downloads.follow(), group="downloads", exit_on_error=False)
        self.run_worker(screen.settings.watch(), group="settings", exit_on_error=False)
        self.run_worker(index(store), group="index", exit_on_error=False)
        await asyncio.to_thread(_import_rest)
        gc.freeze()  # what is loaded now stays: a full collection over it would stall the keys

    def _load_model(self, last: str) -> None:
        from ktchat.library.models import default_model

        screen = self.chat_screen
        try:
            screen.models.load(self._model or default_model(last))
        except KtchatError as error:
            screen.status.say(str(error), "error")

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The command palette: every action, and what has no key."""
        if screen is self.chat_screen:
            yield from (SystemCommand(c.title, c.help, c.run) for c in self._commands() if c.title)
            return
        yield SystemCommand("Theme", "Dark, light, 16 colours and more", self.action_change_theme)
        yield SystemCommand("Quit", "Everything is saved", self.action_quit)

    def action_command_palette(self) -> None:
        """Every command, with its key."""
        open_commands(self)

    def _commands(self) -> Iterable[Command]:
        from ktchat.screens.chat.commands import listed

        return listed(self.chat_screen)

    def action_setup(self) -> None:
        """The wizard: this machine, a model, getting it."""
        from ktchat.screens.models.setup import SetupScreen

        self.push_screen(SetupScreen(self.context), self.chat_screen.downloads.open)

    def action_open_arrived(self) -> None:
        """Open the model that was downloaded last."""
        self.chat_screen.downloads.open(self.chat_screen.downloads.arrived)

    def action_change_theme(self) -> None:
        """Choose the colours; each is shown as the cursor comes to it."""
        self.chat_screen.settings.open("theme")

    async def action_interrupt(self) -> None:
        """Ctrl+C: copy a selection, else stop the reply, else (twice) quit."""
        text = self._selected_text()
        if text:
            from ktchat.screens.chat.clipboard import copy

            await copy(self, text)
            self.chat_screen.status.say("copied the selection")
            return
        chat = self.context.chat
        if chat is not None and chat.busy:
            chat.stop()
            return
        now = time.monotonic()
        if now - self._interrupted_at < QUIT_SECONDS:
            await self._leave(INTERRUPTED)
            return
        self._interrupted_at = now
        self.chat_screen.status.say("press Ctrl+C again to quit", seconds=QUIT_SECONDS)

    def _selected_text(self) -> str:
        if isinstance(self.focused, TextArea | Input) and self.focused.selected_text:
            return self.focused.selected_text
        return self.screen.get_selected_text() or ""

    # The way out.

    def run(self, *args: Any, **options: Any) -> None:
        """Run until the end; a Ctrl+C too many must not break the way out."""
        try:
            super().run(*args, **options)
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def action_quit(self) -> None:
        """Save everything and quit; once it is asked where that is impossible."""
        chat = self.context.chat
        if chat is None or self._asked or await chat.saved(CLOSE_SECONDS):
            await self._leave(0)
            return
        from ktchat.screens.dialogs.dialogs import Question

        self._asked = True
        why = chat.saver.error or "The disk does not answer."
        question = Question(
            f"Not everything is saved. {why}", "Quit, and keep it in a file", "Stay"
        )
        self.push_screen(question, self._answered)

    def _answered(self, answer: str | None) -> None:
        self._asked = False
        if answer is not None:
            self.call_later(self._leave, 0)

    async def _leave(self, code: int) -> None:
        if self._ending:
            return
        self._ending = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._close(), CLOSE_SECONDS)
        self._keep_unsaved()
        self.exit(return_code=code or bool(self.unsaved))

    async def on_unmount(self) -> None:
        """Also when the screen ends by itself, everything is saved."""
        if not self._ending:
            await self._close()
            self._keep_unsaved()

    def _keep_unsaved(self) -> None:
        if self.context.chat is not None:
            from ktchat.session.last_resort import keep_unsaved

            self.unsaved = keep_unsaved(self.context.chat.saver)

    async def _close(self) -> None:
        if self.context.chat is not None:
            await self.context.chat.close()
        if self._engine is not None:
            await self._engine.close(WRITE_SECONDS)
        await ask(self.context.downloads.close)

    def _interrupt(self, loop: asyncio.AbstractEventLoop) -> None:
        """SIGINT from elsewhere: as Ctrl+C."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the program ends
            loop.call_soon_threadsafe(self.call_later, self.action_interrupt)

    def _terminate(self, loop: asyncio.AbstractEventLoop, number: int) -> None:
        """SIGTERM or SIGHUP: save and end within two seconds, whatever hangs."""
        self._terminal.end_soon(CLOSE_SECONDS + 0.3, 128 + number)
        loop.call_soon_threadsafe(self.call_later, self._leave, 128 + number)

    def on_worker_state_changed(self, event: Worker.StateChanged) -> None:
        """A fault of our own in the background: said, not hidden, and the program goes on."""
        if event.state is WorkerState.ERROR:
            error = event.worker.error
            words = f"an internal error: {type(error).__name__}: {error}"
            self.chat_screen.status.say(words, "error")


def _import_rest() -> None:
    """Import off the event loop what the first reply and the first code block will need."""
    import markdown_it  # noqa: F401
    import pygments.lexers  # type: ignore[import-untyped]  # noqa: F401
