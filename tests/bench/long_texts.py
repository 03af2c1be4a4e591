"""How long texts fare on the screen: replies of megabytes that are opened, one that grows, a prompt that is full.

Runs the program without a terminal on a scripted engine. Seconds from choosing a session to the frame that shows its
end; milliseconds of processor time that a token's drawing takes at the beginning of a reply and at its end;
milliseconds from a key to its frame in a prompt of 400 thousand characters. The last line on stdout is JSON.

    python -m tests.bench.long_texts [--only NAME] [--keys 200]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from textual import events
from textual.pilot import Pilot

from ktchat.widgets.chat.prompt import Prompt
from tests.support.fake_engine import FakeEngine

MB = 1 << 20
END = "the very end"

ITEM = "- **item** with `code` and some more words that make it a line, see <https://example.com>\n"
ROW = "| a cell | 12.5 | some words in the third cell | `code` |\n"
PROSE = (
    "A paragraph with **bold** words and *others*, which is as long as paragraphs are in replies. "
    * 4
)
CODE = "    value = compute(number, 'text')  # and a comment behind it\n"
CHINESE = "混合专家模型的每一层只选择少数专家，因此大部分权重不会被读取。" * 6 + "\n\n"

TEXTS: dict[str, Callable[[], str]] = {
    "list of 1 MB": lambda: ITEM * (MB // len(ITEM)),
    "table of 1 MB": lambda: "| a | b | c | d |\n|---|--:|---|---|\n" + ROW * (MB // len(ROW)),
    "code of 1 MB": lambda: "```python\n" + CODE * (MB // len(CODE)) + "```\n",
    "prose of 10 MB": lambda: f"{PROSE}\n\n" * (10 * MB // len(PROSE)),
    "Chinese of 10 MB": lambda: CHINESE * (10 * MB // len(CHINESE.encode())),
    "list of 10 MB": lambda: ITEM * (10 * MB // len(ITEM)),
    "line of 10 MB": lambda: "word " * (2 * MB),
    "word of 10 MB": lambda: "x" * (10 * MB),
    "short lines of 10 MB": lambda: "a\n" * (5 * MB),
}


def fill(home: Path, text: str) -> tuple[str, str]:
    """A session with a long reply, and a short one."""
    from ktchat.store.conversation import Conversation, Turn
    from ktchat.store.store import Store

    store, ids = Store(home / "ktchat.db"), []
    for title, reply in (("long", f"{text}\n\n{END}"), ("short", "a short one")):
        turn = Turn(f"{title}?", reply, state="complete")  # type: ignore[arg-type]
        conversation = Conversation(title=title, turns=[turn])
        store.save_conversation(conversation)
        ids.append(conversation.id)
    store.close()
    return ids[0], ids[1]


async def running(pilot: Pilot[None]) -> None:
    screen = pilot.app.chat_screen  # type: ignore[attr-defined]
    await until(pilot, lambda: screen.chat is not None and not screen.activity.switching)
    await until(pilot, lambda: not screen.activity.loading)


async def opening(home: Path, text: str) -> dict[str, object]:
    """Seconds to open the session, and to go to the beginning of the reply and a page down from there."""
    from ktchat.app import KtchatApp

    long, short = fill(home, text)
    app = KtchatApp("/models/Fake.gguf", engine=FakeEngine(["ok"]))
    async with app.run_test(size=(80, 24)) as pilot:
        await running(pilot)
        app.chat_screen.sessions.open(short)
        await shown(pilot, "a short one")
        start = time.perf_counter()
        app.chat_screen.sessions.open(long)
        await shown(pilot, END)
        opened = time.perf_counter() - start
        start = time.perf_counter()
        app.chat_screen.transcript.scroll_home(animate=False)
        await shown(pilot, "long?")
        home_ = time.perf_counter() - start
        start = time.perf_counter()
        app.chat_screen.transcript.scroll_page_down(animate=False)
        await until(pilot, lambda: "long?" not in screen_text(pilot))
        page = time.perf_counter() - start
    return {"open_s": round(opened, 2), "home_s": round(home_, 2), "page_s": round(page, 2)}


async def growing() -> dict[str, object]:
    """What drawing costs while a reply grows to 1 MB: medians of frames at its beginning and its end."""
    from ktchat.app import KtchatApp

    figures: dict[str, object] = {}
    for name, piece in (("list", ITEM), ("prose", PROSE), ("table", ROW), ("code", CODE)):
        head = {"table": "| a | b | c | d |\n|---|--:|---|---|\n", "code": "```python\n"}
        text = head.get(name, "") + piece * (MB // len(piece))
        app = KtchatApp("/models/Fake.gguf", engine=FakeEngine(["ok"]))
        async with app.run_test(size=(80, 24)) as pilot:
            await running(pilot)
            figures[name] = await _grow(pilot, text)
    return figures


async def _grow(pilot: Pilot[None], text: str) -> dict[str, float]:
    from engine.protocol import Text
    from ktchat.store.conversation import Turn

    transcript = pilot.app.chat_screen.transcript  # type: ignore[attr-defined]
    await transcript.begin(Turn("grow"), None)
    view = transcript.last_reply()
    step, times = 400, []
    for at in range(0, len(text), step):
        few = at < 64 * step or at > len(text) - 64 * step
        if not few:  # in between as fast as it goes: drawn every 64 KB
            view.feed(Text(text[at : at + step], 1))
            if at % (160 * step) == 0:
                view.draw()
                await pilot.pause()
            continue
        start = time.process_time()
        for piece in (text[at : at + step // 2], text[at + step // 2 : at + step]):
            view.feed(Text(piece, 1))
            view.draw()
            await asyncio.sleep(0)
        await pilot.pause()
        times.append((time.process_time() - start) * 1000)
    return {"beginning_ms": median(times[8:64]), "end_ms": median(times[-56:])}


async def typing(keys: int) -> dict[str, object]:
    """Milliseconds from a key to its frame in a full prompt."""
    from ktchat.app import KtchatApp

    figures: dict[str, object] = {}
    size = 400_000
    lines = "some words on a line of the prompt, as they are pasted\n"
    for name, text in (
        ("empty", ""),
        ("one line", ("many words of it " * size)[:size]),
        ("one word", "x" * size),
        ("many lines", (lines * size)[:size]),
        ("Chinese", "混合专家模型的每一层只选择少数专家，" * (size // 18)),
    ):
        app = KtchatApp("/models/Fake.gguf", engine=FakeEngine(["ok"]))
        async with app.run_test(size=(80, 24)) as pilot:
            await running(pilot)
            prompt = app.chat_screen.prompt
            prompt.put(text)
            await pilot.pause()
            for place, at in (("end", prompt.document.end), ("beginning", (0, min(3, len(text))))):
                prompt.move_cursor(at)
                await pilot.pause(0.3)
                times = []
                for number in range(keys):
                    times.append(await key_to_frame(pilot, prompt, number))
                    await asyncio.sleep(0.02)
                    if sum(times) > 60_000:
                        break
                times.sort()
                p99 = times[max(0, math.ceil(0.99 * len(times)) - 1)]
                figures[f"{name}, {place}"] = {"p50_ms": median(times), "p99_ms": round(p99, 1)}
    return figures


async def key_to_frame(pilot: Pilot[None], prompt: Prompt, number: int) -> float:
    """Milliseconds from a key to the end of the frame with what it did."""
    length, screen = len(prompt.text), pilot.app.screen
    char = "abc"[number % 3]
    key = events.Key("backspace", None) if number % 4 == 3 else events.Key(char, char)
    start = time.perf_counter()
    pilot.app.post_message(key)
    while len(prompt.text) == length or screen._dirty_widgets or screen._layout_required:
        await asyncio.sleep(0.001)
    return (time.perf_counter() - start) * 1000


def median(values: list[float]) -> float:
    return round(statistics.median(values), 2)


def screen_text(pilot: Pilot[None]) -> str:
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join(strip.text for strip in strips)


async def shown(pilot: Pilot[None], words: str) -> None:
    await until(pilot, lambda: words in screen_text(pilot))


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    end = time.monotonic() + 600
    while not condition():
        if time.monotonic() > end:
            raise SystemExit(f"it did not come to hold; on the screen:\n{screen_text(pilot)}")
        await asyncio.sleep(0.005)


def part(name: str, arguments: argparse.Namespace) -> dict[str, object]:
    """One measurement, in a home of its own."""
    with tempfile.TemporaryDirectory(prefix="ktchat-long-") as home:
        os.environ["KTCHAT_HOME"] = home
        from ktchat.common.settings import SettingsFile

        SettingsFile(Path(home) / "settings.toml").update(setup_done=True)
        if name == "growing":
            return asyncio.run(growing())
        if name == "typing":
            return asyncio.run(typing(arguments.keys))
        return asyncio.run(opening(Path(home), TEXTS[name]()))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="one of: growing, typing, a text's name")
    parser.add_argument("--keys", type=int, default=200)
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else [*TEXTS, "growing", "typing"]
    figures: dict[str, object] = {}
    for name in names:
        figures[name] = part(name, arguments)
        print(f"{name:22} {json.dumps(figures[name])}", flush=True)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
