"""The open session and the model that answers in it: loading, the context, the choice of thinking."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Sequence

from engine.errors import RequestError, thinking_not_offered
from engine.protocol import Counted, Event, Failed, Load, Loaded, Message, Think
from ktchat.common.text import one_line
from ktchat.session.branching import BranchingSession
from ktchat.session.reply import Engine, shown
from ktchat.store.saver import Notify
from ktchat.store.store import Store


class ModelSession(BranchingSession):
    """The open session with an engine; `chat` adds the replies."""

    def __init__(
        self, engine: Engine, store: Store, system: str = "", notify: Notify | None = None
    ) -> None:
        super().__init__(store, system, notify)
        self.engine = engine
        self._occupied = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def loaded(self) -> Loaded | None:
        """The model that answers."""
        return self.engine.loaded

    @property
    def context_used(self) -> int:
        """Tokens of the context that the conversation took at its last reply."""
        figures = (turn.figures for turn in reversed(self.conversation.turns) if turn.figures)
        return next((f.context_used for f in figures), 0)

    @property
    def context_size(self) -> int:
        """Tokens of the model's context; 0 while none is loaded."""
        return self.engine.loaded.context if self.engine.loaded else 0

    @property
    def think(self) -> Think | None:
        """What holds of the model's thinking: the choice for this session, else the template's own;
        None: there is no choice, or what the template does by itself is none of them."""
        loaded = self.engine.loaded
        if loaded is None:
            return None
        chosen = self.conversation.think
        return chosen if chosen in loaded.think else loaded.think_default

    def choose_thinking(self, think: Think | None) -> None:
        """Choose for this session, from the next message on; None: as the template has it.

        Raises `RequestError` for what the model does not offer.
        """
        loaded = self.engine.loaded
        if loaded is not None and think is not None and think not in loaded.think:
            raise thinking_not_offered(one_line(loaded.name, 60), think, loaded.think)
        self.conversation.think = think
        if self.conversation.turns and not self.read_only:
            self.saver.touch(self.conversation)

    @property
    def offered_think(self) -> Think | None:
        """The session's choice, if the model knows it: another one may have been loaded since."""
        loaded, think = self.engine.loaded, self.conversation.think
        return think if loaded is not None and think in loaded.think else None

    async def count(self, messages: Sequence[Message]) -> Counted | None:
        """The tokens of messages as the model would read them, and how many of them are cached."""
        return await self.engine.count(messages, self.offered_think)

    async def load(self, command: Load) -> AsyncGenerator[Event, None]:
        """Load a model; the last event is `Loaded` or `Failed`."""
        try:
            self._must_be_idle()
        except RequestError as error:
            yield Failed(error)
            return
        async for event in self.engine.load(command):
            yield shown(event)

    @contextlib.contextmanager
    def occupied(self) -> Iterator[None]:
        """The engine works for something else than a reply; meanwhile no reply can begin.

        Raises `RequestError` while a reply is being written.
        """
        self._must_be_idle()
        self._occupied = True
        self._idle.clear()
        try:
            yield
        finally:
            self._occupied = False
            self._idle.set()
