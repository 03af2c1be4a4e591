"""What a benchmark measures and what follows from it: tokens, speeds, medians and ratios."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.errors import RequestError
from engine.evaluation import disturbance
from engine.evaluation.conditions import Conditions
from engine.evaluation.disturbance import REPEATS, Disturbance
from engine.evaluation.llama_cpp_reference import BASELINE
from engine.evaluation.trace import Trace
from engine.protocol import Computed, KvKind


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
    def most_rounds(self) -> int:
        """Rounds that are measured at most: those that others disturbed are repeated."""
        return self.rounds * (1 + REPEATS)

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
    second_turn_s: float | None = None
    """The same where what was generated is left out before it, as a template leaves out thinking."""


@dataclass(frozen=True, slots=True)
class Round:
    """What was measured together; the limit in GB/s, the mean of before and after."""

    read_limit_gb_s: float
    ours: Speed
    baseline: Speed | None
    disturbance: Disturbance = field(default_factory=Disturbance)


@dataclass(frozen=True, slots=True)
class BenchResult:
    """All rounds, and what follows from those that count: medians, and medians of the rounds' ratios."""

    model: str
    quantisation: str
    threads: int
    load: Load
    weights_bytes: int
    token_bytes: int
    """Bytes that one decoded token reads: active weights, and the KV cache of what is before it."""
    rounds: tuple[Round, ...]
    baseline_version: str
    trace: Trace | None = None
    device: Computed = "CPU"
    """What computed on our side; llama.cpp is on the CPU."""
    kv: KvKind = "f16"
    """How the KV cache was kept, on both sides."""
    memory_nodes: int = 1
    huge_page_bytes: int | None = None
    """Bytes of this process in pages of 2 MiB; None where the system does not say."""
    conditions: Conditions = field(default_factory=Conditions)

    @property
    def counted(self) -> tuple[Round, ...]:
        """The quiet rounds; all of them where none was quiet."""
        return tuple(r for r in self.rounds if r.disturbance.quiet) or self.rounds

    @property
    def hour(self) -> str:
        """How disturbed the hour was, in words."""
        return disturbance.words([r.disturbance for r in self.rounds], self.load.rounds)

    @property
    def prefill_tok_s(self) -> float:
        return statistics.median(r.ours.prefill_tok_s for r in self.counted)

    @property
    def decode_tok_s(self) -> float:
        return statistics.median(r.ours.decode_tok_s for r in self.counted)

    @property
    def decode_gb_s(self) -> float:
        """Bytes that decoding reads a second, in 10^9."""
        return self.decode_tok_s * self.token_bytes / 1e9

    @property
    def read_limit_gb_s(self) -> float:
        return statistics.median(r.read_limit_gb_s for r in self.counted)

    @property
    def bound_tok_s(self) -> float:
        """Tokens a second of decoding if nothing but reading took time."""
        return self.read_limit_gb_s * 1e9 / self.token_bytes

    @property
    def limit_ratio(self) -> float | None:
        """How much of the memory-read limit decoding uses; None where a GPU reads a part of it."""
        if self.device != "CPU":
            return None
        return statistics.median(
            r.ours.decode_tok_s * self.token_bytes / 1e9 / r.read_limit_gb_s for r in self.counted
        )

    @property
    def baselines(self) -> list[Speed]:
        """llama.cpp's rounds; empty when it was not asked."""
        return [r.baseline for r in self.counted if r.baseline is not None]

    @property
    def prefill_ratios(self) -> list[float]:
        """Our prefill speed over llama.cpp's, round by round."""
        return [r.ours.prefill_tok_s / r.baseline.prefill_tok_s for r in self.counted if r.baseline]

    @property
    def decode_ratios(self) -> list[float]:
        """Our decode speed over llama.cpp's, round by round."""
        return [r.ours.decode_tok_s / r.baseline.decode_tok_s for r in self.counted if r.baseline]

    @property
    def follow_up_s(self) -> float | None:
        """Seconds to the first token after the follow-up; None when it was not asked."""
        return _median(r.ours.follow_up_s for r in self.counted)

    @property
    def follow_up_ratio(self) -> float | None:
        """Our seconds to the follow-up's first token over llama.cpp's."""
        return _median(
            r.ours.follow_up_s / r.baseline.follow_up_s
            for r in self.counted
            if r.baseline and r.ours.follow_up_s and r.baseline.follow_up_s
        )

    @property
    def second_turn_s(self) -> float | None:
        """Seconds to the first token after the follow-up, what was generated before it left out."""
        return _median(r.ours.second_turn_s for r in self.counted)

    @property
    def second_turn_ratio(self) -> float | None:
        """Our seconds to the second turn's first token over llama.cpp's."""
        return _median(
            r.ours.second_turn_s / r.baseline.second_turn_s
            for r in self.counted
            if r.baseline and r.ours.second_turn_s and r.baseline.second_turn_s
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON has it; llama.cpp's part is null when it was not asked."""
        baseline = None
        if self.baselines:
            baseline = {
                "name": BASELINE,
                "version": self.baseline_version,
                "prefill_tok_s": statistics.median(p.prefill_tok_s for p in self.baselines),
                "decode_tok_s": statistics.median(p.decode_tok_s for p in self.baselines),
            }
        return {
            "device": self.device,
            "kv": self.kv,
            "prompt": self.load.prompt,
            "token_bytes": self.token_bytes,
            "memory_nodes": self.memory_nodes,
            "huge_page_bytes": self.huge_page_bytes,
            "prefill_tok_s": self.prefill_tok_s,
            "decode_tok_s": self.decode_tok_s,
            "decode_gb_s": self.decode_gb_s,
            "read_limit_gb_s": self.read_limit_gb_s,
            "limit_ratio": self.limit_ratio,
            "peer": baseline,
            "prefill_ratio": statistics.median(self.prefill_ratios) if baseline else None,
            "decode_ratio": statistics.median(self.decode_ratios) if baseline else None,
            "follow_up_s": self.follow_up_s,
            "follow_up_ratio": self.follow_up_ratio,
            "second_turn_s": self.second_turn_s,
            "second_turn_ratio": self.second_turn_ratio,
            "overhead": self.trace.overhead if self.trace else None,
            "hour": self.hour,
            "quiet_rounds": sum(r.disturbance.quiet for r in self.rounds),
            "conditions": asdict(self.conditions),
            "rounds": [{**asdict(r), "quiet": r.disturbance.quiet} for r in self.rounds],
        }


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
