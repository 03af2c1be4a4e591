"""Where a model runs, as the chat screen says it; and going on with the CPU where a GPU fails."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.errors import EngineError, KtchatError, MemoryShortError, ModelFileError, RequestError
from engine.machine.probes import gpu as gpu_probe
from engine.machine.types import Gpu
from ktchat.common.settings import Overrides
from ktchat.screens.chat.loading_choices import CHOICES
from tests.support.fake_engine import FakeEngine, Reply
from tests.tui.conftest import Running, Start

NO_DEVICE = EngineError(
    "The GPU cannot be used", "torch sees 0 CUDA devices", "Install it, or use --device cpu"
)
NO_GPU = RequestError("guide cannot run on the GPU", "No GPU was found", "Use --device cpu")
DIED = EngineError("The engine stopped unexpectedly", "It was ended by SIGSEGV", "Try again")
OFFER = "F5 loads it on the CPU"


@pytest.mark.parametrize(
    ("device", "words"), [("CPU", "· CPU "), ("GPU", "· GPU "), ("hybrid", "· GPU and CPU ")]
)
async def test_the_header_says_what_computes(start: Start, device: str, words: str) -> None:
    run = await start(engine=FakeEngine(gpu=device), size=(80, 24))  # type: ignore[arg-type]
    await run.until(lambda: words in run.lines()[0])


async def test_a_long_name_gives_way_to_where_it_runs(start: Start) -> None:
    name = "/models/Qwen3-235B-A22B-Instruct-2507-with-a-long-ending.gguf"
    run = await start(engine=FakeEngine(gpu="hybrid"), size=(80, 24), model=name)
    await run.until(lambda: "… · Q4_K_M · GPU and CPU " in run.lines()[0])
    assert "0 of 4k" in run.lines()[0]


@pytest.mark.parametrize("error", [NO_DEVICE, NO_GPU])
async def test_one_key_goes_on_with_the_cpu(start: Start, error: KtchatError) -> None:
    run = await start(engine=FakeEngine(["fine"], load_error=error, gpu="GPU"), size=(80, 24))
    before = run.screen.context.settings.settings
    await run.sees(error.what, "F5")
    assert run.screen.status.words == f"{error}  {OFFER}"
    await run.press("f5")
    await run.sees("· CPU ", "models are loaded on the CPU now")
    last = run.engine.loads[-1]
    assert (last.device, last.kv, len(run.engine.loads)) == ("cpu", "f16", 2)
    assert (await run.ask("hello")).reply == "fine"
    after = run.screen.context.settings.read()
    assert replace(after, recent_models=(), last_model="") == before  # for this run only
    await run.press("f5")
    await run.sees("runs on the CPU already")
    assert len(run.engine.loads) == 2


async def test_the_error_goes_when_the_model_is_there(start: Start) -> None:
    run = await start(engine=FakeEngine(load_error=NO_DEVICE))
    await run.sees(OFFER)
    run.screen.models.load("/models/Other.gguf")
    await run.until(lambda: run.chat.loaded is not None)
    await run.misses(OFFER)


@pytest.mark.parametrize(
    ("error", "gpus", "offered"),
    [
        (DIED, (Gpu("RTX 4090", 1, 1),), True),
        (DIED, (), False),
        (ModelFileError("It is damaged", "", "Load it again"), (Gpu("RTX 4090", 1, 1),), False),
        (MemoryShortError("No room", "", "Close programs"), (Gpu("RTX 4090", 1, 1),), False),
    ],
)
async def test_the_cpu_is_offered_where_it_may_help(
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    error: KtchatError,
    gpus: tuple[Gpu, ...],
    offered: bool,
) -> None:
    monkeypatch.setattr(gpu_probe, "gpus", lambda: (gpus, [], []))
    run = await start(engine=FakeEngine(load_error=error))
    await run.sees(error.what)
    assert (OFFER in run.text()) == offered


async def test_what_was_said_while_loading_stands_together(start: Start) -> None:
    said = "The GPU's memory ran out: 1 GB was asked for\nThe context is 4096 tokens and not 8192"
    run = await start(engine=FakeEngine(load_notice=said))
    await run.until(lambda: run.chat.loaded is not None and not run.screen.activity.loading)
    assert run.screen.status.words == said.replace("\n", ". ") + "."


async def chosen(run: Running, words: str) -> None:
    """Choose from the palette, by keys."""
    loads = len(run.engine.loads)
    await run.press("ctrl+p")
    await run.press(*({" ": "space", ":": "colon"}.get(letter, letter) for letter in words))
    await run.until(lambda: "loaded again" in run.text())
    await run.press("enter")
    await run.until(lambda: len(run.engine.loads) > loads and not run.screen.activity.loading)


async def test_the_palette_keeps_how_models_are_loaded(start: Start) -> None:
    run = await start(engine=FakeEngine(gpu="GPU"))
    await run.until(lambda: run.chat.loaded is not None and not run.screen.activity.loading)
    run.screen.context.settings.overrides = Overrides(context=512, device="gpu")
    await chosen(run, "device: cpu")
    assert run.screen.context.settings.read().device == "cpu"
    assert run.engine.loads[-1].device == "cpu" and run.engine.loads[-1].context == 512
    await run.sees("· CPU ")
    await chosen(run, "context: auto")
    assert (
        run.engine.loads[-1].context == "auto"
        and run.screen.context.settings.read().context == "auto"
    )


async def test_the_palette_turns_the_disk_cache_off_and_says_what_it_takes(start: Start) -> None:
    run = await start(engine=FakeEngine())
    await run.until(lambda: run.chat.loaded is not None and not run.screen.activity.loading)
    assert run.engine.loads[-1].cache_folder == str(run.chat.store.kv.path)
    run.screen.sessions.say_on_disk()
    await run.sees("0 B on the disk", "at most")
    await chosen(run, "disk cache: off")
    assert run.engine.loads[-1].cache_folder == ""
    run.screen.sessions.say_on_disk()
    await run.sees("nothing more is kept")


async def test_while_a_reply_is_written_nothing_is_loaded(start: Start) -> None:
    engine = FakeEngine([Reply("word " * 500, hold_after=100)], gpu="GPU")
    run = await start(engine=engine)
    await run.until(lambda: run.chat.loaded is not None and not run.screen.activity.loading)
    run.screen.prompt.put("hello")
    await run.press("enter")
    await run.until(lambda: run.chat.busy)
    await run.press("f5")
    await run.sees("a reply is being written")
    assert run.screen.context.settings.load("").device == "auto"
    run.screen.models.change(next(preset for preset in CHOICES if preset.change == {"kv": "q8"}))
    await run.sees("kept: it holds when a model is loaded next")
    assert run.screen.context.settings.load("").kv == "q8" and len(engine.loads) == 1
    await run.press("escape")
    await run.until(lambda: not run.chat.busy)
