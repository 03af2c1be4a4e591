"""GGUF files that hold something else than a language model to talk with: what each is, and what to take instead."""

from __future__ import annotations

import re
from typing import NamedTuple

from engine.errors import UnsupportedModelError
from engine.gguf.file import GGUFFile
from engine.gguf.header import shown


class OtherKind(NamedTuple):
    """What a file holds, why it does not talk, what to do."""

    what: str
    why: str
    todo: str


_ITSELF = "Choose the model itself"
_CHAT = "Choose a chat model"

_IMAGES = OtherKind(
    "the image part of a model", "It reads pictures for one and cannot talk", _ITSELF
)
_EMBEDDING = OtherKind("an embedding model", "It turns text into numbers, for search", _CHAT)
_DRAFT = OtherKind("a draft model", "It guesses ahead for another model and cannot talk", _ITSELF)
_PICTURES = OtherKind("a model for pictures or video", "It does not write text", _CHAT)
_SPEECH = OtherKind("a model for speech", "It does not write text", _CHAT)
_DIFFUSION = OtherKind("a diffusion model", "It does not write word by word", _CHAT)
_TRANSLATES = OtherKind("a model that rewrites text", "It does not converse", _CHAT)
_VOCABULARY = OtherKind("a vocabulary only", "It has no weights", _ITSELF)

_TYPES = {
    "mmproj": _IMAGES,
    "adapter": OtherKind(
        "an adapter (LoRA)", "It changes a model and is none", "Choose a model it was merged into"
    ),
    "imatrix": OtherKind("an importance matrix", "It served to quantise a model", _ITSELF),
    "controlvector": OtherKind("a control vector", "It steers a model and is none", _ITSELF),
}
"""By general.type, or by the architecture where that is absent."""

_ARCHITECTURES: dict[str, OtherKind] = {
    **_TYPES,
    "clip": _IMAGES,
    **dict.fromkeys(
        (
            *("bert", "modern-bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2"),
            *("jina-bert-v3", "eurobert", "t5encoder", "gemma-embedding", "llama-embed"),
        ),
        _EMBEDDING,
    ),
    **dict.fromkeys(("eagle3", "dflash", "gemma4-assistant"), _DRAFT),
    **dict.fromkeys(
        (
            *("flux", "sd1", "sd3", "sdxl", "aura", "hidream", "cosmos", "wan", "hyvid", "ltxv"),
            *("lumina2", "qwen_image", "z_image"),
        ),
        _PICTURES,
    ),
    **dict.fromkeys(("wavtokenizer-dec", "qwen3tts", "pockettts", "whisper"), _SPEECH),
    **dict.fromkeys(("dream", "llada", "llada-moe", "rnd1"), _DIFFUSION),
    "t5": _TRANSLATES,
}

_OLLAMAS = {
    "gptoss": "gpt-oss",
    "mllama": "Llama 3.2 Vision",
    "qwen25vl": "Qwen2.5-VL",
    "deepseekocr": "DeepSeek-OCR",
    "glmocr": "GLM-OCR",
}
"""Architectures that only Ollama's own converter writes, and whose models they are."""
_OLLAMAS_IMAGES = ("v.", "mm.")
"""It also puts the image part into the model's own file, where llama.cpp has a file for it."""

_POOLING = range(1, 4)
"""Of all tokens' numbers: the mean, the first token's, the last one's."""
_RANK = 4
_LAYER = re.compile(r"blk\.(\d+)\.")


def refuse_other_files(file: GGUFFile, architecture: str) -> None:
    """Raises `UnsupportedModelError` where `file` holds no language model that can talk."""
    kinds = (
        _TYPES.get(file.string("general.type", "model")),
        _ARCHITECTURES.get(architecture),
        None if file.tensors else _VOCABULARY,
        _by_pooling(file, architecture),
        _ollamas(file, architecture),
        _further_tokens(file, architecture),
    )
    for kind in kinds:
        if kind is not None:
            name = shown(file.path.name)
            raise UnsupportedModelError(f"{name} is {kind.what}", kind.why, kind.todo)


def _by_pooling(file: GGUFFile, architecture: str) -> OtherKind | None:
    pooling = file.u32(f"{architecture}.pooling_type", 0)
    if pooling == _RANK:
        return OtherKind("a reranker", "It sorts what a search found", _CHAT)
    causal = file.flag(f"{architecture}.attention.causal", True)
    return _EMBEDDING if pooling in _POOLING or not causal else None


def _ollamas(file: GGUFFile, architecture: str) -> OtherKind | None:
    model = _OLLAMAS.get(architecture, "")
    if not model and not any(name.startswith(_OLLAMAS_IMAGES) for name in file.tensors):
        return None
    return OtherKind(
        "made by Ollama for its own engine",
        f"Only Ollama reads the architecture {architecture}"
        if model
        else "It holds the image part in the same file, which only Ollama reads",
        f"Take {model or 'the same model'} as a GGUF file for llama.cpp, from the hub",
    )


def _further_tokens(file: GGUFFile, architecture: str) -> OtherKind | None:
    """The blocks behind a model's last layer, in a file of their own."""
    extra = file.u32(f"{architecture}.nextn_predict_layers", 0)
    blocks = file.u32(f"{architecture}.block_count", 0)
    found = [int(match[1]) for name in file.tensors if (match := _LAYER.match(name))]
    if not 0 < extra < blocks or min(found, default=0) < blocks - extra:
        return None
    return OtherKind(
        "the part of a model that predicts further tokens (MTP)",
        "It cannot talk by itself",
        _ITSELF,
    )
