"""What becomes of a message that does not fit into the context: as the person chooses, or as the setting says.

Whatever happens, the message is not lost: while nothing is decided it stands in the prompt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from engine.common.threads import ask
from engine.errors import KtchatError
from ktchat.attachments.attachment import Draft
from ktchat.store.conversation import Compaction
from ktchat.widgets.formats import counted

if TYPE_CHECKING:
    from ktchat.screens.chat.activity import Activity
    from ktchat.screens.chat.frame import Frame
    from ktchat.screens.chat.model_flow import ModelFlow
    from ktchat.screens.chat.session_flow import SessionFlow
    from ktchat.session.chat import ChatSession
    from ktchat.session.compaction import Overflow, Room
    from ktchat.session.ways import Way
    from ktchat.store.conversation import Conversation

UNDO = ("undo", "screen.bring_back")
SECONDS = 30.0
"""How long it is said what was done without asking."""


class OverflowFlow:
    """Stands before every reply."""

    def __init__(
        self, frame: Frame, activity: Activity, models: ModelFlow, sessions: SessionFlow
    ) -> None:
        self._frame = frame
        self._activity = activity
        self._context = activity.context
        self._models = models
        self._sessions = sessions
        self.news = ""
        """What was done, to be said once the reply begins."""
        self.send: Callable[[Draft], None] = lambda draft: None
        """Sends a message in the session that is open then."""

    def guard(
        self, chat: ChatSession, unsent: Conversation, draft: Draft, begin: Callable[[], None]
    ) -> bool:
        """Whether a reply may begin at once. Else it is seen to: `begin` is called later, or `draft` is in the prompt.

        `unsent` is the conversation as it would be sent; an empty `draft`: the person wrote nothing for it.
        """
        from ktchat.session.compaction import Compactor

        if Compactor(chat).surely_fits(unsent):
            return True
        self._activity.making_room = "counting tokens"
        self._frame.run_worker(
            self._make_room(chat, unsent, draft, begin), group="room", exit_on_error=False
        )
        return False

    def stop(self) -> bool:
        """Leave all as it was; False: nothing goes on."""
        if not self._activity.making_room:
            return False
        if not self._models.stop():  # else the model is loaded again as it was
            self._frame.workers.cancel_group(self._frame, "room")
        return True

    def bring_back(self) -> None:
        """Have read again what was left unread last, from the next message on."""
        chat, status = self._context.chat, self._frame.status
        earlier = chat.conversation.earlier_compaction if chat is not None else None
        if chat is None or earlier is None:
            status.say("every turn is read")
        elif self._activity.busy or chat.read_only:
            status.say("not while a reply is being written: Esc stops it")
        else:
            before = chat.conversation.compaction
            self._frame.prompt.focus()  # before the line goes that may have the focus
            self.choose(chat, earlier)
            turns = counted(before.unread - earlier.unread, "turn")
            status.say(f"from the next message on {turns} more are read again")

    async def written(self, chat: ChatSession, asked: Conversation, room: Room) -> str | None:
        """The summary that the model wrote, as the person left it; None: all stays as it was."""
        from ktchat.screens.dialogs.summary_sheet import SummarySheet
        from ktchat.session.compaction import Compactor

        texts = Compactor(chat).write(room, asked)
        sheet = SummarySheet(f"Summary of {room.oldest}", texts)
        written = await self._frame.app.push_screen_wait(sheet)
        await chat.wait_idle()
        return written

    def choose(self, chat: ChatSession, compaction: Compaction, room: Room | None = None) -> None:
        """Have turns go unread from the next message on; `news` says it."""
        if room is not None:
            are = "is" if len(room.turns) == 1 else "are"
            what = "summarised" if compaction.summary and room.summary else "no longer read"
            self.news = f"{room.oldest} {are} {what}"
        chat.choose_compaction(compaction)
        self._frame.transcript.mark_unread()
        self._frame.count_draft()

    # Inside.

    async def _make_room(
        self, chat: ChatSession, unsent: Conversation, draft: Draft, begin: Callable[[], None]
    ) -> None:
        from ktchat.session.compaction import Compactor

        activity, goes_on, shown = self._activity, False, False
        self.news = ""
        try:
            overflow = await Compactor(chat).overflow(unsent)
            if overflow is None:
                goes_on = True
            else:
                self._frame.prompt.put_before(draft)
                shown = True
                goes_on = await self._decide(chat, overflow, draft)
        except KtchatError as error:
            self._frame.status.say(str(error), "error")
        finally:
            activity.making_room = ""
            if not goes_on and not shown:
                self._frame.prompt.put_before(draft)
            self._frame.refresh_status()
            activity.changed()
        if goes_on:
            if shown:
                self._take_out(draft)
            begin()
            if self.news:
                self._frame.status.say(self.news, "information", UNDO, SECONDS)

    async def _decide(self, chat: ChatSession, overflow: Overflow, draft: Draft) -> bool:
        """Make room as the setting says, or as the person chooses; whether there is some."""
        from ktchat.session import ways
        from ktchat.session.compaction import Compactor

        policy, status = self._context.settings.settings.overflow, self._frame.status
        if policy == "stop" and overflow.left > 0:
            return True
        if policy == "stop":
            status.say(f"it does not fit into the context: {ways.excess(overflow)}", "error")
            return False
        compactor = Compactor(chat)
        room = None
        if policy == "drop":
            room = await compactor.drop(overflow)
        elif policy == "summarise":
            room = await compactor.summarise(overflow)
        if room is None:
            return await self._ask(chat, overflow, draft)
        await self._make(chat, room)
        return True

    async def _make(self, chat: ChatSession, room: Room) -> None:
        """Let turns go unread; a summary is written without asking, and can be seen in the transcript."""
        from ktchat.session.compaction import Compactor

        summary = room.compaction.summary
        if room.summary:
            turns = counted(len(room.turns), "turn")
            self._say(f"summarising {turns}")
            async for summary in Compactor(chat).write(room, chat.conversation):
                self._say(f"summarising {turns} · {counted(len(summary.split()), 'word')}")
        self.choose(chat, Compaction(room.compaction.unread, summary), room)

    async def _ask(self, chat: ChatSession, overflow: Overflow, draft: Draft) -> bool:
        from ktchat.screens.dialogs.overflow_sheet import OverflowSheet
        from ktchat.session import ways

        loaded = chat.loaded
        if loaded is None:
            return False
        found = await ways.find(chat, overflow, loaded)
        load = self._context.settings.load(loaded.path)

        async def late() -> list[Way]:
            return found.listed(await ask(ways.find_longer, overflow, load, loaded))

        title = f"The {'reply' if found.going_on else 'message'} does not fit into the context"
        self._say("choose how to make room")
        figures = ways.excess(overflow)
        sheet = OverflowSheet(
            title, figures, found.listed(), late(), partial(self._type_on, draft.text)
        )
        way = await self._frame.app.push_screen_wait(sheet)
        if way is None:
            return False
        if way.always:
            self._context.remember(overflow=way.kind)
        return await self._go(chat, overflow, way, draft)

    async def _go(self, chat: ChatSession, overflow: Overflow, way: Way, draft: Draft) -> bool:
        if way.kind == "send":
            return True
        if way.kind == "longer":
            return await self._load_longer(chat, way.tokens)
        assert way.room is not None
        summary = way.room.compaction.summary
        if way.room.summary:
            written = await self.written(chat, overflow.conversation, way.room)
            if written is None:
                return False
            summary = written
        if way.kind == "new":
            self._begin_anew(chat, summary, draft or overflow.conversation.turns[-1].draft)
            return False
        self.choose(chat, Compaction(way.room.compaction.unread, summary), way.room)
        return True

    async def _load_longer(self, chat: ChatSession, tokens: int) -> bool:
        """Load the model with a longer context; where that fails, again as it was."""
        settings, loaded, activity = self._context.settings, chat.loaded, self._activity
        if loaded is None:
            return False
        overrides = settings.overrides
        for context in (tokens, loaded.context):
            settings.overrides = replace(overrides, context=context)
            try:
                self._models.load(loaded.path)
                await activity.until(lambda: not activity.loading)
            finally:
                settings.overrides = overrides
            if chat.loaded is not None:
                return chat.loaded.context >= tokens
        return False

    def _begin_anew(self, chat: ChatSession, summary: str, draft: Draft) -> None:
        """The message begins another session, behind a summary of this one."""

        async def begin() -> None:
            await self._activity.until(lambda: not self._activity.making_room)
            self._take_out(draft)
            left = chat.conversation
            await self._sessions.begin()
            if chat.conversation is left:  # it is said why
                self._frame.prompt.put_before(draft)
                return
            chat.conversation.think, chat.conversation.system = left.think, left.system
            chat.conversation.choices = dict(left.choices)
            chat.conversation.choose_compaction(Compaction(0, summary))
            self.send(draft)

        self._frame.run_worker(begin(), group="sessions", exit_on_error=False)

    def _say(self, words: str) -> None:
        self._activity.making_room = words
        self._frame.refresh_status()

    def _type_on(self, text: str, character: str) -> None:
        """What is typed while the person is asked is the next message's."""
        prompt = self._frame.prompt
        if text and prompt.text == text:
            character = f"\n{character}"
        prompt.insert(character, prompt.document.end)

    def _take_out(self, draft: Draft) -> None:
        """The message is on its way; what was typed behind it stays."""
        prompt = self._frame.prompt
        rest = prompt.text
        if draft.text and rest.startswith(draft.text):
            rest = rest[len(draft.text) :].removeprefix("\n")
        if draft:
            prompt.put(rest)
            self._frame.chips.take_out(draft.attachments)
