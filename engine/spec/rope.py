"""Rotary position embedding as a model's metadata describe it.

Frequencies and magnitudes of plain, linear and YaRN rope as ggml computes them
(`ggml_rope_yarn_corr_dims`, `rope_yarn`) and what llama.cpp makes of the metadata before that
(`llama_context`, deepseek2's score scale). YaRN: Peng et al. 2023, arXiv:2309.00071.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kernels.ops import Rope

Scaling = Literal["none", "linear", "yarn", "longrope"]


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """What the metadata say. `factor` is the context extension, `attention_factor` the extra scale."""

    dim: int
    base: float = 10000.0
    interleaved: bool = False
    scaling: Scaling = "none"
    factor: float = 1.0
    original_context: int = 0
    attention_factor: float = 1.0
    log_multiplier: float = 0.0
    """rope.scaling.yarn_log_multiplier as in the file: a tenth of `mscale_all_dim`; 0 when absent."""
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    whole_pairs: bool = True
    """YaRN's ramp begins and ends at whole pairs, as ggml rounds them; else where its formula says."""
    turns: bool = True
    """Off: every angle is 0, positions do not show."""
    factors: tuple[float, ...] = ()
    """Divisors of the frequencies, one a pair (tensor rope_freqs.weight); empty when absent."""

    @property
    def has_factors(self) -> bool:
        """Whether the file brings divisors of its own (Llama 3)."""
        return bool(self.factors)

    @property
    def extrapolation(self) -> float:
        """How much of the unscaled angle YaRN mixes in; 0 without YaRN."""
        return 1.0 if self.scaling == "yarn" else 0.0

    @property
    def stretch(self) -> float:
        """Divisor of the angles: the factor, or 1 without scaling."""
        return 1.0 if self.scaling == "none" else self.factor

    @property
    def all_dims(self) -> float:
        """DeepSeek's `mscale_all_dim`; 0 when the file does not say."""
        return float(np.float32(self.log_multiplier) / np.float32(0.1))

    @property
    def magnitude(self) -> float:
        """Factor of cos and sin."""
        if not self.turns:
            return 1.0
        return self._attn_factor * (self._log(1.0) if self.extrapolation else 1.0)

    @property
    def _attn_factor(self) -> float:
        # llama.cpp takes mscale = mscale_all_dim, so that their quotient is 1 for every DeepSeek.
        if not self.extrapolation:
            return self.attention_factor
        wanted = 1.0 if self.all_dims or self.stretch <= 1 else self._log(1.0)
        return self.attention_factor * wanted / self._log(1.0)

    def _log(self, multiplier: float) -> float:
        return 1.0 + 0.1 * multiplier * math.log(self.stretch)

    def latent_scale(self, key_dim: int) -> float:
        """Factor of deepseek2's attention scores for queries of `key_dim` features."""
        scale = self._attn_factor * self._log(1.0) * self._log(self.all_dims)
        return scale * scale / math.sqrt(key_dim)

    def frequencies(self) -> tuple[float, ...]:
        """Radians a position, one a pair of features."""
        if not self.turns:
            return (0.0,) * (self.dim // 2)
        pairs = np.arange(self.dim // 2, dtype=np.float64)
        full = self.base ** (-2.0 * pairs / self.dim)
        if self.factors:
            full = full / np.asarray(self.factors, np.float64)
        stretched = full / self.stretch
        if self.extrapolation:
            low, high = self._corrected_pairs()
            ramp = 1.0 - np.clip((pairs - low) / max(0.001, high - low), 0.0, 1.0)
            stretched = stretched * (1.0 - ramp) + full * ramp
        return tuple(float(value) for value in stretched)

    def _corrected_pairs(self) -> tuple[float, float]:
        """First and last pair of YaRN's ramp; in float32, so that rounding meets ggml's.

        gpt-oss does not round (`truncate` in its configuration); ggml does so for it too.
        """
        f32 = np.float32

        def pair(turns: float) -> np.float32:
            span = np.log(f32(f32(self.original_context) / (f32(turns) * f32(2) * f32(math.pi))))
            return f32(f32(self.dim) * span / (f32(2) * np.log(f32(self.base))))

        low, high = float(pair(self.beta_fast)), float(pair(self.beta_slow))
        if self.whole_pairs:
            low, high = math.floor(low), math.ceil(high)
        return max(0.0, low), min(self.dim - 1.0, high)

    def to_rope(self, offset: int = 0) -> Rope:
        """For the op set: features `offset .. offset + dim - 1` of a head turn."""
        return Rope(self.frequencies(), self.interleaved, offset, self.magnitude)
