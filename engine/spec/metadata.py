"""A model's metadata for one architecture, every number within the limits of a believable model."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import ModelFileError
from engine.gguf.file import GGUFFile, LazyArray
from engine.gguf.header import DOWNLOAD, shown

MAX_LAYERS = 512
MAX_EXPERTS = 1024
MAX_HEADS = 4096
MAX_WIDTH = 1 << 20
MAX_VOCAB = 1 << 22
MAX_CONTEXT = (1 << 31) - 1

# fmt: off
FILE_TYPES: dict[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S",
    17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS",
    23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M",
    30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4",
    40: "Q1_0", 41: "Q2_0",
    # ik_llama.cpp's
    135: "Q6_0", 138: "IQ2_K", 139: "IQ3_K", 140: "IQ4_K", 141: "IQ5_K", 142: "IQ6_K", 145: "IQ4_KS",
    146: "IQ3_KL", 147: "IQ2_KS", 148: "IQ4_KSS", 150: "IQ5_KS", 151: "IQ2_KT", 152: "IQ3_KT",
    153: "IQ4_KT", 154: "IQ3_KS", 155: "IQ2_KL", 156: "IQ1_KT",
}
# fmt: on
"""Names of general.file_type."""


class Keys:
    """A file's metadata for one architecture, with bounds."""

    def __init__(self, file: GGUFFile, architecture: str) -> None:
        self.file = file
        self.architecture = architecture
        self.uneven = ""
        """The first key whose value differs from layer to layer."""

    def path(self, key: str) -> str:
        return f"{self.architecture}.{key}"

    def has(self, key: str) -> bool:
        return self.path(key) in self.file.metadata

    def number(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """A whole number within bounds. Not there: `default`; None means that it must be there."""
        return self._bounded(key, self.file.u32(self.path(key), default), low, high)

    def real(self, key: str, low: float, high: float, default: float | None = None) -> float:
        """A real number within bounds."""
        value = self.file.f32(self.path(key), default)
        if not low <= value <= high:
            raise self.fault(f"{self.path(key)} is {value:g}; {low:g} to {high:g} is possible")
        return value

    def per_layer(
        self,
        key: str,
        low: int,
        high: int,
        default: int,
        layers: int,
        kinds: Sequence[object] = (),
    ) -> list[int]:
        """A number that may be given once or for each layer; it may differ between layers of two `kinds`."""
        value = self.file.metadata.get(self.path(key), default)
        if not isinstance(value, LazyArray):
            return [self.number(key, low, high, default)] * layers
        if len(value) != layers or value.element not in ("u32", "i32"):
            raise self.fault(f"{self.path(key)} has {len(value)} values for {layers} layers")
        values = [self._bounded(key, int(item), low, high) for item in value.numpy()]
        of_kinds = {*zip(values, kinds or [None] * layers, strict=False)}
        if len(of_kinds) > max(1, len(set(kinds))) and not self.uneven:
            self.uneven = self.path(key)
        return values

    @property
    def vocabulary(self) -> int:
        """Tokens of the tokenizer, else what the metadata say, else rows of the embedding."""
        tokens = self.file.metadata.get("tokenizer.ggml.tokens")
        size = len(tokens) if isinstance(tokens, LazyArray) else 0
        size = size or self.number("vocab_size", 0, MAX_VOCAB, 0)
        embedding = self.file.tensors.get("token_embd.weight")
        return size or (embedding.shape[0] if embedding else 0)

    def _bounded(self, key: str, value: int, low: int, high: int) -> int:
        if not low <= value <= high:
            raise self.fault(f"{self.path(key)} is {value}; {low} to {high} is possible")
        return value

    def fault(self, why: str) -> ModelFileError:
        return ModelFileError(f"{shown(self.file.path.name)} is damaged", why, DOWNLOAD)
