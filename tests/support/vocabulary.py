"""Small real vocabularies and a chat template for tiny models.

Each is a dict of GGUF metadata: byte-level BPE (as GPT-2 and Qwen2 have it) or SentencePiece-like
pieces with byte fallback (as Llama 2 has it).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from engine.gguf.file import GGUFFile
from engine.text.llama_vocab import LlamaVocab, llama_vocabulary
from tests.support import gguf_bytes as raw

CHATML = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
"""Values of tokenizer.ggml.token_type."""

_MERGES = (
    *("Ġ t", "h e", "Ġ a", "i n", "Ġt he", "r e", "o n", "e r", "Ġ s", "a t", "n d", "Ġ w"),
    *("Ġ o", "o u", "i s", "i t", "Ġ b", "e n", "Ġa nd", "o r", "e s", "Ġ c", "Ġ f", "in g"),
    *("Ġ m", "Ġ p", "l l", "a l", "a n", "Ġo f", "Ġ d", "Ġt o", "Ġ in", "Ġ h", "e d", "Ġ I"),
    *("Ġb e", "Ġy ou", "Ġ y", "he l", "hel l", "hell o", "Ġ hello", "1 2", "? Ġ", "! Ċ"),
)
_CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def byte_characters() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary (GPT-2)."""
    kept = {*range(33, 127), *range(161, 173), *range(174, 256)}
    moved = iter(range(256, 512))
    return [chr(byte) if byte in kept else chr(next(moved)) for byte in range(256)]


def byte_level(control: tuple[str, ...] = _CONTROLS) -> dict[str, Any]:
    """256 bytes, a few merges and the control tokens of ChatML."""
    merged = [merge.replace(" ", "") for merge in _MERGES]
    pieces = [*byte_characters(), *merged]
    known = set(pieces)
    merges = [merge for merge in _MERGES if known.issuperset(merge.split(" "))]
    tokens = [*dict.fromkeys(pieces), *control]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL if t in control else NORMAL for t in tokens],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": tokens.index("<|endoftext|>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        "tokenizer.ggml.padding_token_id": tokens.index("<|endoftext|>"),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHATML,
    }


def sentence_pieces() -> dict[str, Any]:
    """<unk>, <s>, </s>, 256 byte tokens and a few scored pieces; adds a BOS."""
    words = ("▁", "e", "t", "a", "o", "n", "h", "s", "▁t", "he", "▁the", "in", "an", "d", "▁and")
    control = ("<|im_start|>", "<|im_end|>")
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words, *control]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256, *[NORMAL] * len(words), CONTROL, CONTROL]
    scores = [0.0] * 259 + [-float(i) for i in range(len(words))] + [0.0, 0.0]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.eot_token_id": tokens.index("<|im_end|>"),
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": CHATML,
    }


def write(folder: Path, metadata: dict[str, Any], name: str = "vocabulary.gguf") -> Path:
    """A file with nothing but a vocabulary."""
    entries = [raw.entry("general.architecture", raw.STRING, "llama")]
    kinds = {bool: raw.BOOL, int: raw.U32, float: raw.F32, str: raw.STRING}
    for key, value in metadata.items():
        if isinstance(value, list):
            element = {str: raw.STRING, int: raw.I32, float: raw.F32}[type(value[0])]
            entries.append(raw.entry(key, raw.ARRAY, (element, value)))
        else:
            entries.append(raw.entry(key, kinds[type(value)], value))
    path = folder / name
    path.write_bytes(raw.File(entries).build())
    return path


def with_tokens(metadata: dict[str, Any], *texts: str, kind: int) -> dict[str, Any]:
    """The vocabulary with tokens of a kind behind its others."""
    made = dict(metadata)
    made["tokenizer.ggml.tokens"] = [*made["tokenizer.ggml.tokens"], *texts]
    made["tokenizer.ggml.token_type"] = [
        *made["tokenizer.ggml.token_type"],
        *(kind for _ in texts),
    ]
    if "tokenizer.ggml.scores" in made:
        made["tokenizer.ggml.scores"] = [*made["tokenizer.ggml.scores"], *(0.0 for _ in texts)]
    return made


@cache
def llama_cpp(path: Path) -> LlamaVocab:
    """The vocabulary of a file as llama.cpp opens it."""
    with GGUFFile.open(path) as file:
        return llama_vocabulary(file)
