"""Choosing a model: the list, a typed path, loading, failing."""

from __future__ import annotations

from pathlib import Path

from engine.errors import ModelFileError
from tests.support.fake_engine import FakeEngine, Reply
from tests.tui.conftest import Start


async def test_a_typed_path_is_loaded_and_remembered(start: Start, home: Path) -> None:
    model = home / "Other-8B.gguf"
    model.write_bytes(b"GGUF")
    run = await start("ok")
    await run.press("ctrl+o")
    await run.sees("Models on this machine")
    await run.press("tab")
    await run.type("x")
    await run.press("enter")
    await run.sees("there is no such file")
    await run.press("backspace")
    run.app.focused.insert_text_at_cursor(str(model))  # type: ignore[union-attr]
    await run.press("enter")
    await run.until(lambda: run.chat.loaded is not None and run.chat.loaded.name == "Other-8B")
    assert run.lines()[0].startswith(" Other-8B")
    assert run.screen.settings.read().last_model == str(model)


async def test_a_path_is_completed_with_tab(start: Start, home: Path) -> None:
    (home / "weights").mkdir()
    (home / "weights" / "Model-A.gguf").write_bytes(b"GGUF")
    (home / "weights" / "notes.txt").write_text("no model")
    run = await start("ok")
    await run.press("ctrl+o", "tab")
    field = run.app.focused
    field.insert_text_at_cursor(f"{home}/wei")  # type: ignore[union-attr]
    await run.until(lambda: field._suggestion)  # type: ignore[union-attr]
    await run.press("tab")
    assert field.value == f"{home}/weights/"  # type: ignore[union-attr]
    await run.type("M")
    await run.until(lambda: field._suggestion.endswith("Model-A.gguf"))  # type: ignore[union-attr]


async def test_a_broken_file_is_listed_with_its_reason(start: Start, home: Path) -> None:
    (home / "models").mkdir()
    (home / "models" / "Broken.gguf").write_bytes(b"nonsense" * 100)
    run = await start("ok")
    await run.press("ctrl+o")
    await run.sees("Broken", "GGUF")


async def test_loading_shows_its_progress_and_what_is_to_be_known(start: Start) -> None:
    engine = FakeEngine(["ok"], load_seconds=0.5, load_steps=5)
    run = await start(engine=engine)
    engine.load_notice = "This model runs on llama.cpp"
    run.screen.models.load("/models/Big.gguf")
    await run.sees("Big", "loading")
    await run.sees("This model runs on llama.cpp")
    await run.until(lambda: run.chat.loaded is not None and run.chat.loaded.name == "Big")


async def test_a_model_that_fails_leaves_the_one_before(start: Start) -> None:
    run = await start("still here")
    run.engine.load_error = ModelFileError("Bad.gguf is damaged", "It is cut off", "Get it again")
    run.screen.models.load("/models/Bad.gguf")
    await run.sees("Bad.gguf is damaged. It is cut off. Get it again.")
    await run.until(lambda: run.chat.loaded is not None and not run.screen.models.loading)
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


async def test_no_model_is_loaded_while_a_reply_is_written(start: Start) -> None:
    run = await start(Reply("word " * 300, token_seconds=0.01))
    run.screen.prompt.put("go")
    await run.press("enter")
    await run.sees("word word")
    run.screen.models.load("/models/Other.gguf")
    await run.sees("stop it first, with Esc")
    assert len(run.engine.loads) == 1
