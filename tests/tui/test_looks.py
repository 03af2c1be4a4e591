"""Sizes, themes, wide characters, Markdown, links, copying."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from ktchat.themes import DARK, LIGHT
from tests.support.fake_engine import Reply
from tests.tui.conftest import Start

MARKDOWN = """# A title

Some **bold** and `code`, see [the page](https://example.com/a?b=c) or [that](javascript:alert(1)).

- one
- two
  - three

| a | b |
|---|--:|
| 1 | 22 |

```python
x = 1
```

<b>not markup</b> [red]nor this[/red]
"""


async def test_markdown_is_laid_out(start: Start) -> None:
    run = await start(MARKDOWN, size=(90, 50))
    await run.ask("show")
    await run.sees("A title", "bold", "• one", "◦ three", "python", "copy", "x = 1")
    text = run.text()
    assert "**" not in text
    assert "```" not in text
    assert "<b>not markup</b> [red]nor this[/red]" in text


async def test_a_streamed_reply_looks_like_the_whole_one(start: Start) -> None:
    run = await start(Reply(MARKDOWN, token_seconds=0.002), size=(90, 50))
    await run.ask("show")
    again = await start(size=(90, 50))
    await again.sees("nor this")
    rows = []
    for screen in (run.screen, again.screen):
        reply = screen.transcript.last_reply()
        assert reply is not None
        rows.append([line.content for line in reply.rows(80)[1:]])
    assert rows[0] == rows[1]
    assert all(a.spans == b.spans for a, b in zip(*rows, strict=True))


async def test_wide_characters_and_emoji_keep_the_columns(start: Start) -> None:
    wide = "中文混排 text 👩‍👩‍👧 and 日本語の長い文章がここに続きますから折り返しが必要です。" * 3
    run = await start(wide, size=(60, 30))
    await run.ask("你好，世界 🙂")
    await run.sees("中文混排", "你好，世界 🙂")
    assert {cell_len(line) for line in run.lines()} == {60}


async def test_text_is_at_most_a_hundred_columns_wide(start: Start) -> None:
    run = await start("word " * 200, size=(220, 40))
    await run.ask("go")
    widest = max(len(line.strip()) for line in run.lines() if line.strip().startswith("word"))
    assert 80 <= widest <= 100


@pytest.mark.parametrize("size", [(80, 24), (160, 50), (40, 12), (100, 15)])
async def test_everything_has_a_place_at(start: Start, size: tuple[int, int]) -> None:
    run = await start(MARKDOWN, size=size)
    await run.ask("show")
    lines = run.lines()
    assert lines[0].startswith(" Fake")
    assert "Enter send" in lines[-1]
    assert any("Ask anything" in line for line in lines)
    assert len(lines) == size[1]


async def test_a_tiny_window_says_so_in_one_line(start: Start) -> None:
    run = await start("ok")
    run.screen.prompt.put("kept")
    await run.pilot.resize_terminal(20, 5)
    await run.until(lambda: run.lines()[0].startswith("Window too small"))
    assert not "".join(run.lines()[1:]).strip()
    await run.pilot.resize_terminal(80, 24)
    await run.sees("kept", "Enter send")
    await run.until(lambda: run.screen.prompt.has_focus)


async def test_a_storm_of_sizes_loses_nothing(start: Start) -> None:
    run = await start(Reply("some words " * 60, token_seconds=0.005))
    run.screen.prompt.put("go")
    await run.press("enter")
    for number in range(40):
        size = [(1, 1), (200, 60), (3, 40), (80, 1), (36, 9), (101, 24)][number % 6]
        await run.pilot.resize_terminal(*size)
    await run.pilot.resize_terminal(80, 24)
    await run.until(lambda: not run.chat.busy)
    await run.sees("some words", "Enter send")
    assert run.last.reply.count("words") == 60


@pytest.mark.parametrize("theme", [DARK, LIGHT, "ansi-dark", "ansi-light", "gruvbox"])
async def test_themes_are_chosen_and_remembered(start: Start, theme: str) -> None:
    run = await start(MARKDOWN)
    await run.ask("show")
    run.app.theme = theme
    await run.until(lambda: run.screen.context.settings.read().theme in (theme, ""))
    await run.sees("bold")
    again = await start()
    assert again.app.theme == theme


async def test_a_conversation_on_the_screen_takes_the_colours_of_a_new_theme(start: Start) -> None:
    run = await start(MARKDOWN)
    await run.ask("show")
    reply = run.screen.transcript.last_reply()
    assert reply is not None

    def colours() -> list[tuple[object, object]]:
        strips = [reply.render_line(y) for y in range(reply.size.height)]
        styles = [segment.style for strip in strips for segment in strip if segment.text.strip()]
        return [(style.color, style.bgcolor) for style in styles if style is not None]

    dark = colours()
    run.app.theme = LIGHT
    await run.until(lambda: colours() != dark)
    assert not set(dark) & set(colours())


async def test_the_last_reply_and_the_last_code_block_are_copied(start: Start) -> None:
    run = await start(MARKDOWN)
    await run.ask("show")
    await run.press("f3")
    await run.sees("copied the reply")
    assert run.app.clipboard == MARKDOWN
    await run.press("f6")
    await run.sees("copied the code block")
    assert run.app.clipboard == "x = 1"


async def test_a_code_block_is_copied_by_a_click(start: Start) -> None:
    run = await start("```\nfirst\n```\n\n```sh\nsecond\n```")
    await run.ask("show")
    rows = [y for y, line in enumerate(run.lines()) if line.rstrip().endswith("copy")]
    await run.pilot.click(offset=(run.lines()[rows[0]].rindex("copy") + 1, rows[0]))
    await run.until(lambda: run.app.clipboard == "first")


async def test_selected_text_is_copied_without_its_decoration(start: Start) -> None:
    run = await start(
        "- one two three four five six seven eight nine ten eleven twelve\n- b", size=(40, 20)
    )
    await run.ask("show")
    reply = run.screen.transcript.last_reply()
    assert reply is not None
    reply.text_select_all()
    await run.press("ctrl+c")
    await run.sees("copied the selection")
    assert run.app.clipboard.strip() == (
        "one two three four five six seven eight nine ten eleven twelve\nb"
    )


async def test_a_link_shows_where_it_goes_before_anything_else(start: Start) -> None:
    run = await start(MARKDOWN, size=(90, 50))
    await run.ask("show")
    row = next(y for y, line in enumerate(run.lines()) if "the page" in line)
    line = run.lines()[row]
    await run.pilot.click(offset=(line.index("that") + 1, row))
    assert run.app.screen is run.screen
    await run.pilot.click(offset=(line.index("the page") + 1, row))
    await run.sees("https://example.com/a?b=c", "Copy it", "Open it")
    await run.press("enter")
    await run.until(lambda: run.app.clipboard == "https://example.com/a?b=c")


async def test_messages_are_walked_and_acted_on_by_keys(start: Start) -> None:
    run = await start("the reply", "another one")
    await run.ask("the question")
    reply = run.screen.transcript.last_reply()
    assert reply is not None
    reply.focus()
    await run.sees("copy  regenerate", "c copy")
    await run.press("up", "c")
    await run.until(lambda: run.app.clipboard == "the question")
    await run.press("down", "r")
    await run.sees("another one")


async def test_help_names_every_key(start: Start) -> None:
    run = await start()
    await run.press("f1")
    await run.sees("Keys", "Ctrl+J", "Esc Esc")
    await run.press("pagedown")
    await run.sees("F6", "Copy the last code block")
    await run.press("end")
    await run.sees("/theme", "/undelete")
    await run.press("escape")
    await run.misses("/undelete")


async def test_the_palette_reaches_an_action(start: Start) -> None:
    run = await start("the reply")
    await run.ask("hi")
    await run.press("ctrl+p")
    await run.type("copy reply")
    await run.sees("Copy the last reply")
    await run.press("enter")
    await run.until(lambda: run.app.clipboard == "the reply")
