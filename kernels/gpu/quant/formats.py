"""The table of types on the GPU: each one's planes, decoder and codebook. A new type is one entry here.

Starts and stops are byte offsets in the file's block, as the block_* structures of ggml-common.h have them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import float16, float32, int8, uint16, uint32

from kernels.gpu.quant import codebook_decoders as book
from kernels.gpu.quant import decoders as plain
from kernels.gpu.quant import dots
from kernels.gpu.quant import ik_decoders as ik
from kernels.gpu.quant import trellis_decoders as trellis
from kernels.gpu.quant.layout import Codes, Plane, Raw, RowScale

Decoder = Callable[..., Any]
Dot = Callable[..., Any]
"""A function of `dots`."""


@dataclass(frozen=True, slots=True)
class Format:
    """One type: what its planes are taken from, what decodes them, and with which codebook."""

    decode: Decoder
    planes: tuple[Plane, ...]
    codebook: str | None = None
    dot: Dot | None = None
    """Decodes for activations in 8 bits; None: few rows are multiplied in float32."""


_SCALE = Raw(0, 2, float16)
_K_HEADER = Raw(0, 16, uint32)
"""d and dmin, then twelve bytes of scales and minima: one load for eight blocks."""
_ROW2, _ROW4 = RowScale(2, float16), RowScale(4, float32)

FORMATS: dict[str, Format] = {
    "F32": Format(plain.f32, (Raw(0, 4, float32),)),
    "F16": Format(plain.f32, (Raw(0, 2, float16),)),
    "BF16": Format(plain.bf16, (Raw(0, 2, uint16),)),
    "Q1_0": Format(plain.q1_0, (Codes(2, 18, 1, 1), _SCALE)),
    "Q2_0": Format(plain.q2_0, (Codes(2, 18, 2, 1), _SCALE)),
    "Q4_0": Format(plain.q4_0, (Codes(2, 18, 4, 16), _SCALE), dot=dots.q4_0),
    "Q4_1": Format(plain.q4_1, (Codes(4, 20, 4, 16), Raw(0, 4, float16))),
    "Q5_0": Format(plain.q5_0, (Codes(6, 22, 4, 16), Codes(2, 6, 1, 1), _SCALE), dot=dots.q5_0),
    "Q5_1": Format(plain.q5_1, (Codes(8, 24, 4, 16), Codes(4, 8, 1, 1), Raw(0, 4, float16))),
    "Q8_0": Format(plain.q8_0, (Codes(2, 34, 8, 32), _SCALE), dot=dots.q8_0),
    "Q2_K": Format(
        plain.q2_k, (Codes(16, 80, 2, 32), Raw(0, 16), Raw(80, 84, float16)), dot=dots.q2_k
    ),
    "Q3_K": Format(
        plain.q3_k,
        (Codes(32, 96, 2, 32), Codes(0, 32, 1, 32), Raw(96, 108), Raw(108, 110, float16)),
        dot=dots.q3_k,
    ),
    "Q4_K": Format(plain.q4_k, (Codes(16, 144, 4, 32), _K_HEADER), dot=dots.q4_k),
    "Q5_K": Format(
        plain.q5_k, (Codes(48, 176, 4, 32), Codes(16, 48, 1, 32), _K_HEADER), dot=dots.q5_k
    ),
    "Q6_K": Format(
        plain.q6_k,
        (Codes(0, 128, 4, 64), Codes(128, 192, 2, 32), Raw(192, 208, int8), Raw(208, 210, float16)),
        dot=dots.q6_k,
    ),
    "TQ1_0": Format(plain.tq1_0, (Raw(0, 52), Raw(52, 54, float16))),
    "TQ2_0": Format(plain.tq2_0, (Codes(0, 64, 2, 32), Raw(64, 66, float16))),
    "IQ4_NL": Format(book.iq4_nl, (Codes(2, 18, 4, 16, True), _SCALE), "IQ4_NL"),
    "IQ4_XS": Format(
        book.iq4_xs, (Codes(8, 136, 4, 16, True), Raw(0, 8, uint32)), "IQ4_NL", dot=dots.iq4_xs
    ),
    "MXFP4": Format(book.mxfp4, (Codes(1, 17, 4, 16, True), Raw(0, 1)), "MXFP4", dot=dots.mxfp4),
    "NVFP4": Format(book.nvfp4, (Codes(4, 36, 4, 8, True), Raw(0, 4)), "MXFP4"),
    "IQ2_XXS": Format(book.iq2_xxs, (Raw(2, 66, uint32), _SCALE), "IQ2_XXS"),
    "IQ2_XS": Format(book.iq2_xs, (Raw(2, 66, uint16), Raw(66, 74), _SCALE), "IQ2_XS"),
    "IQ2_S": Format(
        book.iq2_s, (Raw(2, 34), Raw(34, 66), Raw(66, 74), Raw(74, 82), _SCALE), "IQ2_S"
    ),
    "IQ3_XXS": Format(book.iq3_xxs, (Raw(2, 66), Raw(66, 98, uint32), _SCALE), "IQ3_XXS"),
    "IQ3_S": Format(
        book.iq3_s, (Raw(2, 66), Raw(66, 74), Raw(74, 106), Raw(106, 110), _SCALE), "IQ3_S"
    ),
    "IQ1_S": Format(book.iq1_s, (Raw(2, 34), Raw(34, 50, uint16), _SCALE), "IQ1_S"),
    "IQ1_M": Format(book.iq1_m, (Raw(0, 32), Raw(32, 48, uint16), Raw(48, 56, uint16)), "IQ1_S"),
    "Q6_0": Format(ik.q6_0, (Codes(10, 26, 4, 16), Codes(2, 10, 2, 8), _SCALE)),
    "IQ2_K": Format(ik.iq2_k, (Codes(12, 76, 2, 32), Raw(0, 4, uint32), Raw(4, 12)), "IQ2_K"),
    "IQ3_K": Format(
        ik.iq3_k,
        (Codes(14, 78, 2, 32), Codes(78, 110, 1, 32), Raw(0, 6, uint16), Raw(6, 14)),
        "IQ3_K",
    ),
    "IQ4_K": Format(ik.iq4_k, (Codes(16, 144, 4, 16), Raw(0, 16, uint32)), "IQ4_K"),
    "IQ5_K": Format(
        ik.iq5_k, (Codes(16, 144, 4, 32), Codes(144, 176, 1, 32), Raw(0, 16, uint32)), "IQ5_K"
    ),
    "IQ6_K": Format(
        ik.iq6_k,
        (Codes(20, 148, 4, 32), Codes(148, 212, 2, 32), Raw(0, 4, uint32), Raw(4, 20, int8)),
        "IQ6_K",
    ),
    "IQ4_KS": Format(ik.iq4_ks, (Codes(8, 136, 4, 16), Raw(0, 8), _ROW4), "IQ4_K"),
    "IQ2_KS": Format(ik.iq2_ks, (Codes(6, 70, 2, 32), Raw(0, 6), _ROW2), "IQ2_K"),
    "IQ4_KSS": Format(ik.iq4_kss, (Raw(0, 128, uint32), _ROW4), "IQ4_K"),
    "IQ5_KS": Format(
        ik.iq5_ks, (Codes(8, 136, 4, 32), Codes(136, 168, 1, 32), Raw(0, 8), _ROW4), "IQ5_K"
    ),
    "IQ3_KS": Format(
        ik.iq3_ks, (Codes(6, 70, 2, 32), Codes(70, 102, 1, 32), Raw(0, 6), _ROW2), "IQ3_K"
    ),
    "IQ1_KT": Format(trellis.iq1_kt, (Raw(8, 40), Raw(40, 56), Raw(0, 8), _ROW4), "IQ4_K"),
    "IQ2_KT": Format(trellis.iq2_kt, (Raw(4, 68, uint16), Raw(0, 4), _ROW4), "IQ4_K"),
    "IQ3_KT": Format(trellis.iq3_kt, (Raw(4, 68, uint16), Raw(68, 100), Raw(0, 4), _ROW4)),
    "IQ4_KT": Format(trellis.iq4_kt, (Raw(32, 96), Raw(96, 128), Raw(0, 32, uint32), _ROW4)),
    "IQ2_KL": Format(
        ik.iq2_kl, (Raw(6, 70, uint32), Raw(70, 86, uint32), Raw(0, 6), _ROW2), "IQ2_KL"
    ),
}
