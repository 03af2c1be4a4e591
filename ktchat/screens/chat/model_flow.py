"""Loading a model on the chat screen, and what is said meanwhile."""

from __future__ import annotations

import contextlib
from dataclasses import fields
from typing import TYPE_CHECKING

from engine.common.threads import ask
from engine.errors import ON_CPU, EngineError, KtchatError
from engine.protocol import Event, Failed, Load, Loaded, Notice, Progress, Quiet
from engine.remote.address import is_address, parse
from engine.remote.errors import PlainKeyError
from ktchat.common import paths, usage, words
from ktchat.screens.chat import loading_choices

if TYPE_CHECKING:
    from ktchat.screens.chat.activity import Activity
    from ktchat.screens.chat.frame import Frame
    from ktchat.session.chat import ChatSession

NOTICE_SECONDS = 30.0
"""How long stands what was said while a model was loaded, such as a shorter context."""


class ModelFlow:
    """Which model answers, and which one is coming."""

    def __init__(self, frame: Frame, activity: Activity) -> None:
        self._frame = frame
        self._activity = activity
        self._context = activity.context
        self._notices: list[str] = []
        self._hint = ""
        self._loaded: Load | None = None  # how the model that is there was loaded

    def load(self, path: str) -> None:
        """Load a model in place of the present one."""
        chat, activity, status = self._context.chat, self._activity, self._frame.status
        if chat is None:
            return
        if activity.loading:
            status.say("a model is being loaded: Esc stops that", "warning")
        elif activity.replying:
            activity.next_model = path
            self._frame.run_worker(
                self._load_next(), group="next model", exclusive=True, exit_on_error=False
            )
            self._frame.refresh_status()
        else:
            activity.loading, activity.refused, self._hint = path, "", ""
            status.hush()
            self._frame.run_worker(
                self._load(chat, path), group="model", exit_on_error=False, name="load"
            )

    def names(self) -> list[str]:
        """Models that were opened before, by name, the last first."""
        recent = self._context.settings.settings.recent_models
        return list(dict.fromkeys(words.model_file(path) for path in recent))

    def load_named(self, name: str) -> None:
        """Load the model on this machine whose file has this name, or is at this path."""
        self._frame.run_worker(self._load_named(name), group="named model", exit_on_error=False)

    async def _load_named(self, name: str) -> None:
        from ktchat.library.models import model_named

        try:
            path = await ask(model_named, name, self._context.settings.settings.recent_models)
        except KtchatError as error:
            self._frame.status.say(str(error), "error")
        else:
            self.load(path)

    async def _load_next(self) -> None:
        """Load the model that was chosen while a reply was being written."""
        activity = self._activity
        await activity.until(lambda: not activity.replying)
        path, activity.next_model = activity.next_model, ""
        if path:
            self.load(path)

    def take_back(self) -> bool:
        """Leave the model as it is; False when no other waits for the reply's end."""
        waited, self._activity.next_model = self._activity.next_model, ""
        if waited:
            self._frame.refresh_status()
        return bool(waited)

    def stop(self) -> bool:
        """Stop loading; False when nothing is being loaded."""
        chat = self._context.chat
        if chat is None or not self._activity.loading:
            return False
        chat.engine.cancel()
        return True

    def load_on_cpu(self) -> None:
        """Load the model that is there, or that was refused, on the CPU, as all until the program ends."""
        chat, status = self._context.chat, self._frame.status
        loaded = chat.loaded if chat is not None else None
        if not self.present:
            status.say("no model is loaded: choose one with Ctrl+O", "warning")
        elif is_address(self.present):
            status.say("the model runs on a server")
        elif not self._activity.refused and loaded is not None and loaded.device == "CPU":
            status.say("the model runs on the CPU already")
        elif self._activity.replying:
            status.say("a reply is being written: stop it first, with Esc", "warning")
        elif self._activity.loading:
            self.load(self.present)  # says why not
        else:
            loading_choices.on_cpu(self._context.settings)
            self.load(self.present)
            self._hint = 'models are loaded on the CPU now · Ctrl+P, "Device: CPU", keeps it so'

    def change(self, choice: loading_choices.LoadingChoice) -> None:
        """Keep how models are loaded, and load the present one again."""
        from ktchat.session.choosing import Chooser

        chooser = Chooser(self._context.settings, self._context.chat, self.present)
        for name, value in choice.change.items():
            try:
                chooser.choose(name, value, "everywhere")
            except KtchatError as error:
                self._frame.status.say(str(error), "warning")
        if self._activity.busy:
            self._frame.status.say("kept: it holds when a model is loaded next")
        elif self.present:
            self.load(self.present)

    def load_again(self) -> None:
        """Load the present model as the settings say now."""
        if self.present:
            self.load(self.present)
        else:
            self._frame.status.say("no model is loaded: choose one with Ctrl+O", "warning")

    @property
    def outdated(self) -> tuple[str, ...]:
        """The settings that the model was loaded with otherwise than they are now."""
        chat, loaded = self._context.chat, self._loaded
        if loaded is None or chat is None or chat.loaded is None:
            return ()
        now = self._context.settings.load(chat.loaded.path)
        names = {"cache_folder": "disk_cache", "cache_budget": "disk_cache_gb"}
        return tuple(
            names.get(field.name, field.name)
            for field in fields(now)
            if field.name != "path" and getattr(now, field.name) != getattr(loaded, field.name)
        )

    @property
    def present(self) -> str:
        """Path of the model that was refused, or that is there, or that comes with the next message."""
        chat = self._context.chat
        loaded = chat.loaded if chat is not None else None
        return self._activity.refused or (loaded.path if loaded else self._activity.wanted)

    async def _load(self, chat: ChatSession, path: str) -> None:
        activity, settings = self._activity, self._context.settings
        previous = chat.loaded.path if chat.loaded else ""
        try:
            if await self._follow(chat, path):
                with contextlib.suppress(KtchatError):  # settings that cannot be saved still hold
                    settings.update(**settings.settings.with_model(path))
                if not is_address(path):
                    await ask(usage.note_opened, path)
            elif previous and previous != path and chat.loaded is None:
                activity.loading = previous
                await self._follow(chat, previous)
        finally:
            activity.loading, activity.quiet = "", False
            self._frame.show_model(chat)
            self._frame.refresh_status()
            activity.changed()

    async def _follow(self, chat: ChatSession, path: str) -> bool:
        """Take the events of one load; True when the model is there."""
        self._activity.wanted = path
        self._notices = []
        load = self._context.settings.load(path)
        name = words.model_file(path)
        self._frame.header.show_model(name, busy="connecting" if is_address(path) else "loading")
        self._frame.welcome.show_model("", paths.is_guide(path))
        self._frame.refresh_status()
        try:
            async for event in chat.load(load):
                if isinstance(event, Failed):
                    await self._refuse(load, event.error)
                    return False
                self._take(name, event)
        except KtchatError as error:
            await self._refuse(load, error)
            return False
        self._loaded = load
        return True

    def _take(self, name: str, event: Event) -> None:
        frame = self._frame
        if isinstance(event, Progress):
            frame.header.show_model(name, busy=words.progress(event))
        elif isinstance(event, Quiet):
            frame.show_quiet(event.quiet)
        elif isinstance(event, Notice):
            self._notices.append(event.text if event.text.endswith(".") else f"{event.text}.")
            frame.status.say(" ".join(self._notices), "warning", seconds=NOTICE_SECONDS)
        elif isinstance(event, Loaded) and self._notices:  # they have their time now
            frame.status.say(" ".join(self._notices), "warning", seconds=NOTICE_SECONDS)
        elif isinstance(event, Loaded) and self._hint:
            frame.status.say(self._hint, seconds=NOTICE_SECONDS)

    async def _refuse(self, load: Load, error: KtchatError) -> None:
        self._activity.wanted, self._activity.refused = "", load.path
        button = None
        if await _cpu_may_do(load, error):
            button = ("F5 loads it on the CPU", "screen.load_on_cpu")
        self._frame.status.say(str(error), "error", button)
        if isinstance(error, PlainKeyError):
            self._ask_plain(load.path)

    def _ask_plain(self, path: str) -> None:
        """Whether the key may go to a server in clear: once."""
        from ktchat.screens.models.plain_key import ask_plain

        ask_plain(self._frame.app, self._context.servers, parse(path), lambda: self.load(path))


async def _cpu_may_do(load: Load, error: KtchatError) -> bool:
    """Whether the CPU may load what failed: the error says so, or the engine died beside a GPU."""
    if load.device == "cpu":
        return False
    if ON_CPU in error.todo:
        return True
    if not isinstance(error, EngineError):
        return False
    from engine.machine.probes.gpu import gpus

    return bool((await ask(gpus))[0])
