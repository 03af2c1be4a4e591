"""The chat's commands: every action that has a key, and what has none; in the palette, and by name behind a `/`.

One row adds one: a `Key` with a `slash` where it has a key, else a `Command` in `listed`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ktchat.screens.chat import loading_choices
from ktchat.screens.chat.command import Command, nothing
from ktchat.screens.chat.keys import KEYS

if TYPE_CHECKING:
    from ktchat.screens.chat.chat import ChatScreen

OVERFLOW = {
    "ask": "Ask each time what is to be done",
    "drop": "Let the oldest turns go unread",
    "summarise": "Have the model summarise the oldest turns",
    "stop": "Do not send what does not fit",
}
"""What the setting `overflow` can be."""
EXPORTS = (
    ("markdown", "A text file to read"),
    ("json", "Everything, to import elsewhere"),
    ("html", "One page for a browser"),
)


def listed(screen: ChatScreen) -> Iterator[Command]:
    """What the chat screen can do, what has a key first."""
    yield from _with_keys(screen)
    yield from _for_the_message(screen)
    yield from _for_the_context(screen)
    yield from _for_sessions(screen)
    yield Command(
        "Set up", "This machine, and a model that suits it", _run(screen, "app.setup"), "setup"
    )
    yield Command(
        "Theme", "Dark, light, 16 colours and more", _run(screen, "app.change_theme"), "theme"
    )
    yield Command("Quit", "Everything is saved", _run(screen, "app.quit"), "quit")


def _run(screen: ChatScreen, action: str) -> Callable[[], object]:
    return partial(screen.app.call_later, screen.app.run_action, action)


def _with_keys(screen: ChatScreen) -> Iterator[Command]:
    with_argument = _with_argument(screen)
    for key in KEYS:
        if key.action and not key.action.startswith("app."):
            offered = screen.thinking.offers(key.action)  # else its name says why not
            title = key.name[:1].upper() + key.name[1:] if offered else ""
            argument, take, choices = with_argument.get(key.slash, ("", None, nothing))
            do = _run(screen, f"screen.{key.action}")
            yield Command(title, key.help, do, key.slash, argument, take, choices)


def _for_the_context(screen: ChatScreen) -> Iterator[Command]:
    """How models are loaded and think, and what becomes of a full context."""
    later, thinking = screen.app.call_later, screen.thinking
    for choice, words in loading_choices.offered(screen.context.settings, screen.models.present):
        yield Command(choice.title, words, partial(later, screen.models.change, choice))
    for policy, words in OVERFLOW.items():
        keep = partial(screen.context.remember, overflow=policy)
        yield Command(f"Context is full: {policy}", words, partial(later, keep))
    words = "Have the model summarise all turns but the last, which then go unread"
    yield Command("Compact", words, partial(later, screen.compacting.compact), "compact")
    words = "From the next message on, what was dropped or summarised"
    yield Command("Bring back turns", words, _run(screen, "screen.bring_back"), "bring-back")
    for title, words, choose in thinking.commands():
        yield Command(title, words, partial(later, choose))
    words = "Which values hold, and where from"
    yield Command("Sampling", words, thinking.say_sampling, "sampling")
    words, temperature = "How varied it writes, in this session", screen.settings.choose_temperature
    at = _run(screen, "screen.settings('temperature')")
    yield Command("Temperature", words, at, "temp", "VALUE", temperature)
    words = "Sampling under a name: precise, balanced, creative, your own"
    yield Command("Presets", words, _run(screen, "screen.settings('preset')"), "presets")


def _for_sessions(screen: ChatScreen) -> Iterator[Command]:
    """What is done with whole sessions, and the ways through one."""
    later = screen.app.call_later
    for title, words, action, name in (
        ("Bring back session", "Undo the last deletion", "undo_delete", "undelete"),
        ("Search sessions", "In all titles and texts (/ in the session list)", "search_all", "find"),
        ("Branch", "A new session with all up to the last turn (b on a message)", "branch", "branch"),
        ("Version before", "Of the last turn that has versions (Left on it)", "version(-1)", ""),
        ("Version after", "Of the last turn that has versions (Right on it)", "version(1)", ""),
    ):  # fmt: skip
        yield Command(title, words, _run(screen, f"screen.{action}"), name)
    for form, words in EXPORTS:
        yield Command(f"Export as {form}", words, partial(later, screen.files.export, form))
    words = "A JSON file of ktchat, llama.cpp, Open WebUI or ChatGPT"
    yield Command("Import sessions", words, partial(later, screen.files.take_in), "import")
    words = "What the KV cache of sessions takes, and how to empty it"
    yield Command("Sessions on disk", words, screen.sessions.say_on_disk, "disk")


def _for_the_message(screen: ChatScreen) -> Iterator[Command]:
    """What is about the next message."""
    later = screen.app.call_later

    def export(form: str) -> None:
        if form in dict(EXPORTS):
            screen.files.export(form)
        else:
            screen.status.say(f"export as {', '.join(dict(EXPORTS))}", "warning")

    words = "Attach a file, a folder or a PDF (@ in the prompt)"
    attach = partial(later, screen.type_at)
    yield Command("Attach a file", words, attach, "file", "PATH", screen.attach_named)
    words, system = "The system message of this session", screen.system
    yield Command("System message", words, system.say, "system", "TEXT", system.choose)
    words = "The session as Markdown, or as JSON or HTML"
    forms = partial(tuple, dict(EXPORTS))
    yield Command("", words, partial(export, "markdown"), "export", "FORM", export, forms)


def _with_argument(
    screen: ChatScreen,
) -> dict[str, tuple[str, Callable[[str], object], Callable[[], Sequence[str]]]]:
    """Commands with a key that take something behind their name."""
    return {
        "model": ("NAME", screen.models.load_named, screen.models.names),
        "think": ("CHOICE", screen.thinking.choose_named, screen.thinking.names),
        "rename": ("TITLE", screen.rename_to, nothing),
    }
