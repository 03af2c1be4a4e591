"""Changing settings where the person wants them kept: for this session, for this model, everywhere.

What is kept wider takes the nearer choices of the person away, so that it holds here and now.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from ktchat.common.precedence import Held, Layers
from ktchat.common.setting_values import (
    BUILT_IN,
    MODEL,
    PER_MODEL,
    PER_SESSION,
    SAMPLED,
    Settings,
    Values,
    possible,
    refused,
)

if TYPE_CHECKING:
    from ktchat.common.settings import SettingsFile
    from ktchat.session.chat import ChatSession

Scope = Literal["session", "model", "everywhere"]
SCOPES: tuple[Scope, ...] = ("session", "model", "everywhere")
OWN = ("system", "think")
"""What a session has beside its choices."""


class Chooser:
    """The settings as they hold here, for the session that is open and the model at a path (empty: none)."""

    def __init__(self, settings: SettingsFile, chat: ChatSession | None, model: str) -> None:
        self.settings, self.chat, self.model = settings, chat, model

    @property
    def layers(self) -> Layers:
        """What is said, and by whom."""
        here = self.settings.layers(self.model)
        if self.chat is None:
            return here
        return dataclasses.replace(self.chat.layers, model=here.model)

    def held(self, name: str) -> Held:
        """What holds, and who says it."""
        if name != "think" or self.chat is None or self.chat.loaded is None:
            return self.layers.held(name)
        offered = self.chat.loaded.think
        held = self.layers.held(name, lambda value: value in offered)
        return held if held.value is not None else Held(self.chat.loaded.think_default, "built-in")

    def scopes(self, name: str) -> tuple[Scope, ...]:
        """For what a setting can be kept, the nearest first."""
        session = self.chat is not None and name in (*PER_SESSION, *OWN)
        model = bool(self.model) and name in PER_MODEL
        able = {"session": session, "model": model, "everywhere": True}
        return tuple(scope for scope in SCOPES if able[scope])

    def choose(self, name: str, value: Any, scope: Scope) -> list[Scope]:
        """Keep a value. Returns for what another choice was taken away, that would have gone before it.

        Raises `SettingsError` for an impossible one and `SessionBusyError` before anything is changed; `SettingsError`
        also where the file cannot be written: the value then holds until the program ends.
        """
        try:
            possible(name, value)
        except ValueError as error:
            raise refused(name, value) from error
        layers = self.layers
        nearer = SCOPES[: SCOPES.index(scope)]
        gone = [near for near in nearer if name in getattr(layers, near)]
        for near in gone:
            self._keep(name, None, near)
        self.settings.overrides = self.settings.overrides.without((name,))
        self._keep(name, value, scope)
        return gone

    def reset(self, name: str) -> bool:
        """Take away the person's choice that holds; False: there is none. Raises what `choose` raises."""
        source = self.held(name).source
        if source == "command":
            self.settings.overrides = self.settings.overrides.without((name,))
        elif source in SCOPES:
            self._keep(name, None, source)
        return source in ("command", *SCOPES)

    def apply(self, values: Values, scope: Scope) -> None:
        """Keep what a preset holds. Sampling values that it does not name are left to others; no values at all: the
        person's own sampling is taken away, for this session and this model."""
        chosen = {name: values.get(name) for name in SAMPLED}
        if values.get("system"):
            chosen["system"] = values["system"]
        nearer = SCOPES[: SCOPES.index(scope) + 1]
        for near in nearer if values else ("session", "model"):
            self._keep_all(chosen if near == scope and values else dict.fromkeys(chosen), near)
        self.settings.overrides = self.settings.overrides.without(chosen)

    def _keep(self, name: str, value: Any, scope: Scope) -> None:
        if scope == "session" and name == "think" and self.chat is not None:
            self.chat.choose_thinking(value)
        else:
            self._keep_all({name: value}, scope)

    def _keep_all(self, values: dict[str, Any], scope: Scope) -> None:
        there = getattr(self.layers, scope)
        if all(value is None and name not in there for name, value in values.items()):
            return
        if scope == "session":
            if self.chat is not None:
                self.chat.choose(**values)
        elif scope == "model":
            if self.model:
                self.settings.update_model(self.model, **values)
        else:
            silent = {name: MODEL if name in SAMPLED else _DEFAULTS[name] for name in values}
            self.settings.update(
                **{name: silent[name] if v is None else v for name, v in values.items()}
            )
        if self.chat is not None and scope != "session" and "system" in values:
            self._take_system(self.chat)

    def _take_system(self, chat: ChatSession) -> None:
        """The open session has the system message that was just chosen, too."""
        if chat.conversation.turns and not chat.read_only:
            chat.choose(system=None)
        else:
            chat.follow_settings()


_DEFAULTS = {name: getattr(Settings(), name) for name in BUILT_IN}
