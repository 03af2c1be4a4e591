"""What holds for the next reply in the plain chat: system message, sampling, thinking, all settings."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any, cast, get_args

from engine.errors import KtchatError
from engine.protocol import Think
from ktchat.cli.plain.state import PlainChat
from ktchat.common.settings import Settings

_LOADING = ("context", "device", "kv", "lookup", "disk_cache", "disk_cache_gb")
"""Settings that hold when a model is loaded."""
_KEPT = ("last_model", "last_session", "recent_models", "setup_done")
"""What the program notes for itself."""


async def system(plain: PlainChat, argument: str) -> None:
    """The system message of this session, or another one; `-` takes it away."""
    chat = plain.chat
    if not argument:
        plain.say("system message" if chat.conversation.system else "there is no system message")
        if chat.conversation.system:
            plain.voice.tell(chat.conversation.system)
        return
    chat.choose(system="" if argument == "-" else argument)
    plain.say("kept; it holds in this session, from the next message on")


async def temperature(plain: PlainChat, argument: str) -> None:
    """Which sampling values hold; or another temperature for this session."""
    chat = plain.chat
    if argument:
        try:
            value = None if argument == "model" else float(argument.replace(",", "."))
        except ValueError:
            plain.say(f"{argument} is no number: 0 takes always the likeliest token, 1 is varied")
            return
        chat.choose(temperature=value)
    plain.say(chat.layers.words)


async def think(plain: PlainChat, argument: str) -> None:
    """What holds of the model's thinking, or another choice."""
    chat = plain.chat
    offered = chat.loaded.think if chat.loaded is not None else ()
    if not offered:
        plain.say("the model's template offers no choice of thinking")
        return
    if argument and argument not in get_args(Think):
        plain.say(f"there is no such choice: {', '.join(offered)}")
        return
    if argument:
        chat.choose_thinking(cast(Think, argument))
    plain.say(f"thinking: {chat.think or 'default'}; there are {', '.join(offered)}")


async def thinking(plain: PlainChat, _: str) -> None:
    """Whether the text of the thinking is written too."""
    folded = not plain.settings.settings.thinking_folded
    plain.remember(thinking_folded=folded)
    plain.say(
        "thinking is announced alone" if folded else "the text of the thinking is written too"
    )


async def answer(plain: PlainChat, _: str) -> None:
    """While a model thinks, this is taken at once; else there is nothing to end."""
    plain.say("no reply is thinking")


async def change(plain: PlainChat, argument: str) -> None:
    """All settings, or another value for one of them."""
    items = {item.name: item for item in dataclasses.fields(Settings) if item.name not in _KEPT}
    name, _, value = argument.partition(" ")
    if not name:
        plain.say("settings; /set NAME VALUE changes one")
        for item in items:
            plain.voice.item(f"{item}: {_shown(plain, item)}")
        return
    if name not in items:
        plain.say(f"there is no setting {name}: /set lists them")
        return
    if value.strip():
        now = getattr(plain.settings.settings, name)
        if not plain.remember(**{name: _value(value.strip(), now)}):
            return
        if name in plain.chat.conversation.choices:  # what the session chose would go before it
            plain.chat.choose(**{name: None})
    since = "; it holds when a model is loaded next: /model" if name in _LOADING and value else ""
    plain.say(f"{name}: {_shown(plain, name)}{since}")
    plain.voice.item(items[name].metadata["words"])


def _shown(plain: PlainChat, name: str) -> str:
    value = getattr(plain.settings.settings, name)
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) if value != "" else "empty"


def _value(text: str, now: object) -> Any:
    """A value as a person writes it, in the type of the present one."""
    if isinstance(now, bool):
        return {
            "on": True,
            "true": True,
            "yes": True,
            "off": False,
            "false": False,
            "no": False,
        }.get(text.lower(), text)
    if text == "-":
        return ""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


async def on_cpu(plain: PlainChat, _: str) -> None:
    """Load the model on the CPU, as all until the program ends."""
    from ktchat.cli.plain.models import load

    loaded = plain.chat.loaded
    path = loaded.path if loaded is not None else plain.settings.settings.last_model
    if not path:
        raise KtchatError("No model is loaded", "", "/model opens one")
    plain.settings.overrides = replace(plain.settings.overrides, device="cpu")
    await load(plain, path)
