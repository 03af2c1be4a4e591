"""`ChatSession`: one person's chat over an engine and a store.

The message is saved, the conversation becomes a prompt, the reply is taken from the engine and saved
in steps. `conversation` is the single truth of what was said. The full-screen application and
`ktchat run` both stand on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence

from engine.errors import RequestError
from ktchat.attachments.attachment import Attachment, Draft
from ktchat.common.words import answering
from ktchat.session.open_session import LayersOf
from ktchat.session.reply import Engine, Reply, Started, Update
from ktchat.session.titles import TitledSession
from ktchat.store import tree
from ktchat.store.conversation import Turn, TurnState, title_of_draft
from ktchat.store.saver import Notify, Severity
from ktchat.store.store import Store

__all__ = ["ChatSession", "Engine", "Notify", "Severity", "Started", "Update"]

CLOSE_SECONDS = 0.5
"""How long a reply may take to end when the program does."""


class ChatSession(TitledSession):
    """The chat of one running program: the session that is open, and the replies in it.

    Create it inside a running event loop. `layers` says what holds of the settings for the model at a path;
    it is asked at each message, and at each new session for its system message. All text in the events is
    safe to draw; raw text is in the turn. `notify` is told what concerns no single reply: saving
    failed, saving works again.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        *,
        layers: LayersOf | None = None,
        notify: Notify | None = None,
    ) -> None:
        super().__init__(engine, store, layers, notify)
        self.watch = True
        """Whether a reply is stopped when it repeats itself."""
        self._reply: Reply | None = None

    # What is going on.

    @property
    def busy(self) -> bool:
        """Whether a reply, or a summary, is being written."""
        return self._reply is not None or self._occupied

    # Replies. Each of the four raises `RequestError` or `SessionBusyError` before anything is
    # changed; a failure of the engine is the event `Failed`.

    def send(
        self, text: str, attachments: Sequence[Attachment] = ()
    ) -> AsyncGenerator[Update, None]:
        """Send a message with what goes with it; yields what becomes of it.

        Sending again what failed before its first word replaces the failed turn.
        """
        draft = Draft(text, tuple(attachments))
        return self._answer(draft, self.retried(draft))

    def retried(self, draft: Draft) -> Turn | None:
        """The turn that sending this message replaces: it failed before its first word."""
        last = self.conversation.last
        return last if last and last.without_reply and last.draft == draft else None

    def regenerate(self, turn: Turn | None = None) -> AsyncGenerator[Update, None]:
        """Write another reply to a turn that is shown (default: the last); the old one stays a version of it.

        When the new one fails or is stopped before its first word, the conversation is as before again
        at its last event.
        """
        turn = turn or self.conversation.last
        if turn is None:
            raise RequestError("There is no reply to regenerate", "", "Send a message first")
        return self._answer(turn.draft, turn)

    def edit(
        self, text: str, turn: Turn | None = None, attachments: Sequence[Attachment] = ()
    ) -> AsyncGenerator[Update, None]:
        """Put `text`, with what goes with it, in the place of a message that is shown (default: the last) and
        answer it; the old turn stays a version, with all that follows it."""
        turn = turn or self.conversation.last
        if turn is None:
            raise RequestError("There is no message to edit", "", "Send a message first")
        return self._answer(Draft(text, tuple(attachments)), turn)

    def go_on(self, turn: Turn | None = None) -> AsyncGenerator[Update, None]:
        """Let a reply that is shown (default: the last) go on from its end; one that was stopped because it
        repeats itself is not watched any more.

        Where turns follow it, or where less of the conversation is read, it is a new version that goes on.
        """
        turn = turn or self.conversation.last
        if turn is None or not turn.can_go_on:
            raise RequestError(
                "This reply cannot go on",
                "It is at its end" if turn and turn.raw_reply else "There is nothing of it",
                "Regenerate it, or send another message",
            )
        return self._answer(turn.draft, turn, goes_on=True)

    def stop(self) -> None:
        """Stop the reply; what came is kept. Its last event is `Finished("cancelled")`."""
        if self._reply is not None:
            self._reply.stop()
        elif self._occupied:
            self.engine.cancel()

    def answer_now(self) -> None:
        """End the thinking of the reply: the model goes on with its answer."""
        if self._reply is not None:
            self.engine.answer_now()

    def observe(self, on: bool) -> None:
        """Whether somebody watches how replies are computed: then `Insight` comes while they are written, too."""
        self.engine.observe(on)

    async def wait_idle(self) -> None:
        """Return when no reply is being written."""
        await self._idle.wait()

    async def close(self) -> None:
        """Interrupt the reply, save everything and let go of the session. Not of the engine."""
        await self.give_way()
        reply, conversation = self._reply, self.conversation
        if reply is not None:
            self.engine.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._idle.wait()
            reply.settle()
            if reply.turn.state == TurnState.STOPPED and not reply.stopping:
                reply.turn.state = TurnState.INTERRUPTED
                self.saver.touch(conversation, reply.turn)
        await super().close()

    # Inside.

    def _answer(
        self, draft: Draft, replaced: Turn | None, goes_on: bool = False
    ) -> AsyncGenerator[Update, None]:
        self._must_be_idle()
        if not draft and not goes_on:
            raise RequestError("There is nothing to send", "The message is empty", "")
        self._must_be_ours("The message was not sent")
        if replaced is not None:
            self._must_be_shown(replaced)
        return self._updates(draft, replaced, goes_on)

    async def _updates(
        self, draft: Draft, replaced: Turn | None, goes_on: bool
    ) -> AsyncGenerator[Update, None]:
        self._must_be_idle()
        await self.give_way()
        conversation, before = self.conversation, list(self.conversation.turns)
        repeats = goes_on and replaced is not None and replaced.reason == "repeats"
        if goes_on and replaced is not None:
            turn = self._resume(replaced)
        else:
            turn = self._begin(draft, replaced)
        reply = Reply(
            self.engine,
            turn,
            conversation.id if self.store.keeps else None,
            self.offered_think,
            lambda n: self.saver.touch(conversation, turn, tokens=n),
            watch=self.watch and not repeats,
        )
        self._reply = reply
        self._idle.clear()
        try:
            await self.store.call(self.store.claim, conversation.id)
            await self.saver.flush()
            yield Started(turn, replaced)
            messages = conversation.messages()
            if messages[-1].role == "assistant":  # what is there of the reply that goes on
                messages.pop()
            async with contextlib.aclosing(reply.events(messages)) as events:
                async for event in events:
                    if turn.state != TurnState.STREAMING:
                        self._end(turn, replaced, before)
                        await self.saver.flush()
                    yield event
        finally:
            reply.settle()
            self._reply = None
            self._idle.set()

    def _begin(self, draft: Draft, replaced: Turn | None) -> Turn:
        conversation = self.conversation
        compaction = conversation.next_compaction or (replaced.compaction if replaced else None)
        conversation.next_compaction = None
        if replaced is not None:
            tree.cut(conversation, replaced)
        if (model := self.engine.loaded) is not None:
            conversation.model_path, conversation.model_name = model.path, answering(model)
        last, layers = conversation.last, self.layers
        turn = Turn(
            raw_prompt=draft.text,
            sampling=layers.sampling,
            max_tokens=layers.token_limit,
            model=conversation.model_name,
            parent=last.id if last else None,
            compaction=compaction,
            attachments=draft.attachments,
        )
        if replaced is not None and replaced.draft == draft:
            turn.created = replaced.created  # the message is as old as it was
        conversation.title = conversation.title or title_of_draft(draft)
        conversation.updated = time.time()
        conversation.turns.append(turn)
        self.saver.touch(conversation, turn)
        if self.draft == draft:
            self.keep_draft(Draft())
        return turn

    def _resume(self, turn: Turn) -> Turn:
        """The turn whose reply goes on: this one, or a version of it where others follow."""
        conversation = self.conversation
        compaction = conversation.next_compaction or turn.compaction
        conversation.next_compaction = None
        if tree.children(conversation, turn.id) or compaction != turn.compaction:
            version = tree.copied(turn, turn.parent)
            version.compaction = compaction
            tree.cut(conversation, turn)
            conversation.turns.append(version)
            turn = version
        turn.state, turn.reason, turn.error = TurnState.STREAMING, None, None
        conversation.updated = time.time()
        self.saver.touch(conversation, turn)
        return turn

    def _end(self, turn: Turn, replaced: Turn | None, before: list[Turn]) -> None:
        """The reply has ended; a regeneration that brought nothing gives the old conversation back."""
        conversation = self.conversation
        conversation.updated = time.time()
        again = replaced is not None and replaced.draft == turn.draft
        nothing = turn.state in (TurnState.FAILED, TurnState.STOPPED) and not turn.raw_reply
        if replaced is not None and again and nothing and replaced.raw_reply:
            tree.set_path(conversation, before)
            self.saver.touch(conversation)
