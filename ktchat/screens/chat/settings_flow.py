"""The settings as the chat sees them: the screen that changes them, and edits of their file from outside."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from engine.common.threads import ask
from engine.errors import KtchatError
from ktchat.common.text import one_line
from ktchat.themes import DARK, theme_for

if TYPE_CHECKING:
    from ktchat.screens.chat.activity import Activity
    from ktchat.screens.chat.frame import Frame
    from ktchat.screens.chat.model_flow import ModelFlow

INTERVAL = 1.0
"""Seconds between two looks at the settings file; an edit counts once two have found it the same."""
SECONDS = 30.0
"""How long it is said what an edit changed."""
RELOAD = ("load the model again", "screen.load_again")


class SettingsFlow:
    """What holds, as far as the chat screen shows it."""

    def __init__(self, frame: Frame, activity: Activity, models: ModelFlow) -> None:
        self._frame, self._activity, self._models = frame, activity, models
        self._context = activity.context
        self._applied, self._previewing = self._theme, False

    def open(self, at: str = "") -> None:
        """Open the screen, at a setting that is to be changed."""
        from ktchat.screens.settings.settings_screen import SettingsScreen

        models = self._models
        screen = SettingsScreen(
            self._context, models.present, lambda: models.outdated, self.apply, self.preview, at
        )
        self._frame.app.push_screen(screen, self._left)

    def _left(self, load_again: bool | None) -> None:
        frame, names = self._frame, self._models.outdated
        frame.prompt.focus()
        if load_again:
            self._models.load_again()
        elif names:
            words = f"the model still runs as it was loaded: {_listed(names)}"
            frame.status.say(words, "information", RELOAD, SECONDS)

    def choose_temperature(self, text: str) -> None:
        """Another temperature for this session, as it was written; `-`: none of its own."""
        chat, status = self._context.chat, self._frame.status
        if chat is None:
            return
        try:
            chat.choose(temperature=None if text == "-" else float(text.replace(",", ".")))
        except ValueError:
            words = f"{one_line(text, 20)} is no number: 0 takes always the likeliest token, 1 is varied"
            status.say(words, "warning")
        except KtchatError as error:
            status.say(str(error), "error")
        else:
            status.say(chat.layers.words, seconds=SECONDS)

    def preview(self, theme: str) -> None:
        """Show a theme without keeping it."""
        self._previewing = True
        self._frame.app.theme = theme_for(theme, self._frame.app)
        self._previewing = False

    def keep_theme(self, theme: str) -> None:
        """Keep a theme that was chosen elsewhere."""
        if not self._previewing:
            self._context.remember(theme=theme)

    async def watch(self) -> None:
        """Notice edits of the file, until the program ends."""
        file = self._context.settings
        while True:
            await asyncio.sleep(INTERVAL)
            if await ask(lambda: file.was_edited):
                self.take_edits()

    def take_edits(self) -> None:
        """Read the file again, and have what it says now hold."""
        file, status = self._context.settings, self._frame.status
        names = file.take_edits()
        self.apply()
        if "session_list" in names:
            self._frame.place_parts()
        if "thinking_folded" in names:
            self._frame.transcript.fold_thinking(not file.settings.thinking_folded)
        said = [f"{file.path.name} was edited: {_listed(names)}"] if names else []
        outdated = self._models.outdated if names else ()
        said += [f"{_listed(outdated)} holds when the model is loaded again"] if outdated else []
        said += [f"there is no theme “{one_line(self._theme, 40)}”"] * (not self._has_theme)
        said += [file.notice] * bool(file.notice)
        if said:
            severity = "warning" if file.notice or not self._has_theme else "information"
            status.say(" · ".join(said), severity, RELOAD if outdated else None, SECONDS)

    def apply(self) -> None:
        """Have the chat show what holds now."""
        frame, chat = self._frame, self._context.chat
        if self._theme != self._applied and self._has_theme:
            self.preview(self._theme or DARK)
        self._applied = self._theme
        if chat is not None:
            chat.follow_settings()
            frame.show_thinking(chat)
        frame.refresh_status()

    @property
    def _theme(self) -> str:
        return self._context.settings.settings.theme

    @property
    def _has_theme(self) -> bool:
        return not self._theme or self._theme in self._frame.app.available_themes


def _listed(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names)
