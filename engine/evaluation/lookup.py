"""What prompt lookup gives and costs: ten recorded texts, replayed with it and without, side by side.

A replay is a reply whose tokens are those of the text, whatever the model would have said: sampled for the time that
takes, then replaced. So any weights will do, random ones too. Texts follow each other as replies do after a model was
loaded: what passes cost is learned in the first.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.common.json_files import assets_folder
from engine.common.units import count as grouped
from engine.errors import RequestError, UnsupportedModelError
from engine.evaluation.bench import REST
from engine.evaluation.conditions import Conditions, conditions
from engine.evaluation.disturbance import Disturbance, until_quiet, words
from engine.generation.draft_control import SIZES
from engine.generation.sampling import Sampler
from engine.generation.speculation import Speculation
from engine.gguf.file import GGUFFile
from engine.protocol import Load, Sampling
from engine.runtimes.chosen import open_native
from engine.runtimes.native import NativeRuntime
from engine.spec.reader import read_spec
from engine.text.tokenizer import Part, Tokenizer
from kernels.cpu.cores import default_threads

Report = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Text:
    """A recorded prompt and its reply."""

    kind: str
    prompt: str
    reply: str


def texts() -> list[Text]:
    """The ten that come with ktchat."""
    path = assets_folder() / "lookup_texts.json"
    return [Text(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]


@dataclass(frozen=True, slots=True)
class Pair:
    """One text replayed both ways, one right after the other, in tokens a second."""

    plain_tok_s: float
    lookup_tok_s: float
    drafted: int
    accepted: int
    disturbance: Disturbance = field(default_factory=Disturbance)


@dataclass(frozen=True, slots=True)
class KindResult:
    """All pairs of one text; medians of the quiet ones, of all where none was quiet."""

    kind: str
    tokens: int
    pairs: tuple[Pair, ...]

    @property
    def counted(self) -> tuple[Pair, ...]:
        """The pairs that count."""
        return tuple(pair for pair in self.pairs if pair.disturbance.quiet) or self.pairs

    @property
    def ratio(self) -> float:
        """The speed with lookup over the one without."""
        return statistics.median(pair.lookup_tok_s / pair.plain_tok_s for pair in self.counted)

    @property
    def plain_tok_s(self) -> float:
        return statistics.median(pair.plain_tok_s for pair in self.counted)

    @property
    def lookup_tok_s(self) -> float:
        return statistics.median(pair.lookup_tok_s for pair in self.counted)


@dataclass(frozen=True, slots=True)
class LookupResult:
    """Every kind of text, and what a pass of so many tokens cost in passes of one."""

    model: str
    quantisation: str
    threads: int
    rounds: int
    kinds: tuple[KindResult, ...]
    costs: dict[int, float]
    conditions: Conditions

    @property
    def least_ratio(self) -> float:
        """That of the kind of text which gained least, or lost most."""
        return min(kind.ratio for kind in self.kinds)

    @property
    def hour(self) -> str:
        """How disturbed the hour was, in words."""
        every = [pair.disturbance for kind in self.kinds for pair in kind.pairs]
        return words(every, self.rounds * len(self.kinds))

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        kinds = [
            {
                "kind": kind.kind,
                "tokens": kind.tokens,
                "plain_tok_s": kind.plain_tok_s,
                "lookup_tok_s": kind.lookup_tok_s,
                "ratio": kind.ratio,
                "pairs": [{**asdict(pair), "quiet": pair.disturbance.quiet} for pair in kind.pairs],
            }
            for kind in self.kinds
        ]
        return {
            "model": self.model,
            "quantisation": self.quantisation,
            "threads": self.threads,
            "least_ratio": self.least_ratio,
            "costs": self.costs,
            "hour": self.hour,
            "conditions": asdict(self.conditions),
            "kinds": kinds,
        }


def bench_lookup(
    path: Path,
    rounds: int = 1,
    *,
    threads: int | None = None,
    vocabulary: Path | None = None,
    report: Report = lambda what, done, total: None,
) -> LookupResult:
    """Replay the ten texts with the model at `path`, on the CPU; `vocabulary`: another model's file has the tokens.

    Raises what loading raises, `UnsupportedModelError` where the model takes no drafts, and `RequestError` where a
    text does not fit its context.
    """
    count = default_threads() if threads is None else threads
    with ExitStack() as stack:
        file = stack.enter_context(GGUFFile.open(path))
        spec = read_spec(file)
        if not spec.native:
            raise _without_drafts(path, f"Only llama.cpp runs it: {spec.unsupported}")
        if spec.delta is not None:
            raise _without_drafts(path, "Its recurrent state cannot be cut back")
        words_of = stack.enter_context(GGUFFile.open(vocabulary)) if vocabulary else file
        tokenizer = Tokenizer.open(words_of.path, words_of)
        stack.callback(tokenizer.close)
        replays = [_Replay.of(text, tokenizer) for text in texts()]
        context = max(len(replay.prompt) + len(replay.reply) for replay in replays) + 1
        if context > spec.context:
            raise RequestError(
                f"{grouped(context)} tokens do not fit",
                f"{path.name} has a context of {grouped(spec.context)}",
            )
        request = Load(str(path), context, count, device="cpu")
        runtime = open_native(
            file, spec, request, progress=lambda done, all_: report("loading", done, all_)
        )
        stack.callback(runtime.close)
        runtime.warm_up()
        ahead = Speculation(runtime, tokenizer.is_end)
        kinds = tuple(
            KindResult(
                replay.kind,
                len(replay.reply),
                tuple(_pairs(replay, runtime, ahead, tokenizer.vocab_size, rounds, count, report)),
            )
            for replay in replays
        )
    return LookupResult(
        model=spec.name or path.name,
        quantisation=spec.quantisation,
        threads=count,
        rounds=rounds,
        kinds=kinds,
        costs={size: cost for size in SIZES if (cost := ahead.control.cost(size)) is not None},
        conditions=conditions(),
    )


def _without_drafts(path: Path, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{path.name} takes no drafts", why, "Measure a model of another architecture"
    )


@dataclass(frozen=True, slots=True)
class _Replay:
    """A text in tokens."""

    kind: str
    prompt: list[int]
    reply: list[int]

    @classmethod
    def of(cls, text: Text, tokenizer: Tokenizer) -> _Replay:
        prompt = tokenizer.encode([Part(f"{text.prompt}\n\n", special=False)])
        return cls(text.kind, prompt, tokenizer.encode_more([Part(text.reply, special=False)]))

    def play(
        self, runtime: NativeRuntime, vocabulary: int, after: Callable[[int, int], Any]
    ) -> float:
        """Seconds of the reply; `after(token, left)` gives logits."""
        cached = runtime.begin(self.prompt)
        logits = runtime.logits if cached == len(self.prompt) else None
        if logits is None:
            logits = runtime.forward(self.prompt[cached:])
        sampler = Sampler(Sampling(seed=0), self.prompt)
        start = time.perf_counter()
        for place, token in enumerate(self.reply):
            sampler.next(logits[:vocabulary])
            logits = after(token, len(self.reply) - place)
        return time.perf_counter() - start


def _pairs(
    replay: _Replay,
    runtime: NativeRuntime,
    ahead: Speculation,
    vocabulary: int,
    rounds: int,
    threads: int,
    report: Report,
) -> Iterator[Pair]:
    """Until so many were quiet, but not for ever."""

    def plain() -> float:
        return replay.play(runtime, vocabulary, lambda token, left: runtime.forward([token]))

    def drafting() -> float:
        ahead.begin(replay.prompt)
        seconds = replay.play(runtime, vocabulary, ahead.forward)
        ahead.end()
        return seconds

    def measure(number: int, quiet: int) -> Pair:
        report(f"replaying {replay.kind}", quiet, rounds)
        speeds = {}
        for way in (plain, drafting) if number % 2 == 0 else (drafting, plain):
            time.sleep(REST)
            speeds[way] = len(replay.reply) / way()
        return Pair(speeds[plain], speeds[drafting], ahead.drafted, ahead.accepted)

    for pair, _, disturbance in until_quiet(rounds, threads, measure):
        yield replace(pair, disturbance=disturbance)
