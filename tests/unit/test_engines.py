"""One engine object for models here and on servers: which of the two is at work, and when it changes."""

from __future__ import annotations

from contextlib import aclosing

from engine.errors import EngineError
from engine.protocol import Failed, Finished, Load, Loaded, Message, Sampling
from ktchat.session.engines import EitherEngine
from tests.support.engines import collect, text_of
from tests.support.fake_engine import FakeEngine

ADDRESS = "http://host:1/v1#model"


class Both:
    """An engine, and the scripted ones that it made."""

    def __init__(self) -> None:
        self.local: list[FakeEngine] = []
        self.remote: list[FakeEngine] = []
        self.engine = EitherEngine(
            lambda: self._made(self.local, "here"), lambda: self._made(self.remote, "there")
        )
        self.refuses = False

    def _made(self, made: list[FakeEngine], words: str) -> FakeEngine:
        error = EngineError("It does not answer") if self.refuses else None
        made.append(FakeEngine([words], load_error=error))
        return made[-1]

    async def load(self, path: str) -> object:
        return (await collect(self.engine.load(Load(path))))[-1]

    async def says(self) -> str:
        stream = self.engine.generate([Message("user", "hi")], Sampling(), None, None, None)
        return text_of(await collect(stream))


async def test_nothing_is_made_before_a_model_is_wanted() -> None:
    both = Both()
    assert both.engine.loaded is None and await both.engine.count([]) is None
    stream = both.engine.generate([Message("user", "hi")], Sampling(), None, None, None)
    assert isinstance((await collect(stream))[-1], Failed)
    both.engine.cancel()
    both.engine.answer_now()
    assert both.local == both.remote == []
    await both.engine.close()


async def test_the_path_says_which_engine_and_the_other_is_closed() -> None:
    both = Both()
    assert isinstance(await both.load("/models/a.gguf"), Loaded)
    assert await both.says() == "here"
    await both.load("/models/b.gguf")
    assert len(both.local) == 1  # the same child loads it
    assert isinstance(await both.load(ADDRESS), Loaded)
    assert both.local[0].closed and await both.says() == "there"
    await both.load("/models/a.gguf")
    assert both.remote[0].closed and len(both.local) == 2 and await both.says() == "here"
    await both.engine.close()
    assert both.local[1].closed


async def test_who_watches_watches_the_engine_that_comes_too() -> None:
    both = Both()
    both.engine.observe(True)
    await both.load("/models/a.gguf")
    assert both.local[0].observed
    both.engine.observe(False)
    assert not both.local[0].observed
    await both.load(ADDRESS)
    assert not both.remote[0].observed
    await both.engine.close()


async def test_a_server_that_does_not_answer_leaves_the_model_where_it_is() -> None:
    both = Both()
    await both.load("/models/a.gguf")
    both.refuses = True
    assert isinstance(await both.load(ADDRESS), Failed)
    assert both.remote[0].closed and not both.local[0].closed
    assert both.engine.loaded is not None and await both.says() == "here"
    await both.engine.close()


async def test_a_load_can_be_stopped_and_left() -> None:
    both = Both()
    await both.load("/models/a.gguf")
    stream = both.engine.load(Load(ADDRESS))
    async with aclosing(stream):
        await anext(stream)
        both.engine.cancel()
    assert both.remote[0].closed and await both.says() == "here"
    await both.engine.close()


async def test_a_reply_can_be_stopped() -> None:
    both = Both()
    await both.load(ADDRESS)
    stream = both.engine.generate([Message("user", "hi")], Sampling(), None, None, None)
    seen = await collect(stream, lambda event: both.engine.cancel())
    assert isinstance(seen[-1], Finished) and seen[-1].reason == "cancelled"
    await both.engine.close()
