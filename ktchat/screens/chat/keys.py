"""The keys of the chat: one table for the bindings, the help, the key bar and the palette."""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding


@dataclass(frozen=True, slots=True)
class Key:
    """A command of the chat screen and the key it has."""

    key: str
    """Textual's name of the key; several with commas; empty: only in the palette."""
    shown: str
    """The key as it is printed."""
    action: str
    name: str
    """Two or three words for the key bar and the palette."""
    help: str
    """One line for the key help and the palette."""
    slash: str = ""
    """Its name as a command behind `/` in the prompt; empty: it has none."""


KEYS = (
    Key("", "Enter", "", "send", "Send the message"),
    Key("", "Ctrl+J", "", "new line", "New line; Shift+Enter too, where the terminal sends it"),
    Key("escape", "Esc", "stop", "stop", "Stop the reply and keep what came; leave editing"),
    Key("", "Esc Esc", "", "clear", "Clear the prompt, as Ctrl+U does; Ctrl+Z brings it back"),
    Key("", "/", "", "commands", "In an empty prompt: commands by name; Tab completes"),
    Key(
        "",
        "@",
        "",
        "files",
        "Attach a file, a PDF or a folder; Tab goes into a folder",
    ),
    Key(
        "",
        "Shift+Tab",
        "",
        "attached",
        "To what is attached: Enter opens, Del removes, t: as text",
    ),
    Key("", "Up Down", "", "recall", "In an empty prompt: earlier prompts"),
    Key(
        "ctrl+s",
        "Ctrl+S",
        "history",
        "earlier prompts",
        "Search the prompts of all sessions, as Ctrl+R does in a shell",
        "history",
    ),
    Key(
        "",
        "Ctrl+A",
        "",
        "select all",
        "Select the whole prompt",
    ),
    Key("ctrl+g", "Ctrl+G", "editor", "editor", "Write the prompt in $VISUAL or $EDITOR", "editor"),
    Key("ctrl+n", "Ctrl+N", "new_session", "new session", "Begin a new session", "new"),
    Key(
        "ctrl+b",
        "Ctrl+B",
        "toggle_sessions",
        "sessions",
        "Show or hide the session list",
        "sessions",
    ),
    Key(
        "ctrl+f",
        "Ctrl+F",
        "search_here",
        "search",
        "Search in this conversation; Tab: in all sessions",
        "search",
    ),
    Key("", "/", "", "search sessions", "In the session list: search in all titles and texts"),
    Key("f2", "F2", "rename", "rename", "Rename the session", "rename"),
    Key(
        "", "Del", "", "delete session", "In the session list: delete the session; u brings it back"
    ),
    Key(
        "ctrl+r",
        "Ctrl+R",
        "regenerate",
        "regenerate",
        "Regenerate the last reply, or try again",
        "regenerate",
    ),
    Key("f4", "F4", "edit", "edit", "Edit the last message and send it again", "edit"),
    Key(
        "f9",
        "F9",
        "go_on",
        "continue",
        "Let a reply that was stopped or cut go on from its end",
        "continue",
    ),
    Key("", "u", "", "bring back", "On the line of turns that are no longer read: read them again"),
    Key("f3", "F3", "copy_reply", "copy reply", "Copy the last reply", "copy"),
    Key("f6", "F6", "copy_code", "copy code", "Copy the last code block", "code"),
    Key("ctrl+t", "Ctrl+T", "fold_thinking", "thinking", "Fold or unfold the model's thinking"),
    Key(
        "f7",
        "F7",
        "cycle_thinking",
        "switch thinking",
        "Thinking on, off, more or less, where the model offers it",
        "think",
    ),
    Key(
        "f8",
        "F8",
        "answer_now",
        "answer now",
        "End the thinking: the model goes on and answers",
        "answer",
    ),
    Key(
        "ctrl+o",
        "Ctrl+O",
        "models",
        "models",
        "Models: open, download, check and delete them",
        "model",
    ),
    Key(
        "f5", "F5", "load_on_cpu", "on the CPU", "Load the model on the CPU, without the GPU", "cpu"
    ),
    Key(
        "f12",
        "F12",
        "toggle_insight",
        "inside",
        "Inside the model: experts, bytes a token, what limits, speed over time",
        "inside",
    ),
    Key(
        "ctrl+l,ctrl+comma",
        "Ctrl+L",
        "settings",
        "settings",
        "Settings: sampling, presets, system message, context, theme; Ctrl+, too, where the terminal sends it",
        "settings",
    ),
    Key(
        "",
        "Shift+Tab",
        "",
        "messages",
        "To the messages, where Up and Down walk and Esc leads back",
    ),
    Key(
        "",
        "e r g b",
        "",
        "on one",
        "On a message: edit, regenerate, go on, branch into a new session",
    ),
    Key(
        "",
        "Left Right",
        "",
        "versions",
        "On a message with versions ‹ 2/3 ›: the one before, the next",
    ),
    Key("", "PgUp PgDn", "", "scroll", "Scroll the conversation; Ctrl+End goes to its end"),
    Key("ctrl+p", "Ctrl+P", "app.command_palette", "all", "Everything else: themes, undo, figures"),
    Key("f1", "F1", "help", "keys", "This help", "help"),
    Key("", "Ctrl+C", "", "copy, stop", "Copy a selection, else stop the reply, else (twice) quit"),
    Key("ctrl+q", "Ctrl+Q", "app.quit", "quit", "Quit; everything is saved"),
)

BINDINGS = [
    Binding(key.key, key.action, key.help, show=False)
    for key in KEYS
    if key.key and not key.action.startswith("app.")
]

Shown = tuple[str, str, str]
"""What the key bar shows: the key, a word, and the action of a click."""

IDLE: tuple[Shown, ...] = (
    ("Enter", "send", "screen.send"),
    ("Ctrl+J", "line", "screen.new_line"),
    ("Ctrl+B", "sessions", "screen.toggle_sessions"),
    ("Ctrl+O", "models", "screen.models"),
    ("Ctrl+P", "all", "app.command_palette"),
    ("F1", "keys", "screen.help"),
    ("Ctrl+L", "settings", "screen.settings"),
    ("Ctrl+R", "regenerate", "screen.regenerate"),
    ("F4", "edit", "screen.edit"),
    ("F3", "copy", "screen.copy_reply"),
    ("Ctrl+N", "new", "screen.new_session"),
    ("F12", "inside", "screen.toggle_insight"),
    ("Ctrl+Q", "quit", "app.quit"),
)
STREAMING: tuple[Shown, ...] = (("Esc", "stop", "screen.stop"), *IDLE)
THINKING: tuple[Shown, ...] = (STREAMING[0], ("F8", "answer now", "screen.answer_now"), *IDLE)
EDITING: tuple[Shown, ...] = (
    ("Enter", "replace", "screen.send"),
    ("Esc", "leave editing", "screen.stop"),
    *IDLE[1:],
)
SWITCH: Shown = ("F7", "thinking", "screen.cycle_thinking")
HELP = IDLE[5]


def with_switch(shown: tuple[Shown, ...]) -> tuple[Shown, ...]:
    """The same keys and the one that switches thinking, behind the help."""
    at = shown.index(HELP) + 1
    return (*shown[:at], SWITCH, *shown[at:])


SESSIONS: tuple[Shown, ...] = (
    ("Enter", "open", "screen.list_action('open')"),
    ("F2", "rename", "screen.rename"),
    ("Del", "delete", "screen.list_action('delete')"),
    ("u", "undo", "screen.undo_delete"),
    ("/", "search", "screen.search_all"),
    ("Esc", "back", "screen.stop"),
    ("Ctrl+N", "new", "screen.new_session"),
)
MESSAGE: tuple[Shown, ...] = (
    ("c", "copy", "screen.message_action('copy')"),
    ("r", "regenerate", "screen.message_action('regenerate')"),
    ("e", "edit", "screen.message_action('edit')"),
    ("b", "branch", "screen.message_action('branch')"),
    ("Up Down", "walk", "screen.nothing"),
    ("Esc", "back", "screen.stop"),
    ("t", "thinking", "screen.message_action('fold')"),
)
INSIGHT: tuple[Shown, ...] = (
    ("F12", "close", "screen.toggle_insight"),
    ("Up Down", "scroll", "screen.nothing"),
    ("Esc", "back", "screen.stop"),
    *IDLE[4:6],
)
UNREAD: tuple[Shown, ...] = (
    ("u", "bring back", "screen.bring_back"),
    ("Enter", "summary", "screen.message_action('fold')"),
    ("c", "copy", "screen.message_action('copy')"),
    *MESSAGE[4:6],
)
CHOOSING: tuple[Shown, ...] = (
    ("Enter", "take", "screen.take_suggestion(False)"),
    ("Tab", "complete", "screen.take_suggestion(True)"),
    ("Up Down", "choose", "screen.nothing"),
    ("Esc", "close", "screen.close_suggestions"),
)
CHIPS: tuple[Shown, ...] = (
    ("Enter", "open", "screen.chip_action('open')"),
    ("Del", "remove", "screen.chip_action('remove')"),
    ("t", "as text", "screen.chip_action('as_text')"),
    ("← →", "choose", "screen.chip_action('choose(1)')"),
    ("Ctrl+Z", "undo", "screen.chip_action('undo')"),
    ("Esc", "back", "screen.stop"),
)
VERSIONS: Shown = ("← →", "versions", "screen.message_action('version(1)')")
GO_ON: Shown = ("g", "continue", "screen.message_action('go_on')")


def of_turn(versions: bool, can_go_on: bool) -> tuple[Shown, ...]:
    """The keys of a message that has versions, or whose reply can go on."""
    more = (*((VERSIONS,) if versions else ()), *((GO_ON,) if can_go_on else ()))
    return (*MESSAGE[:1], *more, *MESSAGE[1:])
