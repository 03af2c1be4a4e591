"""What each token of a vocabulary is for, as llama.cpp finds it (`llama_vocab::impl::load` there).

Files say less than one would like: what ends a reply is found by the tokens' texts. Where llama.cpp's own choice hangs on
the order of a hash table, or a rule for a single model would be needed, nothing is certain, and `roles_of` is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.gguf.file import GGUFFile

UNKNOWN, UNUSED, NORMAL, CONTROL, USER_DEFINED, BYTE = (1 << bit for bit in range(6))
STRIP_LEFT, STRIP_RIGHT = 1 << 7, 1 << 8
"""llama_token_attr."""
TYPES = "tokenizer.ggml.token_type"


def _raw(*texts: str) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in texts)


_OF_TYPE = (0, NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE)
"""By the token types of a GGUF; those behind them are nothing."""
_ENDS = _raw(
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>"),
    *("<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]"),
    *("<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>"),
    *("<｜end▁of▁sentence｜>", "[e~["),
)
"""Tokens that end a reply, whatever a file calls them."""
_FILL_IN = {
    "fim_pre": _raw(
        *("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>"),
        *("<|code_prefix|>", "<|prefix|>"),
    ),
    "fim_suf": _raw(
        *("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>"),
        *("<|code_suffix|>", "<|suffix|>"),
    ),
    "fim_mid": _raw(
        *("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>"),
        *("<|code_middle|>", "<|middle|>"),
    ),
    "fim_pad": _raw("<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"),
    "fim_rep": _raw("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"),
    "fim_sep": _raw("<|file_sep|>"),
}
"""Tokens for filling in the middle of code, by the texts that models give them."""
_END_TOO = ("fim_pad", "fim_rep", "fim_sep")
_OLD_NAMES = {"fim_pre": "prefix", "fim_suf": "suffix", "fim_mid": "middle"}
_ALWAYS_SHOWN = _raw("<|channel|>", "<|message|>", "<|start|>", "<|constrain|>")
"""Harmony's, which llama.cpp shows as text."""
_OWN_RULES = ("phi-3", "phi3", "modern-bert")
"""Names of models whose tokens strip what is beside them."""
_BOS_FIRST = (
    *("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
    *("tekken", "gemma4"),
)
_NO_BOS = ("chatglm-bpe", "glm4", "glm5")
_DEFAULTS = {"llama": (1, 2), "gemma4": (-1, -1)}
"""What begins and ends a text where a file does not say."""


@dataclass(frozen=True, slots=True)
class Roles:
    """What is known of a vocabulary's tokens beside their texts; -1: there is no such token."""

    attributes: NDArray[np.int32]
    """llama_token_attr of each."""
    ends: frozenset[int]
    bos: int
    eos: int
    adds_bos: bool


def roles_of(file: GGUFFile, names: Sequence[bytes], model: str, pre: str) -> Roles | None:
    """The roles of tokens by these names, in a vocabulary of a model and with words of a kind as the file
    calls them. None: not certain."""
    if any(rule in str(file.metadata.get("general.name", "")).lower() for rule in _OWN_RULES):
        return None
    ids = dict(zip(names, range(len(names)), strict=True))
    finder = _Finder(file, ids, len(names))
    attributes = _attributes(file, len(names))
    bos, eos = _DEFAULTS.get(model, (-1 if pre in _NO_BOS else 11, 11))
    bos, eos = finder.special("bos", bos), finder.special("eos", eos)
    eot, eom = finder.special("eot", -1), finder.special("eom", -1)
    eom = finder.by_text(_raw("<|eom_id|>"), attributes) if eom < 0 else eom
    fills = {role: finder.special(role, -1, _OLD_NAMES.get(role)) for role in _FILL_IN}
    for role, texts in _FILL_IN.items():
        if fills[role] < 0:
            fills[role] = finder.by_text(texts, attributes)
    if finder.doubtful:
        return None
    ends = {fills[role] for role in _END_TOO} | {eos, eot, eom}
    by_text = {ids[text] for text in _ENDS if text in ids}
    for token in by_text:
        attributes[token] |= CONTROL
    if eot < 0:
        ends |= by_text  # the one that llama.cpp takes for it is among them
    ends = (ends | by_text) - {-1}
    for token in np.flatnonzero(attributes & CONTROL).tolist():
        if b"unused" in names[token]:
            attributes[token] |= UNUSED
    for text in _ALWAYS_SHOWN:
        if text in ids:
            attributes[ids[text]] = USER_DEFINED
    _corrected(ends, attributes, ids)
    adds = finder.flag("add_bos_token", model == "llama" or pre in _BOS_FIRST) or pre == "gemma4"
    return None if finder.doubtful else Roles(attributes, frozenset(ends), bos, eos, adds)


class _Finder:
    """Looks tokens up in a file's keys and by their texts, and remembers when it was in doubt."""

    def __init__(self, file: GGUFFile, ids: Mapping[bytes, int], count: int) -> None:
        self.doubtful = len(ids) < count
        self._file, self._ids, self._count = file, ids, count

    def special(self, role: str, default: int, old: str | None = None) -> int:
        """The token of a role: the one that a key names, if it is one."""
        token = default if default < self._count else -1
        for name in (f"{role}_token_id", f"{old}_token_id" if old else None):
            value = self._file.metadata.get(f"tokenizer.ggml.{name}") if name else None
            if value is None:
                continue
            if type(value) is not int or value < 0:
                self.doubtful = True
            elif value < self._count:
                token = value
        return token

    def by_text(self, texts: Iterable[bytes], attributes: NDArray[np.int32]) -> int:
        """The token with one of these texts, which becomes a control token; in doubt where there are more."""
        found = [self._ids[text] for text in texts if text in self._ids]
        self.doubtful |= len(found) > 1
        for token in found:
            attributes[token] |= CONTROL
        return found[0] if found else -1

    def flag(self, name: str, default: bool) -> bool:
        """A file's yes or no."""
        value = self._file.metadata.get(f"tokenizer.ggml.{name}", default)
        self.doubtful |= not isinstance(value, bool)
        return bool(value)


def _attributes(file: GGUFFile, count: int) -> NDArray[np.int32]:
    types = file.array(TYPES)
    if types is None:
        return np.full(count, NORMAL, np.int32)
    kinds = types.numpy()[:count]
    known = np.where((kinds >= 0) & (kinds < len(_OF_TYPE)), kinds, 0)
    return np.array(_OF_TYPE, np.int32)[known]


def _corrected(ends: set[int], attributes: NDArray[np.int32], ids: Mapping[bytes, int]) -> None:
    """What llama.cpp takes out of the ends again, by what else there is."""
    there = {text for text, token in ids.items() if token in ends}
    call = {b"<|call|>", b"<|calls|>"} & there
    if b"<|end|>" in there and call and {b"<|return|>", b"<|flush|>"} & there:
        ends.discard(ids[b"<|end|>"])
        attributes[ids[b"<|end|>"]] = USER_DEFINED
    if b"</s>" in there and {b"<|tool_response>", b"<|plamo:eos|>"} & there:
        ends.discard(ids[b"</s>"])
        attributes[ids[b"</s>"]] = NORMAL
