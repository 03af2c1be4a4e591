"""Tensor types that GGUF files have and nothing here reads: whose they are, and what to take in their place.

Numbers are those of ik_llama.cpp's ggml.h, and those that llama.cpp's has given up.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.errors import UnsupportedModelError
from kernels.quants import MATRIX_TYPES, TYPES

_IK = {
    97: "Q8_0_X4", 98: "Q8_1_X4", 99: "Q8_2_X4", 134: "IQ1_BN", 135: "IQ2_BN", 136: "Q8_K64", 142: "IQ2_TN",
    143: "IQ1_TN", 147: "Q8_K16", 148: "Q8_K32", 149: "Q8_KR8", 150: "Q8_K128", 151: "Q8_KV",
}  # fmt: skip
_INTERLEAVED = range(202, 400)
"""A type's number and 200: four of its rows lie in turns (_R4),"""
_EIGHT = {202, 208, 223, 353, 398, 399}
"""or eight (_R8),"""
_SIXTEEN = {230, 397}
"""or sixteen (_R16)."""
_OTHER_NUMBERS = {353: "MXFP4", 397: "Q8_K", 398: "Q8_KV", 399: "Q8_K"}
_OLD = {
    4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8",
}  # fmt: skip

_TAKE = "Take a version in another of its types, such as IQ4_KS, or in one of llama.cpp's, such as Q4_K_M"


class ForeignType(NamedTuple):
    """A type that only others read."""

    name: str
    made_for: str
    todo: str


def refuse_foreign_type(file: str, tensor: str, number: int) -> None:
    """Raises `UnsupportedModelError` where somebody's type has this number."""
    foreign = foreign_type(number)
    if foreign is not None:
        raise UnsupportedModelError(
            f"{file} is quantised for {foreign.made_for}",
            f"Its tensor {tensor} is stored as {foreign.name}",
            foreign.todo,
        )


def foreign_type(number: int) -> ForeignType | None:
    """Whose type has this number; None when nobody's is known."""
    if number in _IK:
        return ForeignType(_IK[number], "ik_llama.cpp", _TAKE)
    if number in _INTERLEAVED:
        return _interleaved(number)
    if number in _OLD:
        return ForeignType(_OLD[number], "an old llama.cpp", "Take a version in Q4_0 or Q4_K_M")
    return None


def _interleaved(number: int) -> ForeignType:
    """Files are kept with their rows in turns for ik_llama.cpp alone; the same model is there without."""
    plain = TYPES.get(number - 200)
    name = _OTHER_NUMBERS.get(number) or (plain.name if plain else f"type {number - 200}")
    rows = 8 if number in _EIGHT else 16 if number in _SIXTEEN else 4
    take = f"Take the version in {name}, without _R{rows}" if name in MATRIX_TYPES else _TAKE
    return ForeignType(f"{name}_R{rows}", "ik_llama.cpp, with its rows interleaved", take)
