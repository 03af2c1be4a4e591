"""Models in the plain chat: loading one, and which there are."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from engine.common.threads import ask
from engine.common.units import byte_size, short_count
from engine.errors import KtchatError
from engine.protocol import Failed, Loaded, Notice, Progress, Quiet
from ktchat.cli.plain.state import PlainChat
from ktchat.common import paths, usage, words
from ktchat.common.text import one_line

if TYPE_CHECKING:
    from ktchat.library.models import ModelEntry


async def load(plain: PlainChat, path: str) -> bool:
    """Load a model in place of the present one; where that fails, that one again. Whether it is there."""
    previous = plain.chat.loaded.path if plain.chat.loaded else ""
    plain.loading, plain.stopped = True, False
    try:
        if await _follow(plain, path):
            with contextlib.suppress(KtchatError):  # settings that cannot be saved still hold
                plain.settings.update(**plain.settings.settings.with_model(path))
            await ask(usage.note_opened, path)
            return True
        if previous and previous != path and plain.chat.loaded is None:
            await _follow(plain, previous)
        return False
    finally:
        plain.loading = False


async def _follow(plain: PlainChat, path: str) -> bool:
    voice = plain.voice
    plain.say(f"loading {words.model_file(path)}")
    voice.begin_work()
    try:
        async for event in plain.chat.load(plain.settings.load(path)):
            match event:
                case Progress():
                    voice.progress(words.progress(event))
                case Quiet(quiet):
                    plain.say_quiet(quiet)
                case Notice(text):
                    plain.say(f"note: {text}")
                case Failed(error):
                    plain.say(f"error: {error}")
                    return False
                case Loaded():
                    plain.say(f"model: {_facts(event)}")
                    return True
                case _:
                    pass
    except KtchatError as error:
        plain.say(f"error: {error}")
    return False


def _facts(loaded: Loaded) -> str:
    name, quantisation = one_line(loaded.name, 60), one_line(loaded.quantisation, 20)
    other = one_line(loaded.runtime, 20) if loaded.runtime != "native" else ""
    context = f"context {short_count(loaded.context)}"
    return " · ".join(filter(None, (name, quantisation, other, words.place(loaded), context)))


async def model(plain: PlainChat, argument: str) -> None:
    """The model that answers and those that there are, or another one."""
    if not argument:
        await _list(plain)
        return
    named = argument.strip("'\"")
    if named.isdecimal() and not Path(named).exists():
        number = int(named)
        if not plain.models:
            plain.models = [entry.path for entry in await ask(_found, _recent(plain))]
        if not 1 <= number <= len(plain.models):
            plain.say(f"there is no model {number} in the list: /model shows it")
            return
        named = plain.models[number - 1]
    with contextlib.suppress(RuntimeError):  # no such home folder
        named = str(Path(named).expanduser())
    await load(plain, str(Path(named).absolute()))


async def _list(plain: PlainChat) -> None:
    loaded = plain.chat.loaded
    plain.say(f"model: {_facts(loaded)}" if loaded else "no model is loaded")
    entries = await ask(_found, _recent(plain))
    plain.models = [entry.path for entry in entries]
    plain.say("models here; /model N or /model FILE opens one, ktchat models pull gets others")
    for number, entry in enumerate(entries, 1):
        size = byte_size(entry.size)
        facts = entry.error or " · ".join(filter(None, (entry.quantisation, size)))
        guide = ", the built-in guide" if paths.is_guide(entry.path) else ""
        plain.voice.item(f"{number}. {entry.name}{guide} · {facts}")


def _recent(plain: PlainChat) -> tuple[str, ...]:
    return plain.settings.settings.recent_models


def _found(recent: tuple[str, ...]) -> list[ModelEntry]:
    from ktchat.library.models import describe, find_models

    return [describe(path, source) for path, source in find_models(recent)]
