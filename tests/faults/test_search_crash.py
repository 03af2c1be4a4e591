"""The index of words after the program was killed while it saved: it has what the store has."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from ktchat.store import schema, search_index
from ktchat.store.store import Store
from tests.support.clock import PATIENCE

WRITER = """
import itertools, sys
from pathlib import Path
from ktchat.store.conversation import Conversation, Turn
from ktchat.store.store import Store

store = Store(Path(sys.argv[1]))
for number in itertools.count():
    turn = Turn(f"prompt {number}", "", state="streaming")
    conversation = Conversation(title="t", turns=[turn])
    for step in range(3):
        turn.raw_reply += "words of it " * 20
        store.save_conversation(conversation)
    turn.state = "complete"
    store.save_conversation(conversation)
    if number % 3 == 2:
        store.remove(conversation.id)
    print(number, flush=True)
"""


def test_the_index_has_what_the_store_has_after_every_kill(tmp_path: Path) -> None:
    path, random_ = tmp_path / "ktchat.db", random.Random(5)
    for _ in range(5):
        command = [sys.executable, "-c", WRITER, str(path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random_.uniform(0.0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)
        process.stdout.close()
        store = Store(path)
        store.settle_interrupted()
        differs = store.database.query(search_index.DIFFERS)[0]["differs"]
        store.close()
        assert not differs
        with closing(schema.connect(path)) as db:
            db.execute("INSERT INTO search (search, rank) VALUES ('integrity-check', 1)")
