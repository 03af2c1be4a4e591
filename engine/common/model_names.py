"""What a model is called: by the title in its file, or by the file's name where that title is a training label."""

from __future__ import annotations

import re
from pathlib import PurePath

from engine.common.split_names import split_part

QUANTISATION = re.compile(
    r"(?<![A-Za-z0-9])"
    r"(UD-)?((?:IQ[1-4]_(?:XXS|XS|S|M|NL)|IQ[1-6]_K(?:SS|S|L|T)?|Q[2-8]_K(?:_(?:XXS|XS|XL|S|M|L))?|Q[1-8]_[01]"
    r"|TQ[12]_0|MXFP4(?:_MOE)?|NVFP4|BF16|F16|FP16|F32|FP32)(?:_R(?:4|8|16))?)"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
"""A quantisation in a file's name."""

_GENERAL = frozenset(
    [
        "a",
        "adapter",
        "base",
        "best",
        "bf",
        "bin",
        "checkpoint",
        "checkpoints",
        "ckpt",
        "convert",
        "converted",
        "data",
        "default",
        "dequantized",
        "dir",
        "dpo",
        "dump",
        "epoch",
        "epochs",
        "export",
        "exported",
        "exports",
        "file",
        "final",
        "fine",
        "finetune",
        "finetuned",
        "ft",
        "full",
        "fused",
        "gguf",
        "ggml",
        "git",
        "global",
        "grpo",
        "hf",
        "hub",
        "huggingface",
        "in",
        "instruct",
        "it",
        "iter",
        "iteration",
        "iters",
        "last",
        "latest",
        "llm",
        "lm",
        "local",
        "lora",
        "main",
        "merge",
        "merged",
        "model",
        "models",
        "my",
        "new",
        "none",
        "null",
        "old",
        "orig",
        "original",
        "out",
        "output",
        "outputs",
        "peft",
        "ppo",
        "pretrained",
        "pth",
        "pytorch",
        "qlora",
        "quant",
        "quantized",
        "quantised",
        "repo",
        "result",
        "results",
        "rl",
        "rlhf",
        "root",
        "run",
        "runs",
        "safetensor",
        "safetensors",
        "sft",
        "snapshot",
        "snapshots",
        "step",
        "steps",
        "temp",
        "test",
        "the",
        "tmp",
        "torch",
        "train",
        "trained",
        "trainer",
        "training",
        "transformers",
        "tuned",
        "tuning",
        "unknown",
        "unquantized",
        "unsloth",
        "untitled",
        "v",
        "version",
        "weights",
        "work",
        "workspace",
    ]
)
"""Words of folders and runs: a title of nothing else names no model."""
_RUN = re.compile(r"(?:checkpoint|ckpt|epoch)s?\d*|(?:ep|mix|iter|step)\d+")
"""A word that tells how far a training was: it makes any title a label."""
_NUMBER = re.compile(r"v?\d+(?:\.\d+)*[bkm]?|[bf]f?p?(?:8|16|32)|int[48]")
_HASH = re.compile(r"(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7,}|[0-9a-f]{32,}")
_TEMPORARY = re.compile(r"tmp[a-z0-9_]{6,}")


def model_name(title: object, file_name: str) -> str:
    """The title (`general.name`) in a model's file; where there is none, or it is a label of its training or of a
    folder, the name of the file, without its quantisation and its number in a split model. Not yet safe to draw."""
    words = title.strip() if isinstance(title, str) else ""
    from_file = _from_file(file_name)
    if words and not is_label(words):
        return words
    return from_file if not (words and is_label(from_file)) else words


def is_label(title: str) -> bool:
    """Whether a title says nothing of which model it is: `Checkpoint 1200`, `hf_out`, `merged`, a hash."""
    words = re.findall(r"[^\W_]+(?:\.\d+)*", title.lower())
    whole = title.strip().lower()
    if _TEMPORARY.fullmatch(whole) or any(_RUN.fullmatch(word) for word in words):
        return True
    return all(
        word.rstrip("0123456789") in _GENERAL or _NUMBER.fullmatch(word) or _HASH.fullmatch(word)
        for word in words
    )


def _from_file(name: str) -> str:
    part = split_part(name)
    stem = part.stem if part is not None else re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE)
    found = list(QUANTISATION.finditer(stem))
    if (
        found
        and not stem[found[-1].end() :].strip("-._ ")
        and stem[: found[-1].start()].strip("-._ ")
    ):
        stem = stem[: found[-1].start()].rstrip("-._ ")
    return stem or PurePath(name).stem
