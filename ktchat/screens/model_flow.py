"""The model on the chat screen: loading it, and what is said meanwhile.

Knows the order of things between the session, the settings and the header.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import KtchatError
from engine.protocol import Event, Failed, Figures, Loaded, Notice, Progress
from engine.threads import ask
from ktchat import usage, words
from ktchat.text import one_line

if TYPE_CHECKING:
    from ktchat.chat import ChatSession
    from ktchat.screens.chat import ChatScreen


class ModelFlow:
    """Which model answers, and which one is coming."""

    def __init__(self, screen: ChatScreen) -> None:
        self._screen = screen
        self.loading = ""
        """Path of the model that is being loaded."""
        self.wanted = ""
        """Path of the model that was asked for last and not refused."""

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
            self.loading = path
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
        name = one_line(Path(path).name.removesuffix(".gguf"), 60)
        self._screen.header.show_model(name, busy="loading")
        self._screen.refresh_status()
        try:
            async for event in chat.load(self._screen.settings.load(path)):
                if not self._take(name, event):
                    return False
        except KtchatError as error:
            self._refused(error)
            return False
        return True

    def _take(self, name: str, event: Event) -> bool:
        screen = self._screen
        if isinstance(event, Progress):
            screen.header.show_model(name, busy=words.progress(event))
        elif isinstance(event, Notice):
            screen.status.say(event.text, "warning")
        elif isinstance(event, Failed):
            self._refused(event.error)
            return False
        return True

    def _refused(self, error: KtchatError) -> None:
        self.wanted = ""
        self._screen.status.say(str(error), "error")

    def note_speed(self, chat: ChatSession, figures: Figures) -> None:
        """Keep how fast a reply came: it replaces the prediction for this model."""
        if chat.loaded is not None:
            self._screen.run_worker(
                self._note_speed(chat.loaded, figures), group="speed", exit_on_error=False
            )

    async def _note_speed(self, loaded: Loaded, figures: Figures) -> None:
        from engine.speed import record_run

        await ask(record_run, Path(loaded.path), figures, loaded.device)

    def show(self, chat: ChatSession) -> None:
        """Show the model that is there."""
        model, header = chat.loaded, self._screen.header
        if model is None:
            header.show_model("no model")
            header.show_context(0, 0)
            return
        name, quantisation = one_line(model.name, 60), one_line(model.quantisation, 20)
        other = f"on {one_line(model.runtime, 20)}" if model.runtime != "hybrid" else ""
        header.show_model(name, " · ".join(filter(None, (quantisation, other))))
        header.show_context(chat.context_used, chat.context_size)
        self._screen.welcome.show_model(name)
