"""How long a long conversation takes to open, to jump in, and to show another version of its first turn.

Runs the program without a terminal on a scripted engine, with sessions of 300 messages whose replies have headings,
lists and code. Milliseconds from the key to the end of the frame that shows it; the median of some rounds. The
last line on stdout is JSON.

    python -m tests.bench.opening [--messages 300] [--rounds 5] [--size 80x24]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from tests.support.fake_engine import FakeEngine

REPLY = """## Answer {number}

Per layer the router picks **8 of 128** experts; see `router.py`:

1. read the weights
2. multiply them

```python
def experts(layer: int) -> list[int]:
    return [layer * n for n in range(8)]
```

And that is all there is to say of number {number}.
"""


def fill(home: Path, messages: int) -> tuple[str, str]:
    """Two long sessions; the first turn of each has another version. Their ids."""
    from ktchat.store.conversation import Conversation, Turn
    from ktchat.store.store import Store

    store, ids = Store(home / "ktchat.db"), []
    for title in ("one", "two"):
        turns: list[Turn] = []
        for number in range(messages // 2):
            parent = turns[-1].id if turns else None
            reply = REPLY.format(number=number)
            turns.append(Turn(f"{title} {number}?", reply, state="complete", parent=parent))  # type: ignore[arg-type]
        other = Turn(f"{title} 0?", "another version", state="complete")  # type: ignore[arg-type]
        conversation = Conversation(title=title, turns=turns, others=[other])
        store.save_conversation(conversation)
        ids.append(conversation.id)
    store.close()
    return ids[0], ids[1]


async def measure(home: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """One run of the program."""
    from ktchat.app import KtchatApp
    from ktchat.common.settings import SettingsFile

    sessions = fill(home, arguments.messages)
    SettingsFile(home / "settings.toml").update(setup_done=True)
    app = KtchatApp("/models/Fake.gguf", engine=FakeEngine(["ok"]))
    columns, rows = map(int, arguments.size.split("x"))
    times: dict[str, list[float]] = {"open_ms": [], "jump_ms": [], "version_ms": [], "back_ms": []}
    async with app.run_test(size=(columns, rows)) as pilot:
        screen = app.chat_screen
        await _until(pilot, lambda: screen.chat is not None and not screen.activity.switching)
        await _until(pilot, lambda: not screen.activity.loading)
        chat = screen.chat
        assert chat is not None
        for round_ in range(arguments.rounds):
            session = sessions[round_ % 2]
            start = time.perf_counter()
            screen.sessions.open(session)
            title = ("one", "two")[round_ % 2]
            last = f"{title} {arguments.messages // 2 - 1}?"
            times["open_ms"].append(await _shown(pilot, start, last))
            first = chat.conversation.turns[0]
            start = time.perf_counter()
            screen.sessions.open(session, first.id)
            times["jump_ms"].append(await _shown(pilot, start, f"{title} 0?"))
            start = time.perf_counter()
            screen.branches.walk(first, "reply", 1)
            times["version_ms"].append(await _shown(pilot, start, "another version"))
            start = time.perf_counter()
            screen.branches.walk(chat.conversation.turns[0], "reply", -1)
            times["back_ms"].append(await _shown(pilot, start, f"{title} 0?", "another version"))
    medians = {name: round(statistics.median(values), 1) for name, values in times.items()}
    return {"messages": arguments.messages, "size": arguments.size, **medians}


async def _shown(pilot: Pilot[None], start: float, words: str, misses: str = "\x00") -> float:
    """Milliseconds until words are on the screen."""

    def there() -> bool:
        strips = pilot.app.screen._compositor.render_strips()
        text = "\n".join(strip.text for strip in strips)
        return words in text and misses not in text

    await _until(pilot, there)
    return (time.perf_counter() - start) * 1000


async def _until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        if time.monotonic() > end:
            strips = pilot.app.screen._compositor.render_strips()
            shown = "\n".join(strip.text for strip in strips)
            raise SystemExit(f"it did not come to hold; on the screen:\n{shown}")
        await asyncio.sleep(0.002)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", default="80x24")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ktchat-opening-") as home:
        os.environ["KTCHAT_HOME"] = home
        print(json.dumps(asyncio.run(measure(Path(home), arguments))))


if __name__ == "__main__":
    main()
