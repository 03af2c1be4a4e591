"""In sixteen colours (the Linux console, xterm-16color) and with NO_COLOR what is focused, selected or under a cursor is seen."""

from __future__ import annotations

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.style import Style
from textual.geometry import Region
from textual.widgets import OptionList

from ktchat.themes import DARK, LIGHT, theme_for
from tests.tui.colours import appearance
from tests.tui.conftest import Running, Start

FEW = ["ansi-dark", "ansi-light", "no colour", f"no colour, {LIGHT}"]


@pytest.fixture(params=FEW)
async def run(
    request: pytest.FixtureRequest, start: Start, monkeypatch: pytest.MonkeyPatch
) -> Running:
    """The program in a terminal of few colours, or of none."""
    colours = request.param in ("ansi-dark", "ansi-light")
    if not colours:
        monkeypatch.setenv("NO_COLOR", "1")
    running = await start("the reply", "another", size=(100, 30))
    running.app.theme = request.param if colours else LIGHT if LIGHT in request.param else DARK
    await running.pilot.pause()
    assert running.app.no_color is not colours
    return running


def cells(run: Running, region: Region) -> list[Style]:
    """The style of each cell of a region."""
    strips = run.app.screen._compositor.render_strips()
    found: list[Style] = []
    for y in region.line_range:
        for segment in strips[y].crop(region.x, region.right):
            found += [segment.style or Style()] * len(segment.text)
    return found


def seen(run: Running, region: Region) -> set[object]:
    """How a region looks."""
    return {appearance(style, not run.app.no_color) for style in cells(run, region)}


def where(run: Running, words: str) -> Region:
    """Where words are on the screen."""
    for y, line in enumerate(run.lines()):
        if found := re.search(re.escape(words), line):
            return Region(found.start(), y, len(words), 1)
    raise AssertionError(f"{words!r} is not on the screen:\n{run.text()}")


async def differs(run: Running, region: Region, change: Callable[[], object]) -> None:
    """A change is to be seen in a region."""
    before = seen(run, region)
    change()
    await run.until(lambda: not (seen(run, region) & before))


async def test_the_row_of_the_palette_under_the_cursor_is_seen(run: Running) -> None:
    await run.press("ctrl+p")
    await run.sees("New session", "a command")
    first, second = where(run, "New session"), where(run, "Sessions")
    assert not seen(run, first) & seen(run, second)
    await run.press("down")
    assert not seen(run, where(run, "New session")) & seen(run, where(run, "Sessions"))


async def test_the_cursor_of_lists_is_seen(run: Running) -> None:
    await run.ask("a question")
    await run.press("ctrl+n")
    await run.ask("something else")
    sessions = run.screen.query_one("SessionList", OptionList)
    sessions.focus()
    await run.until(lambda: sessions.has_focus)
    left = Region(0, 0, 18, 30)

    def rows() -> list[set[object]]:
        lines = run.lines()
        found = [y for y in range(30) if re.search("something|a question", lines[y][: left.width])]
        return [seen(run, Region(3, y, 8, 1)) for y in found]

    await run.until(lambda: len(rows()) == 2 and not rows()[0] & rows()[1])


async def test_a_message_with_the_focus_is_seen(run: Running) -> None:
    await run.ask("a question")
    reply = run.screen.transcript.last_reply()
    assert reply is not None
    await differs(run, Region(reply.region.x + 20, reply.region.y, 5, 1), reply.focus)


async def test_text_that_was_dragged_over_is_seen(run: Running) -> None:
    await run.ask("a question")
    at = where(run, "the reply")
    before = seen(run, at)
    await run.pilot.mouse_down(offset=(at.x, at.y))
    await run.pilot.hover(offset=(at.x + 5, at.y))
    await run.pilot.hover(offset=(at.right, at.y))
    await run.pilot.mouse_up(offset=(at.right, at.y))
    await run.until(lambda: run.screen.get_selected_text())
    await run.until(lambda: not seen(run, where(run, "the reply")) & before)


async def test_selected_text_in_the_prompt_is_seen(run: Running) -> None:
    run.screen.prompt.put("some words")
    run.screen.prompt.move_cursor((0, 0))
    await run.sees("some words")
    at = where(run, "some words")
    await differs(run, Region(at.x + 2, at.y, 5, 1), run.screen.prompt.select_all)


async def test_the_cursor_of_the_prompt_is_seen(run: Running) -> None:
    run.screen.prompt.put("some words")
    run.screen.prompt.cursor_blink = False
    run.screen.prompt.move_cursor((0, 2))
    await run.sees("some words")
    at = where(run, "some words")
    cursor, beside = Region(at.x + 2, at.y, 1, 1), Region(at.x + 4, at.y, 1, 1)
    await run.until(lambda: not seen(run, cursor) & seen(run, beside))


async def test_selected_text_in_a_field_is_seen(run: Running) -> None:
    await run.press("ctrl+p")
    await run.type("exp")
    await run.press("shift+home")
    at = where(run, "exp")
    blank = Region(at.right + 8, at.y, 3, 1)
    await run.until(lambda: not seen(run, Region(at.x + 1, at.y, 2, 1)) & seen(run, blank))


@pytest.mark.parametrize(
    ("term", "more", "expected"),
    [
        ("linux", "", "ansi-dark"),
        ("xterm-16color", "", "ansi-dark"),
        ("xterm-256color", "", DARK),
        ("linux", "truecolor", DARK),
    ],
)
def test_where_there_are_sixteen_colours_the_theme_has_no_others(
    term: str, more: str, expected: str
) -> None:
    from rich.console import Console

    environ = {"TERM": term, "COLORTERM": more}
    console = Console(force_terminal=True, _environ=environ)
    app = cast(Any, SimpleNamespace(is_headless=False, console=console))
    assert theme_for(DARK, app) == expected
    assert theme_for("gruvbox", app) == "gruvbox"
