"""Speed of a model: prefill and decode, against the memory's limit and against llama.cpp.

Everything that is compared is measured in the same round, a second or so apart, because a shared
machine drifts: the limit, our runtime and llama.cpp take turns on the same mapped file, with the
same tokens, threads and batch. Tokens are drawn at random, as llama-bench does. Knows nothing of
how results are shown.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from engine.errors import MemoryShortError, RequestError, UnsupportedModelError
from engine.gguf import GGUFFile
from engine.memory_limit import read_limit
from engine.peer import PEER_NAME, LlamaPeer, peer_version
from engine.runtimes.hybrid import HybridRuntime
from engine.spec import ModelSpec
from kernels.ops import Floats

Report = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and its whole."""

WARM_UP = 32
"""Tokens through each side before the first round."""

REST = 0.05
"""Seconds between two measurements, in which spinning threads go to sleep."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is measured, in tokens. Decoding is timed with at least `fill` tokens in the cache.

    `follow_up`: tokens of one more message after that, whose first token of a reply is waited for.
    """

    prompt: int = 512
    generate: int = 64
    rounds: int = 5
    fill: int = 0
    follow_up: int = 0

    def __post_init__(self) -> None:
        for name, value, low in (
            ("prompt", self.prompt, 1),
            ("gen", self.generate, 1),
            ("rounds", self.rounds, 1),
            ("context-fill", self.fill, 0),
            ("follow-up", self.follow_up, 0),
        ):
            if value < low:
                raise RequestError(f"{name} {value} is not possible", "", f"Use {low} or more")

    @property
    def before(self) -> int:
        """Tokens in the cache when decoding starts."""
        return max(self.prompt, self.fill)

    @property
    def decoded(self) -> int:
        """Tokens in the cache when decoding ends."""
        return self.before + self.generate

    @property
    def context(self) -> int:
        """Tokens that have to fit."""
        return self.decoded + self.follow_up


@dataclass(frozen=True, slots=True)
class Speed:
    """One side in one round, in tokens a second; the follow-up's first token in seconds, when asked."""

    prefill_tok_s: float
    decode_tok_s: float
    follow_up_s: float | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """What was measured together; the limit in GB/s."""

    read_limit_gb_s: float
    ours: Speed
    peer: Speed | None


@dataclass(frozen=True, slots=True)
class BenchResult:
    """All rounds, and what follows from them: medians, and medians of the rounds' ratios."""

    model: str
    quantisation: str
    threads: int
    load: Load
    weights_bytes: int
    token_bytes: int
    """Bytes that one decoded token reads: active weights, and the KV cache of what is before it."""
    rounds: tuple[Round, ...]
    peer_version: str

    @property
    def prefill_tok_s(self) -> float:
        return statistics.median(r.ours.prefill_tok_s for r in self.rounds)

    @property
    def decode_tok_s(self) -> float:
        return statistics.median(r.ours.decode_tok_s for r in self.rounds)

    @property
    def decode_gb_s(self) -> float:
        """Bytes that decoding reads a second, in 10^9."""
        return self.decode_tok_s * self.token_bytes / 1e9

    @property
    def read_limit_gb_s(self) -> float:
        return statistics.median(r.read_limit_gb_s for r in self.rounds)

    @property
    def limit_ratio(self) -> float:
        """How much of the memory-read limit decoding uses."""
        return statistics.median(
            r.ours.decode_tok_s * self.token_bytes / 1e9 / r.read_limit_gb_s for r in self.rounds
        )

    @property
    def peers(self) -> list[Speed]:
        """llama.cpp's rounds; empty when it was not asked."""
        return [r.peer for r in self.rounds if r.peer is not None]

    @property
    def prefill_ratios(self) -> list[float]:
        """Our prefill speed over llama.cpp's, round by round."""
        return [r.ours.prefill_tok_s / r.peer.prefill_tok_s for r in self.rounds if r.peer]

    @property
    def decode_ratios(self) -> list[float]:
        """Our decode speed over llama.cpp's, round by round."""
        return [r.ours.decode_tok_s / r.peer.decode_tok_s for r in self.rounds if r.peer]

    @property
    def follow_up_s(self) -> float | None:
        """Seconds to the first token after the follow-up; None when it was not asked."""
        return _median(r.ours.follow_up_s for r in self.rounds)

    @property
    def follow_up_ratio(self) -> float | None:
        """Our seconds to the follow-up's first token over llama.cpp's."""
        return _median(
            r.ours.follow_up_s / r.peer.follow_up_s
            for r in self.rounds
            if r.peer and r.ours.follow_up_s and r.peer.follow_up_s
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON has it; llama.cpp's part is null when it was not asked."""
        peer = None
        if self.peers:
            peer = {
                "name": PEER_NAME,
                "version": self.peer_version,
                "prefill_tok_s": statistics.median(p.prefill_tok_s for p in self.peers),
                "decode_tok_s": statistics.median(p.decode_tok_s for p in self.peers),
            }
        return {
            "prefill_tok_s": self.prefill_tok_s,
            "decode_tok_s": self.decode_tok_s,
            "decode_gb_s": self.decode_gb_s,
            "read_limit_gb_s": self.read_limit_gb_s,
            "limit_ratio": self.limit_ratio,
            "peer": peer,
            "prefill_ratio": statistics.median(self.prefill_ratios) if peer else None,
            "decode_ratio": statistics.median(self.decode_ratios) if peer else None,
            "follow_up_s": self.follow_up_s,
            "follow_up_ratio": self.follow_up_ratio,
            "rounds": [asdict(r) for r in self.rounds],
        }


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


class Side(Protocol):
    """One of the two that are timed."""

    def start(self) -> None:
        """Forget the sequence."""
        ...

    def forward(self, tokens: Sequence[int]) -> Floats:
        """Append tokens, a batch at most; logits of the last."""
        ...


class OurSide:
    """The hybrid runtime. Every start is a sequence whose first token the cache has not seen."""

    def __init__(self, runtime: HybridRuntime) -> None:
        self._runtime = runtime
        self._fresh = True

    def start(self) -> None:
        self._fresh = True

    def forward(self, tokens: Sequence[int]) -> Floats:
        if self._fresh:
            cached = self._runtime.begin(tokens)
            assert cached == 0, "a prompt in the prefix cache would be timed as if it were read"
            self._fresh = False
        return self._runtime.forward(tokens)


class PeerSide:
    """llama.cpp."""

    def __init__(self, peer: LlamaPeer) -> None:
        self.start = peer.clear
        self.forward = peer.forward


def bench(
    path: Path,
    load: Load,
    *,
    versus: bool = False,
    threads: int | None = None,
    report: Report = lambda what, done, total: None,
) -> BenchResult:
    """Measure the model at `path`; `versus` llama.cpp too.

    Raises `ModelFileError`, `UnsupportedModelError` for an architecture that only llama.cpp runs,
    `RequestError` when the load does not fit the model's context, `MemoryShortError`.
    """
    from kernels.cpu.cores import default_threads

    count = default_threads() if threads is None else threads
    with ExitStack() as stack:
        file = stack.enter_context(GGUFFile.open(path))
        spec = ModelSpec.from_file(file)
        _check(path, spec, load, versus)
        runtime = HybridRuntime.load(
            file, spec, load.context + 1, count, lambda *part: report("loading", *part)
        )
        stack.callback(runtime.close)
        sides: list[Side] = [OurSide(runtime)]
        if versus:
            report(f"loading in {PEER_NAME}", 0, 0)
            peer = LlamaPeer(path, load.context + 1, threads=count, batch=runtime.chunk)
            stack.callback(peer.close)
            sides.append(PeerSide(peer))
        rounds = tuple(_rounds(sides, load, spec.vocab, runtime.chunk, count, report))
    position = load.before + load.generate // 2
    return BenchResult(
        model=spec.name or path.name,
        quantisation=spec.quantisation,
        threads=count,
        load=load,
        weights_bytes=spec.weights_bytes,
        token_bytes=spec.active_bytes_per_token + position * spec.kv_bytes_per_token,
        rounds=rounds,
        peer_version=peer_version() if versus else "",
    )


def _check(path: Path, spec: ModelSpec, load: Load, versus: bool) -> None:
    if not spec.hybrid:
        raise UnsupportedModelError(
            f"{path.name} cannot be measured",
            f"Only {PEER_NAME} runs it: {spec.unsupported}",
            f"Measure it with {PEER_NAME}'s own llama-bench",
        )
    if load.context > spec.context:
        raise RequestError(
            f"{load.context} tokens do not fit",
            f"{path.name} has a context of {spec.context}",
            "Use a smaller --prompt, --gen or --context-fill",
        )
    needed = spec.weights_bytes * (2 if versus else 1) + spec.kv_bytes_per_token * load.context
    free = _available_memory()
    if free is not None and needed > free:
        raise MemoryShortError(
            f"{path.name} does not fit into memory" + (" twice" if versus else ""),
            f"{free / 1e9:.1f} GB are free and about {needed / 1e9:.1f} GB are needed",
            f"Use fewer layers or a smaller model{', or leave out --vs' if versus else ''}",
        )


def _available_memory() -> int | None:
    """Bytes that programs can still take; None where Linux does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return next((int(size) * 1024 for size in sizes), None)


def _rounds(
    sides: list[Side], load: Load, vocabulary: int, batch: int, threads: int, report: Report
) -> Iterator[Round]:
    rng = np.random.default_rng(0)
    names = ["ktchat", PEER_NAME]
    for side in sides:
        report("warming up", 0, 0)
        small = Load(min(WARM_UP, load.prompt), 1)
        _speed(side, small, [i % vocabulary for i in range(small.context)], batch)
    for number in range(load.rounds):
        tokens = rng.integers(0, vocabulary, load.context).tolist()
        tokens[0] = (number + 1) % vocabulary  # no prompt is in the prefix cache already
        limit = read_limit(threads)
        speeds: dict[str, Speed] = {}
        order = list(zip(names, sides, strict=False))
        for name, side in order if number % 2 == 0 else order[::-1]:
            report(f"measuring {name}", number, load.rounds)
            time.sleep(REST)
            speeds[name] = _speed(side, load, tokens, batch)
        yield Round(limit, speeds["ktchat"], speeds.get(PEER_NAME))
    report("done", load.rounds, load.rounds)


def _speed(side: Side, load: Load, tokens: list[int], batch: int) -> Speed:
    side.start()
    prefill = _prefill(side, tokens[: load.prompt], batch)
    _prefill(side, tokens[load.prompt : load.before], batch)
    start = time.perf_counter()
    for token in tokens[load.before : load.decoded]:
        side.forward([token])
    decode = time.perf_counter() - start
    follow_up = _prefill(side, tokens[load.decoded :], batch) if load.follow_up else None
    return Speed(load.prompt / prefill, load.generate / decode, follow_up)


def _prefill(side: Side, tokens: list[int], batch: int) -> float:
    """Append tokens in batches; seconds it took."""
    start = time.perf_counter()
    for first in range(0, len(tokens), batch):
        side.forward(tokens[first : first + batch])
    return time.perf_counter() - start
