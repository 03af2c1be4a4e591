"""Tensor types that GGUF files have and ggml does not read: whose they are, and what to take in their place.

Numbers are those of ik_llama.cpp's ggml.h, and those that llama.cpp's has given up.
"""

from __future__ import annotations

from typing import NamedTuple

from engine.errors import UnsupportedModelError

_IK = {
    97: "Q8_0_X4", 98: "Q8_1_X4", 99: "Q8_2_X4", 133: "Q6_0", 134: "IQ1_BN", 135: "IQ2_BN", 136: "Q8_K64",
    137: "IQ2_K", 138: "IQ3_K", 139: "IQ4_K", 140: "IQ5_K", 141: "IQ6_K", 142: "IQ2_TN", 143: "IQ1_TN",
    144: "IQ4_KS", 145: "IQ2_KS", 146: "IQ4_KSS", 147: "Q8_K16", 148: "Q8_K32", 149: "Q8_KR8",
    150: "Q8_K128", 151: "Q8_KV", 152: "IQ5_KS", 153: "IQ2_KT", 154: "IQ3_KT", 155: "IQ4_KT",
    156: "IQ3_KS", 157: "IQ2_KL", 158: "IQ1_KT",
}  # fmt: skip
_IK_INTERLEAVED = range(202, 400)
"""A type's number and 200: four, eight or sixteen rows of it lie in turns (_R4, _R8, _R16)."""
_OLD = {
    4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8",
}  # fmt: skip

_TAKE = "Take a version in one of llama.cpp's types, such as Q4_K_M or IQ4_XS"


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
    if number in _IK_INTERLEAVED:
        return ForeignType(f"type {number}", "ik_llama.cpp, with its rows interleaved", _TAKE)
    if number in _OLD:
        return ForeignType(_OLD[number], "an old llama.cpp", "Take a version in Q4_0 or Q4_K_M")
    return None
