"""Puts held-out questions and dialogues to a model and judges the replies by what they must say.

Works with any `reply(messages) -> str`; `llama_cpp_reply` makes one from a GGUF file by llama.cpp, greedy.
A file of material is JSON: {"questions": [{topic, ask, must}], "dialogues": [{turns: [{ask, must?, fact?}]}]}.
`must` is a list of regular expressions, all of which must be found, whatever the case, in the reply.
In dialogues the model's own replies stay in the conversation.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MAX_TOKENS = 160

Messages = list[dict[str, str]]
Reply = Callable[[Messages], str]


@dataclass(slots=True)
class Score:
    """Right and asked, and what went wrong as (question, reply)."""

    right: int = 0
    asked: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)

    def add(self, question: str, reply: str, must: list[str]) -> None:
        self.asked += 1
        if all(re.search(pattern, reply, re.IGNORECASE) for pattern in must):
            self.right += 1
        else:
            self.wrong.append((question, reply))

    @property
    def share(self) -> float:
        return self.right / self.asked if self.asked else 1.0


@dataclass(slots=True)
class Result:
    """questions: single ones inside the subject; outside: those outside; recall: facts in dialogues."""

    questions: Score = field(default_factory=Score)
    outside: Score = field(default_factory=Score)
    recall: Score = field(default_factory=Score)
    dialogue_questions: Score = field(default_factory=Score)

    def line(self) -> str:
        parts = (
            ("questions", self.questions),
            ("outside", self.outside),
            ("recall", self.recall),
            ("questions in dialogues", self.dialogue_questions),
        )
        return ", ".join(f"{name} {s.right}/{s.asked} ({s.share:.1%})" for name, s in parts)


def evaluate(material: dict[str, Any], reply: Reply) -> Result:
    """Asks everything in `material`; replies are judged, never compared word by word."""
    result = Result()
    for item in material["questions"]:
        score = result.outside if item["topic"] == "outside" else result.questions
        answer = reply([{"role": "user", "content": item["ask"]}])
        score.add(item["ask"], answer, item["must"])
    for dialogue in material["dialogues"]:
        messages: Messages = []
        for turn in dialogue["turns"]:
            messages.append({"role": "user", "content": turn["ask"]})
            answer = reply(messages)
            messages.append({"role": "assistant", "content": answer})
            if "must" in turn:
                score = result.recall if turn.get("fact") else result.dialogue_questions
                told = " / ".join(message["content"] for message in messages[:-1:2])
                score.add(told, answer, turn["must"])
    return result


def llama_cpp_reply(path: Path, threads: int = 2) -> Reply:
    """A greedy reply function on llama.cpp; message text is tokenised with special tokens off."""
    from llama_cpp import Llama

    llama = Llama(str(path), n_ctx=4096, n_threads=threads, verbose=False)
    end = llama.token_eos()

    def special(text: str) -> list[int]:
        return llama.tokenize(text.encode(), add_bos=False, special=True)

    def reply(messages: Messages) -> str:
        tokens: list[int] = []
        for message in messages:
            tokens += special(f"<|im_start|>{message['role']}\n")
            tokens += llama.tokenize(message["content"].encode(), add_bos=False, special=False)
            tokens += special("<|im_end|>\n")
        tokens += special("<|im_start|>assistant\n")
        out: list[int] = []
        for token in llama.generate(tokens, temp=0.0, repeat_penalty=1.0):
            if token == end or len(out) >= MAX_TOKENS:
                break
            out.append(token)
        return llama.detokenize(out).decode("utf-8", "replace")

    return reply


def load(path: Path) -> dict[str, Any]:
    material: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return material


def main() -> int:
    """evaluate.py MODEL [MATERIAL]: prints the figures and every miss."""
    model = Path(sys.argv[1])
    material = load(Path(sys.argv[2]) if len(sys.argv) > 2 else HERE / "heldout.json")
    result = evaluate(material, llama_cpp_reply(model))
    for score in (result.questions, result.outside, result.recall, result.dialogue_questions):
        for question, answer in score.wrong:
            print(f"MISS {question}\n  -> {answer}")
    print(result.line())
    return 0


if __name__ == "__main__":
    sys.exit(main())
