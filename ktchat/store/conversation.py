"""A conversation and its turns, and the prompt that they become.

Raw text (what was typed, what the model said) is kept for the prompt and the file; `prompt`, `reply`
and `thinking` are the same texts made safe to draw.
"""

from __future__ import annotations

import itertools
import time
import uuid
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from engine.errors import KtchatError
from engine.protocol import Figures, Message, Reason, Sampling, Think
from ktchat.attachments.attachment import Attachment, Draft, with_blocks
from ktchat.common.text import one_line, sanitise


class TurnState(StrEnum):
    """How far a reply is, or how it ended."""

    STREAMING = "streaming"
    """It is being written."""
    COMPLETE = "complete"
    """The model ended it, or its limit did."""
    STOPPED = "stopped"
    """The person stopped it."""
    INTERRUPTED = "interrupted"
    """The program ended first."""
    FAILED = "failed"
    """The engine failed: see `Turn.error`."""


_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Compaction:
    """What of the beginning of a conversation the model reads no more, and what it reads instead.

    It is a count and no list of turns: what comes before a turn never changes.
    """

    unread: int = 0
    """The first so many turns are not read."""
    summary: str = ""
    """Read in their place; safe to draw."""

    def within(self, turns: int) -> Compaction:
        """The same before which there are so many turns."""
        return self if self.unread <= turns else Compaction(turns, self.summary)


EVERYTHING = Compaction()
"""Every turn is read (again)."""


TITLE_LENGTH = 100
UNTITLED = "New session"


def new_id() -> str:
    """A random name for a session or a turn: 32 hexadecimal digits."""
    return uuid.uuid4().hex


@dataclass
class Turn:
    """One message of the person and the reply to it."""

    raw_prompt: str
    raw_reply: str = ""
    raw_thinking: str = ""
    state: TurnState = TurnState.STREAMING
    reason: Reason | None = None
    """Why the engine ended the reply; None while it streams or when it failed."""
    error: KtchatError | None = None
    """Why it failed, in words that are safe to draw."""
    figures: Figures | None = None
    sampling: Sampling = field(default_factory=Sampling)
    max_tokens: int | None = None
    model: str = ""
    """Name, safe to draw, of the model that replied."""
    created: float = field(default_factory=time.time)
    """Unix time at which the message was sent."""
    id: str = field(default_factory=new_id)
    parent: str | None = None
    """The turn before it; regenerating or editing makes a second child of the same parent."""
    edited: float | None = None
    """Unix time at which the person changed the reply; None: it is as the model wrote it."""
    number: int = field(default_factory=_numbers.__next__, compare=False, repr=False)
    """Grows with every turn that is made or read: versions of a turn are in this order."""
    compaction: Compaction | None = None
    """Holds from this turn on; None: what holds at the turn before it."""
    attachments: tuple[Attachment, ...] = ()
    """What goes with the message; the model reads it before the message's own text."""

    @property
    def message(self) -> str:
        """The person's message as the model reads it, with what is attached."""
        return with_blocks(self.raw_prompt, self.attachments)

    @property
    def draft(self) -> Draft:
        """The person's message, to be sent again or changed. Two turns with equal ones are versions of a reply."""
        return Draft(self.raw_prompt, self.attachments)

    @property
    def prompt(self) -> str:
        """The person's message, safe to draw."""
        return sanitise(self.raw_prompt)

    @property
    def reply(self) -> str:
        """The model's reply, safe to draw."""
        return sanitise(self.raw_reply)

    @property
    def thinking(self) -> str:
        """The model's reasoning, safe to draw."""
        return sanitise(self.raw_thinking)

    def rethink(self) -> None:
        """What stands in the reply was reasoning."""
        parts = (self.raw_thinking, self.raw_reply.strip())
        self.raw_thinking, self.raw_reply = "\n\n".join(filter(None, parts)), ""

    @property
    def without_reply(self) -> bool:
        """Whether it failed before the first word: its message goes back to the prompt box."""
        return self.state == TurnState.FAILED and not self.raw_reply

    @property
    def can_go_on(self) -> bool:
        """Whether the reply is not at its end: it was stopped, interrupted, cut, or changed by hand."""
        if self.state == TurnState.STREAMING or not (self.raw_reply or self.raw_thinking):
            return False
        at_its_end = self.state == TurnState.COMPLETE and self.reason in (None, "stop")
        return self.edited is not None or not at_its_end


@dataclass
class Conversation:
    """A session's tree of turns, the path through it that is shown, and what it was held with."""

    id: str = field(default_factory=new_id)
    title: str = ""
    """One line, safe to draw; empty before the first message."""
    created: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    model_path: str = ""
    model_name: str = ""
    """Safe to draw; `model_path` is not."""
    system: str = ""
    think: Think | None = None
    """What was chosen of the model's thinking; None: as its template has it."""
    choices: dict[str, Any] = field(default_factory=dict)
    """What else was chosen for this session: `setting_values.PER_SESSION`."""
    turns: list[Turn] = field(default_factory=list)
    """The turns that are shown, and sent."""
    others: list[Turn] = field(default_factory=list)
    """All other turns of its tree: what was edited, regenerated or left for another version (`store.tree`)."""
    last_shown: dict[str | None, str] = field(default_factory=dict, compare=False, repr=False)
    """Id of a turn, and of the one that was shown behind it last, where that is another one now."""
    next_compaction: Compaction | None = None
    """Chosen for the next message; None: what holds at the last turn."""

    @property
    def compaction(self) -> Compaction:
        """What holds for the next message."""
        if self.next_compaction is not None:
            return self.next_compaction.within(len(self.turns))
        return self._past_compactions[-1]

    @property
    def earlier_compaction(self) -> Compaction | None:
        """What held before the present one was chosen; None: everything is read."""
        past, now = self._past_compactions, self.compaction
        if now == EVERYTHING:
            return None
        return past[past.index(now) - 1] if now in past else past[-1]

    def choose_compaction(self, compaction: Compaction) -> None:
        """It holds from the next message on."""
        holds = compaction == self._past_compactions[-1]
        self.next_compaction = None if holds else compaction

    @property
    def _past_compactions(self) -> list[Compaction]:
        """Those of the turns, one after another."""
        return [EVERYTHING] + [
            turn.compaction.within(number)
            for number, turn in enumerate(self.turns)
            if turn.compaction is not None
        ]

    @property
    def shown_title(self) -> str:
        """The title, safe to draw on one line; words for a session without one."""
        return one_line(self.title, TITLE_LENGTH) or UNTITLED

    @property
    def last(self) -> Turn | None:
        """The last turn, if any."""
        return self.turns[-1] if self.turns else None

    def messages(self) -> list[Message]:
        """The conversation as the model reads it; the last turn is the one to be answered.

        Thinking is left out, and so is a turn that failed before its first word. A reply that was
        stopped or interrupted counts as far as it came; where nothing came, the message joins the
        next one, because templates want the two roles to alternate. A summary of turns that are not
        read is the person's, so that no text of a model speaks as the system.
        """
        compaction = self.compaction
        said: list[tuple[str, str]] = []
        if compaction.summary:
            said.append(("user", SUMMARY.format(compaction.summary)))
        for turn in self.turns[compaction.unread :]:
            if turn.without_reply:
                continue
            said.append(("user", turn.message))
            if turn.raw_reply:
                said.append(("assistant", turn.raw_reply))
        messages = [Message("system", self.system)] if self.system.strip() else []
        for role, content in said:
            if role == "user" and messages and messages[-1].role == "user":
                messages[-1] = Message("user", f"{messages[-1].content}\n\n{content}")
            else:
                messages.append(Message("user" if role == "user" else "assistant", content))
        return messages


SUMMARY = "Summary of our conversation so far:\n\n{}\n\n(The conversation goes on.)"


def title_of(text: str) -> str:
    """A session's title from its first message: its first line that says something, shortened."""
    for line in sanitise(text[:4000]).splitlines():
        words = line.strip().lstrip("#>*-` ").strip()
        if words:
            return _at_word(words)
    return ""


def title_of_draft(draft: Draft) -> str:
    """A session's title from its first message; where nothing was written, from what is attached."""
    names = [attachment.name for attachment in draft.attachments]
    return title_of(draft.text) or (one_line(", ".join(names), TITLE_LENGTH) if names else "")


def _at_word(text: str) -> str:
    line = one_line(text, 4 * TITLE_LENGTH)
    if len(line) <= TITLE_LENGTH:
        return line
    cut = line[: TITLE_LENGTH - 1]
    space = cut.rfind(" ")
    return (cut[:space] if space > TITLE_LENGTH // 2 else cut).rstrip(" ,.;:") + "…"
