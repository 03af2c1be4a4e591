"""The model manager: the list, files, deleting, checking, taking in; and loading a model."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from textual.content import Content

from engine.errors import ModelFileError
from engine.plan.memory_plan import DevicePlan, Segment
from engine.plan.speed import record_run
from engine.protocol import Figures
from ktchat.common import usage
from ktchat.common.paths import guide_model
from ktchat.screens.models.manager import ModelManager
from ktchat.widgets.field import Field
from ktchat.widgets.models.model_table import Column, Row, layout
from ktchat.widgets.models.plan_bars import device_lines
from tests.support.fake_engine import FakeEngine, Reply
from tests.support.hub_server import HubServer
from tests.support.tiny import tiny_model
from tests.tui.conftest import Running, Start
from tests.tui.hub import hub

__all__ = ["hub"]
GB = 10**9


async def opened(run: Running) -> ModelManager:
    """The model manager, its first page filled."""
    await run.press("ctrl+o")
    await run.until(lambda: isinstance(run.app.screen, ModelManager))
    screen = run.app.screen
    assert isinstance(screen, ModelManager)
    await run.sees("ktchat guide", "tok/s")
    return screen


def tiny(home: Path) -> Path:
    """A real model in the models folder."""
    (home / "models").mkdir(exist_ok=True)
    return tiny_model("qwen3moe", home / "models", expert_type="Q4_K")


async def to_model(run: Running, screen: ModelManager, path: Path) -> None:
    """Put the cursor on a model, by keys."""
    await run.until(lambda: str(path) in screen.local.models)
    for _ in range(20):
        if screen.local.table.key == str(path):
            return
        await run.press("down")
    raise AssertionError(run.text())


async def test_a_typed_path_is_loaded_and_remembered(
    start: Start, hub: HubServer, home: Path
) -> None:
    model = home / "Other-8B.gguf"
    model.write_bytes(b"GGUF")
    run = await start("ok")
    await opened(run)
    await run.press("o")
    await run.sees("A model file on this machine")
    await run.type("x")
    await run.press("enter")
    await run.sees("there is no such file")
    await run.press("backspace")
    run.app.focused.insert_text_at_cursor(str(model))  # type: ignore[union-attr]
    await run.press("enter")
    await run.until(lambda: run.chat.loaded is not None and run.chat.loaded.name == "Other-8B")
    assert run.lines()[0].startswith(" Other-8B")
    assert run.screen.context.settings.read().last_model == str(model)


async def test_a_path_is_completed_with_tab(start: Start, hub: HubServer, home: Path) -> None:
    (home / "weights").mkdir()
    (home / "weights" / "Model-A.gguf").write_bytes(b"GGUF")
    (home / "weights" / "notes.txt").write_text("no model")
    run = await start("ok")
    await opened(run)
    await run.press("o")
    await run.until(lambda: isinstance(run.app.focused, Field))
    field = run.app.focused
    field.insert_text_at_cursor(f"{home}/wei")  # type: ignore[union-attr]
    await run.until(lambda: field._suggestion)  # type: ignore[union-attr]
    await run.press("tab")
    assert field.value == f"{home}/weights/"  # type: ignore[union-attr]
    await run.type("M")
    await run.until(lambda: field._suggestion.endswith("Model-A.gguf"))  # type: ignore[union-attr]


async def test_a_broken_file_is_listed_with_its_reason_and_not_opened(
    start: Start, hub: HubServer, home: Path
) -> None:
    (home / "models").mkdir()
    broken = home / "models" / "Broken.gguf"
    broken.write_bytes(b"nonsense" * 100)
    run = await start("ok")
    screen = await opened(run)
    await run.sees("Broken", "GGUF")
    await to_model(run, screen, broken)
    await run.press("enter")
    assert run.app.screen is screen


async def test_the_list_says_where_a_model_runs_how_fast_and_when_it_was_used(
    start: Start, hub: HubServer, home: Path
) -> None:
    path = tiny(home)
    run = await start("ok", size=(80, 24))
    screen = await opened(run)
    await to_model(run, screen, path)
    await run.sees("CPU", "> 1,000 tok/s", "last used", "runs on the CPU", "experts", "left of")
    await run.pilot.resize_terminal(120, 30)
    await run.sees("quantisation", "context", " 1k", "last used")
    await run.press("enter")
    await run.until(lambda: run.chat.loaded is not None and run.chat.loaded.name == path.stem)
    await run.until(lambda: str(path) in usage.opened())
    screen = await opened(run)
    await run.until(lambda: time.strftime("%H:") in run.text())


async def test_a_measured_speed_stands_plain(start: Start, hub: HubServer, home: Path) -> None:
    path = tiny(home)
    assert record_run(path, Figures(prompt_tokens=99, reply_tokens=50, prefill_seconds=1,
                                    decode_seconds=4))  # fmt: skip
    run = await start("ok", size=(80, 24))
    await opened(run)
    await run.sees("12.2 tok/s")


async def test_a_model_is_deleted_after_a_question(
    start: Start, hub: HubServer, home: Path
) -> None:
    path = tiny(home)
    run = await start("ok", size=(80, 24))
    screen = await opened(run)
    await to_model(run, screen, path)
    await run.press("d")
    await run.sees("Delete tiny qwen3moe")
    await run.press("escape")
    assert path.exists()
    await run.press("d", "enter")  # the answer that stands first keeps it
    assert path.exists()
    await run.press("d", "down", "enter")
    await run.sees("was deleted", "are free again")
    assert not path.exists()
    await run.until(lambda: str(path) not in screen.local.models)


async def test_the_guide_and_the_loaded_model_are_not_deleted(
    start: Start, hub: HubServer, home: Path
) -> None:
    run = await start("ok", model=None)
    await run.press("g")
    await run.until(lambda: run.app.screen is run.screen)
    run.chat.engine.loaded = replace(run.chat.loaded, path=str(guide_model()))  # type: ignore[misc, type-var]
    await opened(run)
    await run.press("d")
    await run.sees("is loaded: open another model first")


async def test_bytes_are_compared_with_the_checksum(
    start: Start, hub: HubServer, home: Path
) -> None:
    path = tiny(home)
    run = await start("ok", size=(100, 30))
    screen = await opened(run)
    await to_model(run, screen, path)
    await run.press("v")
    await run.sees("had no checksum; it has one from now on")
    await run.press("v")
    await run.sees("is intact")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    await run.press("v")
    await run.sees("is damaged")


@pytest.mark.parametrize(("way", "stays"), [("link", True), ("move", False)])
async def test_a_file_is_taken_into_the_models_folder(
    start: Start, hub: HubServer, home: Path, way: str, stays: bool
) -> None:
    (home / "else").mkdir()
    path = tiny_model("qwen3moe", home / "else", expert_type="Q4_K")
    run = await start("ok", size=(80, 24))
    screen = await opened(run)
    await run.press("o")
    await run.until(lambda: isinstance(run.app.focused, Field))
    run.app.focused.insert_text_at_cursor(str(path))  # type: ignore[union-attr]
    await run.press("tab", "down", *(["down"] if way == "move" else []), "enter")
    await run.sees("into the models folder", "tiny qwen3moe")
    taken = home / "models" / "imported" / path.name
    assert taken.is_file()
    assert path.exists() is stays
    await to_model(run, screen, taken)


async def test_models_of_other_programs_are_only_read_and_can_be_linked(
    start: Start, hub: HubServer, home: Path
) -> None:
    folder = home / "user" / ".lmstudio" / "models" / "someone"
    folder.mkdir(parents=True)
    path = tiny_model("qwen3moe", folder, expert_type="Q4_K")
    run = await start("ok", size=(80, 24))
    screen = await opened(run)
    await run.sees("of other programs", "tiny qwen3moe")
    await to_model(run, screen, path)
    await run.press("d")
    await run.sees("belongs to LM Studio: ktchat only reads it")
    await run.press("a")
    await run.sees("was linked into the models folder")
    assert (home / "models" / "imported" / path.name).samefile(path)


async def test_details_show_the_plan_and_where_the_file_is(
    start: Start, hub: HubServer, home: Path
) -> None:
    path = tiny(home)
    run = await start("ok", size=(100, 40))
    screen = await opened(run)
    await to_model(run, screen, path)
    await run.press("i")
    await run.sees("architecture", "qwen3moe", "our engine", "routed experts", "plan")
    await run.press("escape")
    assert run.app.screen is screen


async def test_tabs_are_reached_by_numbers_tab_and_mouse(start: Start, hub: HubServer) -> None:
    run = await start("ok", size=(80, 24))
    screen = await opened(run)
    await run.press("2")
    await run.sees("Qwen3-30B-A3B")
    await run.press("end")
    await run.sees("short by", "of RAM")
    await run.press("home")
    assert all(len(line) <= 80 for line in run.lines())
    await run.press("tab", "tab")
    assert screen.page is screen.downloads
    await run.sees("Nothing is being downloaded")
    await run.pilot.click(screen.tabs, offset=(run.lines()[0].index("search"), 0))
    assert screen.page is screen.search
    await run.press("shift+tab")
    assert screen.page is screen.catalogue
    first = screen.catalogue.table.key
    await run.pilot.click(screen.catalogue.table.list, offset=(5, 3))
    await run.until(lambda: screen.catalogue.table.key not in ("", first))
    await run.pilot.click(screen.catalogue.table.list, offset=(5, 3))
    await run.sees("which version")


async def test_the_manager_fits_every_window(start: Start, hub: HubServer, home: Path) -> None:
    tiny(home)
    run = await start("ok", size=(200, 60))
    await opened(run)
    for width, height in ((200, 60), (80, 24), (60, 18), (40, 10)):
        await run.pilot.resize_terminal(width, height)
        for tab in "123421":
            await run.press("shift+tab" if tab == "2" else "tab")
            assert all(len(line) <= width for line in run.lines())
    await run.press("1")
    await run.sees("ktchat guide")
    await run.pilot.resize_terminal(30, 6)
    await run.sees("too small")


def test_bars_show_every_part_and_what_is_missing() -> None:
    parts = (Segment("routed experts", 6 * GB), Segment("KV cache", 2 * GB), Segment("reserve", GB))
    bar, legend = device_lines(DevicePlan("RAM", "RAM", 12 * GB, parts), 72)
    assert bar.plain.count("▇") == round(bar.plain.count("▇") + bar.plain.count("╌")) * 9 // 12
    assert bar.plain.endswith("3.0 GB left of 12.0 GB")
    assert "experts 6.0 GB" in legend.plain and "KV cache 2.0 GB" in legend.plain
    bar, _ = device_lines(DevicePlan("RAM", "RAM", 6 * GB, parts), 72)
    assert bar.plain.endswith("short by 3.0 GB") and "╌" not in bar.plain
    for width in range(8, 120):
        for line in device_lines(DevicePlan("RAM", "RAM", 12 * GB, parts), width):
            assert line.cell_length <= max(width, 44)


def test_columns_are_left_out_by_rank_and_long_words_flow_over_empty_cells() -> None:
    columns = (Column("model"), Column("fit"), Column("speed", "right", 1), Column("more", rank=2))
    rows = [
        Row("a", (Content("A" * 30), Content("CPU"), Content("~6 tok/s"), Content("m" * 10))),
        Row("b", (Content("B"), Content("short by 12 GB"), Content(""), Content(""))),
    ]
    heading, lines = layout(columns, rows, 70)
    assert heading.plain.split() == ["model", "fit", "speed", "more"]
    assert "short by 12 GB" in lines[1].plain
    assert lines[0].plain.index("CPU") == lines[1].plain.index("short by")
    heading, lines = layout(columns, rows, 40)
    assert heading.plain.split() == ["model", "fit", "speed"]
    assert "short by 12 GB" in lines[1].plain or "…" in lines[1].plain
    assert all(line.cell_length <= 40 for line in (heading, *lines))


async def test_loading_shows_its_progress_and_what_is_to_be_known(start: Start) -> None:
    engine = FakeEngine(["ok"])
    run = await start(engine=engine)
    engine.hold_load = True
    engine.load_notice = "This model runs on llama.cpp"
    run.screen.models.load("/models/Big.gguf")
    await run.sees("Big", "loading")
    engine.hold_load = False
    engine.go_on()
    await run.sees("This model runs on llama.cpp")
    await run.until(lambda: run.chat.loaded is not None and run.chat.loaded.name == "Big")


async def test_a_model_that_fails_leaves_the_one_before(start: Start) -> None:
    run = await start("still here")
    run.engine.load_error = ModelFileError("Bad.gguf is damaged", "It is cut off", "Get it again")
    run.screen.models.load("/models/Bad.gguf")
    await run.sees("Bad.gguf is damaged. It is cut off. Get it again.")
    await run.until(lambda: run.chat.loaded is not None and not run.screen.activity.loading)
    assert run.lines()[0].lower().startswith(" fake")
    await run.ask("hello?")
    await run.sees("still here")


async def test_the_first_model_failing_is_said_and_nothing_is_sent(start: Start) -> None:
    error = ModelFileError("Fake.gguf is damaged", "It is cut off", "Get it again")
    run = await start(engine=FakeEngine(["ok"], load_error=error))
    await run.sees("Fake.gguf is damaged")
    assert run.lines()[0].startswith(" no model")
    run.screen.prompt.put("hello?")
    await run.press("enter")
    await run.sees("no model is loaded: choose one with Ctrl+O")
    assert run.screen.prompt.text == "hello?"


async def test_a_model_chosen_while_a_reply_is_written_is_loaded_after_it(start: Start) -> None:
    run = await start(Reply("word " * 300, hold_after=100), "from the other")
    run.screen.prompt.put("go")
    await run.press("enter")
    await run.sees("word word")
    run.screen.models.load("/models/Other.gguf")
    await run.sees("Other is loaded when this reply ends")
    run.screen.prompt.put("and now?")
    await run.press("enter")
    assert len(run.engine.loads) == 1
    run.chat.stop()
    await run.sees("from the other")
    assert [Path(load.path).name for load in run.engine.loads][1:] == ["Other.gguf"]


async def test_escape_leaves_the_model_as_it_is(start: Start) -> None:
    run = await start(Reply("word " * 300, hold_after=100))
    run.screen.prompt.put("go")
    await run.press("enter")
    await run.sees("word word")
    run.screen.models.load("/models/Other.gguf")
    await run.sees("Other is loaded when this reply ends")
    await run.press("escape")
    await run.until(lambda: "Other" not in run.text())
    assert run.chat.busy
    await run.press("escape")
    await run.until(lambda: not run.chat.busy)
    assert len(run.engine.loads) == 1
