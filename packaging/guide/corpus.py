"""Reads corpus/*.toml into topics, word lists and facts. Knows nothing of conversations."""

from __future__ import annotations

import math
import random
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grammar import Grammar

FOLDER = Path(__file__).parent / "corpus"
# What nearly everyone says first.
COMMON = {
    "hello",
    "thanks",
    "bye",
    "who_are_you",
    "what_can_you_do",
    "how_are_you",
    "ok",
    "stop",
    "which_model",
}
WORDING_FILES = ("more", "voices_a", "voices_b", "voices_c", "voices_d", "voices_e", "voices_f")
TOPIC_FILES = ("keys", "app", "errors", "concepts", "models", "compare", "smalltalk")


def lines(text: str) -> list[str]:
    """The lines of a block, without empty ones."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def read(name: str) -> dict[str, Any]:
    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Topic:
    """One subject: whole questions, verb phrases, noun phrases, and the answers."""

    name: str
    ask: list[str]
    do: list[str]
    about: list[str]
    say: list[str]

    @property
    def weight(self) -> float:
        """How often the topic comes up: with the square root of its number of wordings."""
        often = 2.5 if self.name in COMMON else 1.0
        return often * math.sqrt(len(self.ask) + len(self.do) + 0.5 * len(self.about))

    def question(self, rng: random.Random, define: list[str], grammar: Grammar) -> str:
        """One grammar line; verb phrases follow {howto}, noun phrases fill the forms in `define`."""
        at = rng.random() * (len(self.ask) + 2 * len(self.do) + 1.2 * len(self.about))
        if at < len(self.ask):
            return rng.choice(self.ask)
        if at < len(self.ask) + 2 * len(self.do):
            return ask_to_do(grammar.expand(rng.choice(self.do), rng), rng)
        return rng.choice(define).replace("{x}", rng.choice(self.about))


def ask_to_do(phrase: str, rng: random.Random) -> str:
    """A question for how to do something: "how do I stop it", "which key stops it", "stop it, how"."""
    verb, _, rest = phrase.partition(" ")
    form = rng.random()
    if form < 0.1 or not verb.isalpha():
        return phrase
    if form < 0.65:
        return "{howto} " + phrase
    if form < 0.7:
        return f"{phrase}, {{how_after}}"
    if form < 0.85:
        ending = (
            "ies"
            if re.search("[^aeo]y$", verb)
            else "es"
            if re.search("(s|x|ch|sh)$", verb)
            else "s"
        )
        stem = verb[:-1] if ending == "ies" else verb
        return f"{{which_key}} {stem}{ending} {rest}"
    doubled = (
        verb + verb[-1] if re.fullmatch("[^aeiou]*[aeiou][bdgmnpt]|quit|begin", verb) else verb
    )
    stem = doubled[:-1] if re.search("[^e]e$", doubled) else doubled
    return rng.choice(("{about_doing} ", "{about_doing} ", "")) + f"{stem}ing {rest}"


def load_topics() -> list[Topic]:
    topics = []
    more = {name: "" for file in WORDING_FILES for name in read(file)}
    for file in WORDING_FILES:
        for name, text in read(file).items():
            more[name] += text
    for file in TOPIC_FILES:
        for name, table in read(file).items():
            parts = {key: lines(table.get(key, "")) for key in ("ask", "do", "about", "say")}
            parts["ask"] += 2 * lines(more.pop(name, ""))
            parts["say"] = [line.replace("\\n", "\n") for line in parts["say"]]
            topics.append(Topic(name, **parts))
    assert not more, f"wordings of unknown topics: {sorted(more)}"
    return topics


def load_facts() -> dict[str, Any]:
    """facts.toml with the further wordings of facts_more.toml."""
    facts = read("facts")
    for kind, table in read("facts_more").items():
        for name, text in table.items():
            facts[kind][name] += text
    return facts


_PARTS = read("values")["syllables"]
_ONSETS, _RIMES = _PARTS["onsets"].split(), _PARTS["rimes"].split()


def syllables(rng: random.Random) -> str:
    """A pronounceable word that means nothing, so that copying is learned and not a list of names."""
    count = rng.choice((1, 2, 2, 2, 3))
    start = rng.choice(_RIMES) if rng.random() < 0.2 else ""
    return start + "".join(rng.choice(_ONSETS) + rng.choice(_RIMES) for _ in range(count))


def load_grammar(rng: random.Random) -> Grammar:
    """Word classes of words.toml, the lists of outside.toml, and classes of random words."""
    classes = {name: lines(text) for name, text in read("words").items() if name != "define"}
    classes |= {name: text.split("|") for name, text in read("outside")["words"].items()}
    classes["odd"] = [syllables(rng) for _ in range(20000)]
    letters = "asdfghjklqwertyuiopzxcvbnm"
    classes["mash"] = ["".join(rng.choices(letters, k=rng.randint(3, 9))) for _ in range(5000)]
    classes["digits"] = [str(rng.randrange(10 ** rng.randint(1, 7))) for _ in range(2000)]
    classes["n"] = [str(rng.randrange(10 ** rng.randint(1, 4))) for _ in range(2000)]
    return Grammar(classes)


def load_values() -> dict[str, list[str]]:
    """Lists of values: split at commas where there are any, else at spaces."""
    tables = read("values")
    prompts = lines(tables.pop("system_prompts"))
    del tables["syllables"]
    split = {
        name: [part.strip() for part in (text.split(",") if "," in text else text.split())]
        for name, text in tables.items()
    }
    return {**split, "system_prompts": prompts}
