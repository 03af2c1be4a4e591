"""Search: how long a key takes while words are typed, in a store of many sessions.

Makes a store of synthetic sessions (English and Chinese words, a few KB a session), indexes it, and types words
into the search letter by letter. The last line on stdout is JSON: milliseconds a key, nearest-rank percentiles; those of
the processor's time beside those of the clock, since other programs do not change them.

    python -m tests.bench.search [--sessions 10000] [--turns 6] [--store FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from ktchat.store.conversation import Conversation, Turn
from ktchat.store.records import session_values, turn_values
from ktchat.store.store import Store
from tests.bench.typing import percentile

TYPED = (
    *("the", "mixture of experts", "quantisation", "zebra crossing", "nowhere at all", "e"),
    *("混合专家", "模型", "专", "的", "qz", "Größe", "100%", "x_y", "needle", "of", "th"),
)
RARE = 137
"""One of so many sessions has a rare word."""


def words(random_: random.Random, count: int) -> str:
    """A text of about so many words, with their usual unevenness."""
    chosen = random_.choices(VOCABULARY, WEIGHTS, k=count)
    return " ".join(chosen)


def _vocabulary() -> list[str]:
    random_ = random.Random(1)
    syllables = [c + v for c in "bcdfghklmnprstvz" for v in ("a", "e", "i", "o", "u", "en", "or")]
    made = {"".join(random_.choices(syllables, k=random_.randint(1, 4))) for _ in range(8000)}
    known = ["the", "of", "mixture", "experts", "model", "quantisation", "memory", "Größe"]
    chinese = ["混合", "专家", "模型", "内存", "量化", "的", "速度", "每层"]
    return [*known, *chinese, *sorted(made)]


VOCABULARY = _vocabulary()
WEIGHTS = [1 / (rank + 3) for rank in range(len(VOCABULARY))]


def fill(store: Store, sessions: int, turns: int) -> None:
    """Write synthetic sessions."""
    random_ = random.Random(2)
    rows = []
    for number in range(sessions):
        parent: str | None = None
        said: list[Turn] = []
        for _ in range(turns):
            reply = words(random_, random_.randint(20, 220))
            rare = " needle in it" if number % RARE == 0 else ""
            turn = Turn(words(random_, 12), reply + rare, state="complete", parent=parent)  # type: ignore[arg-type]
            said.append(turn)
            parent = turn.id
        title = words(random_, 7)
        conversation = Conversation(title=title, turns=said, updated=1e9 + number)
        values = [turn_values(conversation.id, turn) for turn in said]
        rows.append((session_values(conversation), values))
        if len(rows) == 500:
            store.save(rows)
            rows.clear()
    store.save(rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--store", type=Path, help="where the store is made, or was made before")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ktchat-search-") as folder:
        store = Store(arguments.store or Path(folder) / "ktchat.db")
        start = time.perf_counter()
        if store.last_session() is None:
            fill(store, arguments.sessions, arguments.turns)
        made = time.perf_counter() - start
        start = time.perf_counter()
        store.database.renew_index()
        while store.search.add_more():
            pass
        indexed = time.perf_counter() - start
        taken: list[tuple[float, str, int]] = []
        computed: list[float] = []
        for text in TYPED:
            for end in range(1, len(text) + 1):
                start, busy = time.perf_counter(), time.process_time()
                found = len(store.search.find(text[:end]))
                computed.append((time.process_time() - busy) * 1000)
                taken.append(((time.perf_counter() - start) * 1000, text[:end], found))
        start = time.perf_counter()
        listed = len(store.sessions())
        listing = (time.perf_counter() - start) * 1000
        size = store.path.stat().st_size
        store.close()
    milliseconds = [ms for ms, _, _ in taken]
    for ms, text, found in sorted(taken, reverse=True)[:8]:
        print(f"{ms:8.1f} ms  {found:4} hits  {text!r}")
    result = {
        "sessions": listed,
        "keys": len(taken),
        "p50_ms": round(percentile(milliseconds, 0.5), 1),
        "p99_ms": round(percentile(milliseconds, 0.99), 1),
        "most_ms": round(max(milliseconds), 1),
        "cpu_p50_ms": round(percentile(computed, 0.5), 1),
        "cpu_p99_ms": round(percentile(computed, 0.99), 1),
        "made_s": round(made, 1),
        "indexed_s": round(indexed, 1),
        "list_ms": round(listing, 1),
        "file_mb": round(size / 1e6, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
