"""What verifying a model found: figures and a verdict.

The verdict asks whether our typical error is at most `ALLOWED` times llama.cpp's, at a prompt's positions and at
decoded ones. It is yes or no only where an interval says so; a noisy run cannot pass for that. Sequences are added
in rounds, with a look at the intervals after each. `DOUBT` is that of all looks together: each has its share, so
that looking again does not add up to a verdict by luck.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.evaluation.fidelity import (
    ROUNDING,
    Comparison,
    Measured,
    Ratio,
    comparison,
    ratio,
)
from engine.evaluation.llama_cpp_reference import BASELINE, baseline_version
from engine.protocol import Computed

ROUNDS = (12, 24, 48, 96, 192)
"""Sequences after each round. Twelve are the fewest from which a share of the doubt can tell anything."""

DOUBT = 0.003
"""How likely the true ratio is outside of any round's interval."""


@dataclass(frozen=True, slots=True)
class Verification:
    """A model's result after some rounds. `tokens` positions of `sequences` sequences were compared."""

    model: str
    architecture: str
    quantisation: str
    sequences: int
    tokens: int
    seed: int
    ours: Comparison
    baseline: Comparison
    prefill: Ratio
    decode: Ratio
    total: Ratio
    baseline_version: str
    device: Computed = "CPU"
    """What computed our logits."""

    @property
    def ratio(self) -> float:
        """Our typical error over llama.cpp's."""
        return self.total.value

    @property
    def faithful(self) -> bool | None:
        """Whether our error is at most `ALLOWED` times llama.cpp's; None: not enough to tell."""
        if not math.isfinite(self.ours.total.nmse):
            return False
        if self._exact:
            return True
        answers = {self.prefill.allowed, self.decode.allowed}
        if False in answers:
            return False
        return None if None in answers else True

    @property
    def verdict(self) -> str:
        """The result in one line."""
        if not math.isfinite(self.ours.total.nmse):
            return "not faithful: some of our logits are not numbers"
        if self._exact:
            return "faithful: our logits are float32's, up to rounding"
        if self.faithful:
            return f"faithful: our error is {_words(self.total)} of {BASELINE}'s"
        parts = {"reading a prompt": self.prefill, "decoding": self.decode}
        if self.faithful is None:
            doubtful = {name: part for name, part in parts.items() if part.allowed is None}
            each = " and ".join(f"{_words(part)} when {name}" for name, part in doubtful.items())
            return (
                f"not enough to tell after {self.sequences} sequences: our error is {each} of"
                f" {BASELINE}'s"
            )
        name, worst = max(parts.items(), key=lambda item: item[1].low)
        return f"not faithful: our error is {_words(worst)} times {BASELINE}'s when {name}"

    @property
    def _exact(self) -> bool:
        return self.ours.total.typical <= 2 * ROUNDING


def _words(part: Ratio) -> str:
    if not math.isfinite(part.high):
        return f"{part.value:.2f}"
    return f"{part.value:.2f} ({part.low:.2f} to {part.high:.2f})"


def verification(
    model: str,
    architecture: str,
    quantisation: str,
    seed: int,
    device: Computed,
    ours: Sequence[Measured],
    baseline: Sequence[Measured],
) -> Verification:
    """What both implementations' errors on the same sequences say."""
    doubt = DOUBT / len(ROUNDS)
    return Verification(
        model=model,
        architecture=architecture,
        quantisation=quantisation,
        sequences=len(ours),
        tokens=sum(len(sequence.total) for sequence in ours),
        seed=seed,
        ours=comparison(ours),
        baseline=comparison(baseline),
        prefill=ratio([s.prefill for s in ours], [s.prefill for s in baseline], doubt),
        decode=ratio([s.decode for s in ours], [s.decode for s in baseline], doubt),
        total=ratio([s.total for s in ours], [s.total for s in baseline], doubt),
        baseline_version=baseline_version(),
        device=device,
    )
