"""The open session as a tree: its versions, replies changed by hand, branches into sessions of their own."""

from __future__ import annotations

import time
from collections.abc import Sequence

from engine.errors import RequestError
from engine.protocol import Counted, Message
from ktchat.attachments.attachment import Draft
from ktchat.common.errors import SessionBusyError
from ktchat.session.open_session import OpenSession
from ktchat.store import tree
from ktchat.store.conversation import Compaction, Conversation, Turn, TurnState

MEASURED = 20
"""Of the last turns, those whose speed counts."""


BRANCH = " · branch"
"""Behind the title of a session that began as a part of another one."""


class BranchingSession(OpenSession):
    """What can be done with the turns of the open session; none of it needs the engine."""

    def show_version(self, turn: Turn) -> None:
        """Show the path through a turn of the tree: from now on that is the conversation.

        Raises `RequestError` while a reply is being written.
        """
        self._must_be_idle()
        tree.show(self.conversation, turn)
        if not self.read_only:
            self.saver.touch(self.conversation)

    def choose_compaction(self, compaction: Compaction) -> None:
        """Which turns go unread, from the next message on."""
        self.conversation.choose_compaction(compaction)
        if self.conversation.turns and not self.read_only:
            self.saver.touch(self.conversation)

    def edit_reply(self, turn: Turn, text: str) -> None:
        """Put `text` in the place of a reply; what follows it stays, and the old reply becomes a version.

        Raises `RequestError` and `SessionBusyError` before anything is changed.
        """
        self._must_be_idle()
        self._must_be_ours("The reply was not changed")
        self._must_be_shown(turn)
        if not text.strip():
            raise RequestError("The reply was not changed", "There is nothing in it", "")
        if text == turn.raw_reply:
            return
        before = tree.copied(turn, turn.parent)
        self.conversation.others.append(before)
        turn.raw_reply, turn.edited = text, time.time()
        turn.state, turn.reason, turn.error = TurnState.COMPLETE, None, None
        self.conversation.updated = time.time()
        self.saver.touch(self.conversation, before, turn)

    async def branch(self, turn: Turn) -> Conversation:
        """Begin a session with the conversation up to a turn, and open it. The old one stays as it is.

        Raises `RequestError` while a reply is being written.
        """
        self._must_be_idle()
        self._must_be_shown(turn)
        source = self.conversation
        path = source.turns[: source.turns.index(turn) + 1]
        parent: str | None = None
        turns: list[Turn] = []
        for shown in path:
            turns.append(tree.copied(shown, parent))
            parent = turns[-1].id
        await self._leave()
        self.read_only, self.draft = False, Draft()
        self.conversation = Conversation(
            title=f"{source.title.removesuffix(BRANCH)}{BRANCH}",
            model_path=source.model_path,
            model_name=source.model_name,
            system=source.system,
            think=source.think,
            choices=dict(source.choices),
            turns=turns,
        )
        await self.store.call(self.store.claim, self.conversation.id)
        self.saver.touch(self.conversation, *turns)
        await self.saver.flush()
        return self.conversation

    async def read_again(self, turn: Turn, part: tree.Part | None) -> int | None:
        """Tokens that have to be read again to regenerate the reply to a turn of the path (`part` None), after its
        message was edited ("prompt"), or before the next reply once its reply was ("reply"); None: unknown."""
        counted = await self.count(self.messages_for(turn))
        if counted is None or counted.tokens is None:
            return None
        if part is None:
            return counted.tokens - counted.cached
        if part == "prompt":
            own = counted.each[-1] if counted.each else 0
            return counted.tokens - min(counted.cached, counted.tokens - own)
        whole = await self.count(self.conversation.messages())
        if whole is None or whole.tokens is None:
            return None
        return max(0, whole.tokens - min(whole.cached, counted.tokens))

    async def count(self, messages: Sequence[Message]) -> Counted | None:
        """What the engine counts; None: there is none, or no model."""
        return None

    @property
    def prompt_speed(self) -> float:
        """Tokens of a prompt read a second, as measured in this session where most was read; 0: not yet."""
        known = [t.figures for t in self.conversation.turns[-MEASURED:] if t.figures is not None]
        most = max(known, key=lambda f: f.prompt_tokens - f.cached_tokens, default=None)
        return most.prefill_tok_s if most is not None else 0.0

    def messages_for(self, turn: Turn) -> list[Message]:
        """What the model would read to answer a turn of the path anew."""
        at = self.conversation.turns.index(turn)
        asked = Turn(turn.raw_prompt, compaction=turn.compaction, attachments=turn.attachments)
        turns = [*self.conversation.turns[:at], asked]
        return Conversation(system=self.conversation.system, turns=turns).messages()

    def _must_be_shown(self, turn: Turn) -> None:
        if not any(shown is turn for shown in self.conversation.turns):
            raise RequestError("Nothing was changed", "This version is not shown any more", "")

    def _must_be_ours(self, what: str) -> None:
        if self.read_only:
            raise SessionBusyError(
                what,
                "This session is open in another ktchat",
                "Close it there and open it again here, or begin a new session with Ctrl+N",
            )
