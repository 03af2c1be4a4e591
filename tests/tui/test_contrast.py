"""Every text that is on the screen has a contrast of 4.5 or more, in both of our themes."""

from __future__ import annotations

import pytest
from rich.color import Color

from ktchat.themes import DARK, LIGHT, THEMES
from tests.support.fake_engine import Reply
from tests.tui.colours import contrast, luminance, shown
from tests.tui.conftest import Running, Start

LEAST = 4.5

REPLY = """# A title

Some **bold**, *other* and `code`, see [the page](https://example.com/a?b=c), ~~gone~~, \\(x^2\\).

## Another

- one
- [x] two

> a quote

| a | b |
|---|--:|
| 1 | 22 |

```python
@decorated
def compute(number: int) -> str:  # a comment that is so long that it does not fit into a row of this width
    return "text" + str(number) + None
```

```diff
- gone
+ come
```
"""


def check(run: Running, where: str) -> None:
    """Look at everything that is on the screen."""
    poor = {
        (round(contrast(one.style), 2), one.text[:40], str(one.style))
        for one in shown(run.app)
        if contrast(one.style) < LEAST
    }
    assert not poor, f"{where}: {sorted(poor)}"


def test_contrast_is_what_the_guidelines_say() -> None:
    def ratio(one: str, other: str) -> float:
        pair = sorted((luminance(Color.parse(one)), luminance(Color.parse(other))))
        return (pair[1] + 0.05) / (pair[0] + 0.05)

    assert ratio("#ffffff", "#000000") == pytest.approx(21)
    assert ratio("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
    assert ratio("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("theme", [DARK, LIGHT])
async def test_a_conversation_can_be_read(start: Start, theme: str) -> None:
    run = await start(
        Reply(REPLY, thinking="I think so", notice="A notice of the engine", reason="length"),
        Reply("and another", hold_after=1),
        size=(100, 70),
    )
    run.app.theme = theme
    await run.sees("Ask anything")
    check(run, "welcome")
    await run.ask("show")
    await run.sees("A title", "its limit of tokens")
    check(run, "chat")
    await run.press("ctrl+t")
    await run.sees("I think so")
    reply = run.screen.transcript.last_reply()
    assert reply is not None
    reply.focus()
    await run.sees("copy  regenerate")
    check(run, "a message with the focus")
    reply.mark_unread(True)
    await run.pilot.pause()
    check(run, "what the model reads no more")
    reply.mark_unread(False)
    reply.text_select_all()
    await run.pilot.pause()
    check(run, "a selection")
    run.app.screen.clear_selection()
    run.screen.prompt.focus()
    run.screen.prompt.put("some words")
    run.screen.prompt.select_all()
    await run.pilot.pause()
    check(run, "a selection in the prompt")
    run.screen.prompt.clear()
    for severity in ("information", "warning", "error"):
        run.screen.status.say("something to be said", severity)  # type: ignore[arg-type]
        await run.sees("something to be said")
        check(run, severity)
    run.screen.prompt.put("more")
    await run.press("enter")
    await run.sees("Esc stop")
    check(run, "streaming")
    await run.press("escape")
    await run.sees("stopped")
    check(run, "stopped")


@pytest.mark.parametrize("theme", [DARK, LIGHT])
async def test_what_lies_over_it_can_be_read(start: Start, theme: str) -> None:
    run = await start("the reply", size=(100, 40))
    run.app.theme = theme
    await run.ask("a question")
    if "today" not in run.text():
        await run.press("ctrl+b")
    await run.sees("today")
    check(run, "sessions")
    run.screen.prompt.focus()
    for key, words in (
        ("f1", "Keys"),
        ("ctrl+f", "Search in"),
        ("f2", "Title of the session"),
        ("ctrl+p", "a command"),
    ):
        await run.press(key)
        await run.sees(words)
        check(run, words)
        if key == "ctrl+p":
            await run.type("the")
            await run.pilot.pause()
            check(run, "palette with characters")
        await run.press("escape")
        await run.until(lambda: run.app.screen is run.screen)


@pytest.mark.parametrize("theme", [DARK, LIGHT])
async def test_the_models_can_be_read(start: Start, theme: str) -> None:
    run = await start("the reply", size=(100, 40))
    run.app.theme = theme
    await run.press("ctrl+o")
    for key in "1234":
        await run.press(key)
        await run.until(lambda: run.app.screen is not run.screen)
        await run.pilot.pause(0.2)
        check(run, f"models, tab {key}")


@pytest.mark.parametrize("theme", THEMES, ids=lambda theme: theme.name)
def test_the_themes_own_numbers(theme: object) -> None:
    """The colours of text on each ground that text stands on."""
    colours = theme.to_color_system().generate()  # type: ignore[attr-defined]
    pairs = [
        (front, back)
        for front in ("foreground", "primary", "accent", "warning", "error", "success")
        for back in ("background", "surface", "panel")
    ]
    pairs += [
        ("block-cursor-foreground", "block-cursor-background"),
        ("block-cursor-blurred-foreground", "block-cursor-blurred-background"),
        ("foreground", "screen-selection-background"),
        ("foreground", "input-selection-background"),
        ("input-cursor-foreground", "input-cursor-background"),
    ]
    poor = []
    for front, back in pairs:
        two = sorted(luminance(Color.parse(colours[name])) for name in (front, back))
        ratio = (two[1] + 0.05) / (two[0] + 0.05)
        if ratio < LEAST:
            poor.append((front, back, round(ratio, 2)))
    assert not poor
