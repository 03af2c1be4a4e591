"""The open session and the model that answers in it: loading, the context, the choice of thinking."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

from engine.errors import RequestError, thinking_not_offered
from engine.protocol import Counted, Event, Failed, Load, Loaded, Message, Think
from ktchat.common.precedence import Layers
from ktchat.common.setting_values import chosen, refused
from ktchat.common.text import one_line
from ktchat.session.branching import BranchingSession
from ktchat.session.open_session import LayersOf
from ktchat.session.reply import Engine, shown
from ktchat.store.saver import Notify
from ktchat.store.store import Store


class ModelSession(BranchingSession):
    """The open session with an engine; `chat` adds the replies."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        layers: LayersOf | None = None,
        notify: Notify | None = None,
    ) -> None:
        self.engine = engine
        super().__init__(store, layers, notify)
        self._occupied = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def loaded(self) -> Loaded | None:
        """The model that answers."""
        return self.engine.loaded

    @property
    def model_path(self) -> str:
        """Of the model that answers; empty: there is none."""
        return self.engine.loaded.path if self.engine.loaded else ""

    @property
    def layers(self) -> Layers:
        """What is said of the settings for the open session, and by whom."""
        conversation, loaded = self.conversation, self.engine.loaded
        own = dict(conversation.choices)
        if conversation.think is not None:
            own["think"] = conversation.think
        if conversation.system != self.system:
            own["system"] = conversation.system
        layers = dataclasses.replace(self.layers_of(self.model_path), session=own)
        return layers if loaded is None else layers.with_file(loaded.sampling)

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
        """What holds of the model's thinking: what was chosen, else the template's own; None: there is no
        choice, or what the template does by itself is none of them."""
        loaded = self.engine.loaded
        return None if loaded is None else self.offered_think or loaded.think_default

    def choose(self, **choices: Any) -> None:
        """Choose for this session, from the next message on: `setting_values.PER_SESSION` and `system`. None: what
        holds without a choice.

        Raises `SettingsError` for what is not possible, `SessionBusyError` for a session that is only read.
        """
        self._must_be_ours("The setting was not changed")
        conversation = self.conversation
        if "system" in choices:
            text = choices.pop("system")
            conversation.system = self.system if text is None else text
        found, wrong = chosen(choices, [n for n, value in choices.items() if value is not None])
        if wrong:
            raise refused(wrong[0], choices[wrong[0]])
        kept = {n: value for n, value in conversation.choices.items() if n not in choices}
        conversation.choices = kept | found
        self.saver.touch(conversation)

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
        """What was chosen of thinking, the nearest that the model knows: another one may have been loaded since."""
        loaded = self.engine.loaded
        if loaded is None:
            return None
        think: Think | None = self.layers.held("think", lambda value: value in loaded.think).value
        return think

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
            if isinstance(event, Loaded):
                self.follow_settings()
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
