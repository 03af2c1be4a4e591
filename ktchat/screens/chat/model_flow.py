"""The model on the chat screen: loading it, and what is said meanwhile.

Knows the order of things between the session, the settings and the header.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from engine.common.threads import ask
from engine.errors import ON_CPU, EngineError, KtchatError
from engine.protocol import Event, Failed, Figures, Load, Loaded, Notice, Progress
from ktchat.common import usage, words
from ktchat.common.text import one_line
from ktchat.screens.chat import presets

if TYPE_CHECKING:
    from ktchat.screens.chat.chat import ChatScreen
    from ktchat.session.chat import ChatSession


NOTICE_SECONDS = 30.0
"""How long stands what was said while a model was loaded, such as a shorter context."""


class ModelFlow:
    """Which model answers, and which one is coming."""

    def __init__(self, screen: ChatScreen) -> None:
        self._screen = screen
        self.loading = ""
        """Path of the model that is being loaded."""
        self.wanted = ""
        """Path of the model that was asked for last and not refused."""
        self.refused = ""
        """Path of the model whose loading failed last, until the conversation goes on without it."""
        self._notices: list[str] = []
        self._hint = ""

    def load(self, path: str) -> None:
        """Load a model in place of the present one."""
        chat = self._screen.chat
        if chat is None:
            return
        if self.loading:
            self._screen.status.say("a model is being loaded: Esc stops that", "warning")
        elif chat.busy:
            self._screen.status.say("a reply is being written: stop it first, with Esc", "warning")
        else:
            self.loading, self.refused, self._hint = path, "", ""
            self._screen.status.hush()
            self._screen.run_worker(
                self._load(chat, path), group="model", exit_on_error=False, name="load"
            )

    def stop(self) -> bool:
        """Stop loading; False when nothing is being loaded."""
        chat = self._screen.chat
        if chat is None or not self.loading:
            return False
        chat.engine.cancel()
        return True

    def load_on_cpu(self) -> None:
        """Load the model that is there, or that was refused, on the CPU, as all until the program ends."""
        chat, status = self._screen.chat, self._screen.status
        loaded = chat.loaded if chat is not None else None
        if not self._present:
            status.say("no model is loaded: choose one with Ctrl+O", "warning")
        elif not self.refused and loaded is not None and loaded.device == "CPU":
            status.say("the model runs on the CPU already")
        elif self._occupied:
            self.load(self._present)  # says why not
        else:
            presets.on_cpu(self._screen.settings)
            self.load(self._present)
            self._hint = 'models are loaded on the CPU now · Ctrl+P, "Device: CPU", keeps it so'

    def change(self, preset: presets.Preset) -> None:
        """Keep how models are loaded, and load the present one again."""
        presets.forget_override(self._screen.settings, preset)
        self._screen.remember(**preset.change)
        if self._occupied:
            self._screen.status.say("kept: it holds when a model is loaded next")
        elif self._present:
            self.load(self._present)

    @property
    def _occupied(self) -> bool:
        """Whether no model can be loaded now."""
        chat = self._screen.chat
        return bool(self.loading) or (chat is not None and chat.busy)

    @property
    def _present(self) -> str:
        """Path of the model that was refused, or that is there, or that comes with the next message."""
        chat = self._screen.chat
        loaded = chat.loaded if chat is not None else None
        return self.refused or (loaded.path if loaded else self.wanted)

    async def _load(self, chat: ChatSession, path: str) -> None:
        screen = self._screen
        previous = chat.loaded.path if chat.loaded else ""
        try:
            if await self._follow(chat, path):
                with contextlib.suppress(KtchatError):  # settings that cannot be saved still hold
                    screen.settings.update(**screen.settings.settings.with_model(path))
                await ask(usage.note_opened, path)
            elif previous and previous != path and chat.loaded is None:
                self.loading = previous
                await self._follow(chat, previous)
        finally:
            self.loading = ""
            self.show(chat)
            screen.refresh_status()
        screen.replies.send_waiting()

    async def _follow(self, chat: ChatSession, path: str) -> bool:
        """Take the events of one load; True when the model is there."""
        self.wanted = path
        self._notices = []
        load = self._screen.settings.load(path)
        name = one_line(Path(path).name.removesuffix(".gguf"), 60)
        self._screen.header.show_model(name, busy="loading")
        self._screen.refresh_status()
        try:
            async for event in chat.load(load):
                if isinstance(event, Failed):
                    await self._refuse(load, event.error)
                    return False
                self._take(name, event)
        except KtchatError as error:
            await self._refuse(load, error)
            return False
        return True

    def _take(self, name: str, event: Event) -> None:
        screen = self._screen
        if isinstance(event, Progress):
            screen.header.show_model(name, busy=words.progress(event))
        elif isinstance(event, Notice):
            self._notices.append(event.text if event.text.endswith(".") else f"{event.text}.")
            screen.status.say(" ".join(self._notices), "warning", seconds=NOTICE_SECONDS)
        elif isinstance(event, Loaded) and self._notices:  # they have their time now
            screen.status.say(" ".join(self._notices), "warning", seconds=NOTICE_SECONDS)
        elif isinstance(event, Loaded) and self._hint:
            screen.status.say(self._hint, seconds=NOTICE_SECONDS)

    async def _refuse(self, load: Load, error: KtchatError) -> None:
        self.wanted, self.refused = "", load.path
        button = None
        if await _cpu_may_do(load, error):
            button = ("F5 loads it on the CPU", "screen.load_on_cpu")
        self._screen.status.say(str(error), "error", button)

    def note_speed(self, chat: ChatSession, figures: Figures) -> None:
        """Keep how fast a reply came: it replaces the prediction for this model."""
        if chat.loaded is not None:
            self._screen.run_worker(
                self._note_speed(chat.loaded, figures), group="speed", exit_on_error=False
            )

    async def _note_speed(self, loaded: Loaded, figures: Figures) -> None:
        from engine.plan.speed import record_run

        await ask(record_run, Path(loaded.path), figures, loaded.device)

    def show(self, chat: ChatSession) -> None:
        """Show the model that is there."""
        model, header = chat.loaded, self._screen.header
        if model is None:
            header.show_model("no model")
            header.show_context(0, 0)
            return
        name, quantisation = one_line(model.name, 60), one_line(model.quantisation, 20)
        other = one_line(model.runtime, 20) if model.runtime != "hybrid" else ""
        parts = (quantisation, other, words.place(model.device))
        header.show_model(name, " · ".join(filter(None, parts)))
        header.show_context(chat.context_used, chat.context_size)
        self._screen.welcome.show_model(name)


async def _cpu_may_do(load: Load, error: KtchatError) -> bool:
    """Whether the CPU may load what failed: the error says so, or the engine died beside a GPU."""
    if load.device == "cpu" and load.kv == "f16":
        return False
    if ON_CPU in error.todo:
        return True
    if not isinstance(error, EngineError):
        return False
    from engine.machine.probes.gpu import gpus

    return bool((await ask(gpus))[0])
