"""Makes conversations from the corpus: a person asks, tells facts, corrects them and asks for them later.

Deterministic for a seed. Knows nothing of tokens.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import corpus
from noise import wear

Message = dict[str, str]
Turn = tuple[str, str]

_KINDS = ("name", "ram", "gpu", "favourite", "cpu", "system", "city", "work", "pet", "colour")
_KIND_WEIGHTS = (30, 22, 20, 18, 4, 5, 5, 5, 3, 3)
_LISTS = {
    "gpu": "gpus",
    "favourite": "favourites",
    "cpu": "cpus",
    "system": "systems",
    "work": "jobs",
    "colour": "colours",
}
_GB = ("{} GB", "{} GB", "{}GB", "{} gb", "{}gb", "{} gigabytes", "{} gigs", "{}G", "{} Gb")


@dataclass(slots=True)
class State:
    """What has been said so far in one conversation."""

    facts: dict[str, str] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    picked: str = ""

    @property
    def ram(self) -> int | None:
        return int(self.facts["ram"].split()[0]) if "ram" in self.facts else None


class Author:
    """Writes conversations; `rng` decides everything."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.grammar = corpus.load_grammar(random.Random(1))
        self.topics = corpus.load_topics()
        self.topic_weights = [topic.weight for topic in self.topics]
        self.define = corpus.lines(corpus.read("words")["define"])
        self.values = corpus.load_values()
        self.facts = corpus.load_facts()
        self.outside = corpus.read("outside")
        catalogue = corpus.read("catalogue")
        self.models = list(catalogue["models"].values())
        self.model_lines, self.recommend = catalogue["questions"], catalogue["recommend"]

    # One wording of a block of lines, worn like typed text.
    def typed(
        self, block: str, values: dict[str, str] | None = None, *, question: bool = True
    ) -> str:
        line = self.rng.choice(corpus.lines(block))
        return wear(line, self.rng, self.grammar, values, question=question)

    # --- values -------------------------------------------------------------------------------

    def value(self, kind: str) -> tuple[str, str]:
        """(as typed, as it is said back) of a fact."""
        rng = self.rng
        if kind == "ram":
            amount = rng.choice(self.values["ram"])
            if rng.random() < 0.25:
                amount = str(rng.randint(4, 1024))
            return rng.choice(_GB).format(amount), f"{amount} GB"
        if kind in ("name", "city", "pet"):
            words = self.values["cities" if kind == "city" else "names"]
            word = rng.choice(words) if rng.random() < 0.45 else corpus.syllables(rng).capitalize()
            if kind == "name" and rng.random() < 0.06:
                word += " " + corpus.syllables(rng).capitalize()
        else:
            word = rng.choice(self.values[_LISTS[kind]])
            if kind in ("gpu", "favourite") and rng.random() < 0.4:
                word = self.invented(kind)
            if kind == "work" and rng.random() < 0.25:
                word = corpus.syllables(rng) + "er"
        if rng.random() < 0.12:
            word = word.lower()
        return word, word

    def invented(self, kind: str) -> str:
        """A GPU or model that no list has."""
        rng = self.rng
        if kind == "gpu":
            brand = rng.choice(("RTX", "RTX", "GTX", "RX", "Arc", "Tesla", "Radeon", "Quadro"))
            return f"{brand} {rng.randint(10, 99) * rng.choice((10, 100))}{rng.choice(('', '', ' Ti', ' XT', 'M'))}"
        stem = corpus.syllables(rng).capitalize()
        return f"{stem}-{rng.randint(1, 400)}B" + rng.choice(("", "", f"-A{rng.randint(1, 40)}B"))

    def pick(self, ram: int) -> str:
        fitting = [step for step in self.recommend["steps"] if step["ram"] <= ram]
        return str(fitting[-1]["pick"])

    # --- kinds of turns: each returns (what the person writes, the reply) --------------------------

    def topic(self, state: State) -> Turn:
        topic = self.rng.choices(self.topics, self.topic_weights)[0]

        def asked() -> str:
            line = topic.question(self.rng, self.define, self.grammar)
            return wear(line, self.rng, self.grammar)

        return self.at_length(asked), self.rng.choice(topic.say)

    def at_length(self, asked: Callable[[], str]) -> str:
        """One question, or two sentences on the same thing, or a question and an appeal for help."""
        form, text = self.rng.random(), asked()
        if form < 0.14:
            return f"{text.rstrip('?.! ')}{self.rng.choice(('. ', '. ', ', ', ' and ', '; ', '? '))}{asked()}"
        if form < 0.24:
            appeal = wear("{appeal}", self.rng, self.grammar, frame=False)
            return f"{text.rstrip('?.! ')}{self.rng.choice(('. ', '. ', ', ', '? '))}{appeal}"
        return text

    def outside_turn(self, state: State) -> Turn:
        asked = self.at_length(lambda: self.typed(self.outside["ask"]))
        return asked, self.rng.choice(corpus.lines(self.outside["say"]))

    def gibberish(self, state: State) -> Turn:
        table = self.outside["gibberish"]
        asked = self.grammar.expand(self.rng.choice(corpus.lines(table["ask"])), self.rng)
        return asked, corpus.lines(table["say"])[0]

    def tell(self, state: State) -> Turn:
        """A fact or several; now and then with a question in the same message."""
        if self.rng.random() < 0.25:
            return self.tell_several(state)
        return self.tell_one(state, self.rng.choices(_KINDS, _KIND_WEIGHTS)[0])

    def correct(self, state: State) -> Turn:
        """A fact that was told is corrected."""
        return self.tell_one(state, self.rng.choice(list(state.facts)))

    def tell_one(self, state: State, kind: str) -> Turn:
        rng = self.rng
        typed, said = self.value(kind)
        table = self.facts[kind]
        corrected = kind in state.facts
        state.facts[kind] = said
        line, answer = ("change", "changed") if corrected else ("tell", "ack")
        asked = self.typed(table[line], {"v": typed}, question=False)
        reply = self.said(table[answer], said)
        if rng.random() < 0.15 and not corrected:
            question, reply_to_it = self.topic(state)
            asked = asked.rstrip(".!,") + rng.choice((". ", ", ", " and ", ". ")) + question
            first = reply.split(". I would")[0].split(". ktchat runs")[0].rstrip(".")
            reply = f"{first}. {reply_to_it}"
        return asked, reply

    def said(self, block: str, value: str) -> str:
        pick = self.pick(int(value.split()[0])) if "{pick}" in block else ""
        return self.rng.choice(corpus.lines(block)).replace("{v}", value).replace("{pick}", pick)

    def tell_several(self, state: State) -> Turn:
        block = self.rng.choice(list(self.facts["several"].values()))
        kinds = [kind for kind in ("name", "ram", "gpu", "favourite") if f"{{{kind}}}" in block]
        values = {kind: self.value(kind) for kind in kinds}
        state.facts |= {kind: said for kind, (_, said) in values.items()}
        typed = {kind: typed for kind, (typed, _) in values.items()}
        asked = self.typed(block, typed, question=False)
        parts = {"ram": "{} of RAM", "gpu": "a {}", "favourite": "your favourite model {}"}
        noted = [parts[kind].format(values[kind][1]) for kind in kinds if kind != "name"]
        start = f"Nice to meet you, {values['name'][1]}. " if "name" in values else ""
        return asked, f"{start}I noted {join(noted)}."

    def recall(self, state: State) -> Turn:
        known = [kind for kind in _KINDS if kind in state.facts]
        if known and self.rng.random() < 0.88:
            kind = self.rng.choice(known)
        else:
            kind = self.rng.choices(_KINDS, _KIND_WEIGHTS)[0]
        table = self.facts[kind]
        asked = self.typed(table["ask"])
        if kind in state.facts:
            return asked, self.said(table["say"], state.facts[kind])
        return asked, corpus.lines(table["unknown"])[0]

    def machine(self, state: State) -> Turn:
        table = self.facts["machine"]
        parts = {"ram": "{} of RAM", "gpu": "a {}", "cpu": "a {} CPU"}
        known = [parts[kind].format(state.facts[kind]) for kind in parts if kind in state.facts]
        reply = f"Your machine has {join(known)}." if known else corpus.lines(table["unknown"])[0]
        return self.typed(table["ask"]), reply

    def everything(self, state: State) -> Turn:
        table = self.facts["everything"]
        parts = {
            "name": "your name is {}",
            "ram": "you have {} of RAM",
            "gpu": "your GPU is a {}",
            "favourite": "your favourite model is {}",
        }
        known = [parts[kind].format(state.facts[kind]) for kind in parts if kind in state.facts]
        reply = f"You told me: {join(known)}." if known else corpus.lines(table["unknown"])[0]
        return self.typed(table["ask"]), reply

    def quoted(self, state: State) -> Turn:
        """The person asks for her own first or last message."""
        table = self.facts["question"]
        which = self.rng.choice(("first", "last"))
        asked = self.typed(table[which])
        if not state.turns:
            return asked, table["none"]
        return asked, table[f"{which}_say"].replace(
            "{v}", state.turns[0 if which == "first" else -1][0]
        )

    def again(self, state: State) -> Turn:
        table = self.facts["again"]
        return self.typed(table["ask"]), state.turns[-1][1] if state.turns else table["none"]

    def gigabytes(self) -> tuple[int, str]:
        typed, said = self.value("ram")
        return int(said.split()[0]), typed

    def about_model(self, state: State) -> Turn:
        """What a model is, how big it is, whether it fits."""
        rng = self.rng
        model = rng.choice(self.models)
        names = model["names"].split("|")
        typed, proper = rng.choice(names[1:]), names[0]
        figures = {
            "M": proper,
            "q": model["quant"],
            "s": f"{model['size']:g}",
            "r": str(model["ram"]),
        }
        kind = rng.choices(("about", "size", "fit", "known"), (30, 20, 20, 30))[0]
        if kind == "about":
            line = rng.choice(corpus.lines(self.model_lines["about"]))
            if rng.random() < 0.5:
                line = rng.choice(self.define).replace("{x}", "{m}")
            return wear(line, rng, self.grammar, {"m": typed}), model["about"]
        if kind == "size":
            answer = fill(self.model_lines["size_say"], figures)
            return self.typed(self.model_lines["size"], {"m": typed}), answer
        if kind == "fit":
            ram, amount = self.gigabytes()
            block = self.model_lines["fit"].replace("{g} gb", "{g}")
            asked = self.typed(block, {"m": typed, "g": amount})
            if re.search(r"i have", asked, re.I):
                state.facts["ram"] = f"{ram} GB"
        else:
            asked = self.typed(self.model_lines["fit_known"], {"m": typed})
            if state.ram is None:
                return asked, fill(self.model_lines["ask_ram"], figures)
            ram = state.ram
        verdict = "yes" if ram >= model["ram"] else "no"
        return asked, fill(self.model_lines[verdict], figures | {"g": str(ram)})

    def recommendation(self, state: State) -> Turn:
        rng, table = self.rng, self.recommend
        if state.ram is not None and rng.random() < 0.6:
            again = bool(state.picked) and rng.random() < 0.4
            asked, ram = self.typed(table["again" if again else "known"]), state.ram
        elif rng.random() < 0.15:
            which = next(topic for topic in self.topics if topic.name == "which_model")
            asked = self.typed(table["known"])
            return asked, which.say[0]
        else:
            ram, amount = self.gigabytes()
            asked = self.typed(table["ask"].replace("{g} gb", "{g}"), {"g": amount})
            state.facts["ram"] = f"{ram} GB"
        state.picked = self.pick(ram)
        return asked, table["say"].replace("{g}", str(ram)).replace("{pick}", state.picked)

    # --- conversations ------------------------------------------------------------------------------

    def conversation(self, length: int | None = None) -> list[Message]:
        """A conversation of `length` turns; without it of 1 to 18, short ones more often."""
        rng = self.rng
        if length is None:
            spans = ((1, 1), (2, 4), (5, 9), (10, 18))
            length = rng.randint(*rng.choices(spans, (30, 34, 26, 10))[0])
        state = State()
        for number in range(length):
            state.turns.append(self.turn_kind(state, number, length)(state))
        return self.messages(state)

    def memory(self) -> list[Message]:
        """A short conversation around facts: told, perhaps corrected, perhaps something else, and recalled."""
        rng, state = self.rng, State()
        kinds: list[Callable[[State], Turn]] = [self.tell] * rng.choice((1, 1, 1, 2))
        kinds += [self.correct] * rng.choice((0, 0, 0, 1))
        kinds += [self.topic] * rng.choice((0, 0, 1)) + [self.recall] * rng.choice((1, 1, 2))
        for kind in kinds:
            state.turns.append(kind(state))
        return self.messages(state)

    def messages(self, state: State) -> list[Message]:
        rng = self.rng
        messages = [
            {"role": role, "content": content}
            for turn in state.turns
            for role, content in zip(("user", "assistant"), turn, strict=True)
        ]
        if rng.random() < 0.12:
            prompt = rng.choice(self.values["system_prompts"])
            messages.insert(0, {"role": "system", "content": prompt})
        return messages

    def turn_kind(self, state: State, number: int, length: int) -> Callable[[State], Turn]:
        """Facts come mostly early, questions for them later; all else is questions on topics."""
        known = len(state.facts)
        weights: dict[Callable[[State], Turn], float] = {
            self.topic: 56,
            self.outside_turn: 13,
            self.gibberish: 1.5,
            self.about_model: 9,
            self.recommendation: 5,
            self.tell: 6 if length == 1 else (26 if known < 3 and number < length - 1 else 6),
            self.recall: 5 if not known else 22,
            self.machine: 0.7 if not known else 2,
            self.everything: 0.7 if not known else 2,
            self.quoted: 0.4 if number == 0 else 2,
            self.again: 0.2 if number == 0 else 1.5,
        }
        return self.rng.choices(list(weights), list(weights.values()))[0]


def fill(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], text)


def join(parts: list[str]) -> str:
    """a; a and b; a, b and c."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
