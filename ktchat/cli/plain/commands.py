"""The commands of the plain chat: words that begin with `/`, and what they do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from engine.errors import KtchatError
from ktchat.attachments.attachment import Draft
from ktchat.cli.plain import models, options, sessions, turns
from ktchat.cli.plain.replies import send
from ktchat.cli.plain.state import PlainChat
from ktchat.common.text import one_line

Run = Callable[[PlainChat, str], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Command:
    """A command. `needs`: what is missing where there must be an argument."""

    name: str
    arguments: str
    help: str
    run: Run
    needs: str = ""


async def _help(plain: PlainChat, _: str) -> None:
    plain.say("commands")
    for command in COMMANDS:
        head = f"/{command.name} {command.arguments}".strip()
        plain.voice.item(f"{head}: {command.help}")
    plain.voice.item("")
    for line in MESSAGES:
        plain.voice.item(line)


async def _stop(plain: PlainChat, _: str) -> None:
    plain.say("no reply is being written")


async def _quit(plain: PlainChat, _: str) -> None:
    plain.leaving = 0


COMMANDS = (
    Command("help", "", "this list", _help),
    Command("new", "", "begin a session", sessions.new),
    Command("sessions", "[COUNT]", "list the sessions used last", sessions.sessions),
    Command(
        "open", "N", "open number N of the last list, or an id", sessions.open_session, "a number"
    ),
    Command("show", "[TURN]", "read the open session, or one turn of it", turns.show),
    Command("rename", "TITLE", "give the session another title", sessions.rename, "a title"),
    Command("delete", "[N]", "delete a session of the last list, or the open one", sessions.delete),
    Command("undo", "", "bring back the session deleted last", sessions.undo),
    Command("search", "WORDS", "find words in all sessions", sessions.search, "words"),
    Command("find", "WORDS", "find words in this session", sessions.find, "words"),
    Command(
        "regenerate", "[TURN]", "another reply to the last message, or try again", turns.regenerate
    ),
    Command("edit", "[TURN | TEXT]", "change the last message and send it again", turns.edit),
    Command("leave", "", "leave editing: the message stays as it is", turns.leave),
    Command("continue", "[TURN]", "let a reply that was stopped or cut go on", turns.go_on),
    Command(
        "versions", "[N] [of TURN]", "list the versions of a turn, or show one", turns.versions
    ),
    Command("branch", "[TURN]", "a new session with all up to a turn", turns.branch),
    Command("bringback", "", "read turns again that are no longer read", turns.bring_back),
    Command(
        "answer", "", "end the thinking of a running reply: the answer follows", options.answer
    ),
    Command("stop", "", "stop a running reply and keep what came, as Ctrl+C does", _stop),
    Command("model", "[N | FILE]", "list the models here, or open one", models.model),
    Command("cpu", "", "load the model on the CPU", options.on_cpu),
    Command("system", "[TEXT | -]", "the system message of this session", options.system),
    Command(
        "temp", "[T | model]", "the sampling values, or another temperature", options.temperature
    ),
    Command("think", "[CHOICE]", "how much the model thinks, where it offers that", options.think),
    Command(
        "thinking", "", "write the text of the thinking, or announce it alone", options.thinking
    ),
    Command("set", "[NAME [VALUE]]", "all settings, or another value for one", options.change),
    Command(
        "export", "[markdown | json | html] [FILE]", "write the session to a file", sessions.export
    ),
    Command("import", "FILE", "take in sessions from a JSON file", sessions.take_in, "a file"),
    Command("disk", "", "what sessions take on the disk", sessions.disk),
    Command("quit", "", "leave; everything is saved", _quit),
)
MESSAGES = (
    'A message of several lines: end a line with \\, or put all of it between two """.',
    "Ctrl+C stops a reply and keeps what came; twice at the prompt it leaves. Ctrl+D leaves.",
    "A message that begins with / is sent with a blank before it.",
)
BY_NAME = {command.name: command for command in COMMANDS}


async def take(plain: PlainChat, text: str) -> None:
    """Do what the person typed: a command, or a message that is sent."""
    plain.stopped = False
    if not text.strip():
        return
    command = _named(text)
    if command is None:
        if plain.chat.draft.text != text:  # it was taken out of the line
            plain.chat.keep_draft(Draft("", plain.chat.draft.attachments))
        await send(plain, text)
        return
    name, argument = command
    found = BY_NAME.get(name)
    if found is None:
        words = one_line(name, 40)
        plain.say(
            f"there is no command /{words}: /help lists them; a message may begin with a blank"
        )
        plain.failed = True
    elif found.needs and not argument:
        plain.say(f"/{name} needs {found.needs}: /{name} {found.arguments}")
    else:
        try:
            await found.run(plain, argument)
        except KtchatError as error:
            plain.say(f"error: {error}")
            plain.failed = True


def _named(text: str) -> tuple[str, str] | None:
    """The name of a command and its argument; None: it is a message, such as one that begins with a path."""
    if not text.startswith("/"):
        return None
    name, _, argument = text[1:].partition(" ")
    if "/" in name or "\n" in name or not name.strip():
        return None
    return name.strip().lower(), argument.strip()
