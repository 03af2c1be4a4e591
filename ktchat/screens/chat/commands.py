"""The chat's commands in the palette: every action, and what has no key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from textual.app import SystemCommand

from ktchat.screens.chat import presets
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


def commands(screen: ChatScreen) -> Iterator[SystemCommand]:
    """What the chat screen can do."""
    later, thinking = screen.app.call_later, screen.thinking

    def run(action: str) -> Callable[[], object]:
        return partial(later, screen.app.run_action, action)

    for key in KEYS:
        if key.action and not key.action.startswith("app.") and thinking.offers(key.action):
            title = key.name[:1].upper() + key.name[1:]
            yield SystemCommand(title, key.help, run(f"screen.{key.action}"))
    for preset, words in presets.offered(screen.context.settings):
        yield SystemCommand(preset.title, words, partial(later, screen.models.change, preset))
    for policy, words in OVERFLOW.items():
        keep = partial(screen.context.remember, overflow=policy)
        yield SystemCommand(f"Context is full: {policy}", words, partial(later, keep))
    words = "From the next message on, what was dropped or summarised"
    yield SystemCommand("Bring back turns", words, run("screen.bring_back"))
    for title, words, choose in thinking.commands():
        yield SystemCommand(title, words, partial(later, choose))
    yield SystemCommand("Sampling", "Which values hold, and where from", thinking.say_sampling)
    words = "Undo the last deletion"
    yield SystemCommand("Bring back session", words, run("screen.undo_delete"))
    for title, words, action in (
        ("Search sessions", "In all titles and texts (/ in the session list)", "search_all"),
        ("Branch", "A new session with all up to the last turn (b on a message)", "branch"),
        ("Version before", "Of the last turn that has versions (Left on it)", "version(-1)"),
        ("Version after", "Of the last turn that has versions (Right on it)", "version(1)"),
    ):
        yield SystemCommand(title, words, run(f"screen.{action}"))
    for form, words in (
        ("markdown", "A text file to read"),
        ("json", "Everything, to import elsewhere"),
        ("html", "One page for a browser"),
    ):
        export = partial(later, screen.files.export, form)
        yield SystemCommand(f"Export as {form}", words, export)
    words = "A JSON file of ktchat, llama.cpp, Open WebUI or ChatGPT"
    yield SystemCommand("Import sessions", words, partial(later, screen.files.take_in))
    words = "What the KV cache of sessions takes, and how to empty it"
    yield SystemCommand("Sessions on disk", words, screen.sessions.say_on_disk)
