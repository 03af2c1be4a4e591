"""A session as a file."""

from __future__ import annotations

import json

from engine.errors import EngineError
from engine.protocol import Figures, Sampling
from ktchat.store.conversation import Conversation, Turn
from ktchat.store.export import to_json, to_markdown


def a_session() -> Conversation:
    figures = Figures(10, 0, 20, 5, 0.5, 0.6, 1.0, 30, 4096, 42)
    return Conversation(
        title="On \x1b[31mexperts",
        created=0.0,
        model_path="/m/q.gguf",
        model_name="Qwen3",
        system="Be short.",
        turns=[
            Turn(
                "Why \x1b]0;x\x07experts?",
                "Because.\n\n```python\nx = 1\n```",
                "let me\nthink",
                state="complete",
                figures=figures,
                sampling=Sampling(seed=42),
                model="Qwen3",
            ),
            Turn("More", "Half", state="interrupted", model="Qwen3"),
            Turn("Lost", state="failed", error=EngineError("It died", "Killed")),
        ],
    )


def test_markdown_reads_well_and_is_safe() -> None:
    text = to_markdown(a_session())
    assert text.startswith("# On experts\n\n")
    assert "## System\n\nBe short.\n\n## You\n\nWhy experts?\n\n## Qwen3\n\nBecause.\n" in text
    assert "19.0 tok/s · first 0.6 s · 20 tokens · context 30 of 4k · seed 42" in text
    assert "*[ktchat: interrupted]*" in text and "*[ktchat: failed · It died. Killed.]*" in text
    assert "think" not in text and "\x1b" not in text
    assert "> let me\n> think\n" in to_markdown(a_session(), thinking=True)


def test_json_has_everything_as_it_was() -> None:
    session = a_session()
    text = to_json(session, replaced=[Turn("older", "reply", state="complete")])
    assert text.isascii() and "\x1b" not in text
    data = json.loads(text)
    assert data["model"] == {"name": "Qwen3", "path": "/m/q.gguf"}
    turn = data["turns"][0]
    assert turn["prompt"] == session.turns[0].raw_prompt
    assert (turn["sampling"]["seed"], turn["figures"]["reply_tokens"]) == (42, 20)
    assert data["turns"][2]["error"]["what"] == "It died"
    assert [t["prompt"] for t in data["replaced"]] == ["older"]
