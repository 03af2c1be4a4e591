"""Files that hold no model to talk with: each gets its own sentence, and none is called damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.errors import UnsupportedModelError
from engine.gguf.file import GGUFFile
from engine.gguf.foreign_types import foreign_type
from engine.hub.names import is_model_file
from engine.spec.reader import read_spec
from kernels.quants import TYPES
from ktchat.library.models import describe
from tests.support import gguf_bytes as raw
from tests.support import toy_models
from tests.support.toy_models import Toy

Change = Callable[[Toy], object]


def refusal(path: Path) -> UnsupportedModelError:
    with pytest.raises(UnsupportedModelError) as caught, GGUFFile.open(path) as file:
        read_spec(file)
    return caught.value


def says(key: str, value: object) -> Change:
    return lambda toy: toy.metadata.__setitem__(key, value)


def is_called(architecture: str) -> Change:
    return lambda toy: setattr(toy, "architecture", architecture)


def predicts_only(toy: Toy) -> None:
    """As the official converter writes it with --mtp: embedding, output, and the blocks behind the last layer."""
    toy.metadata |= {"block_count": 3, "nextn_predict_layers": 1}
    toy.tensors = {
        name.replace("blk.0.", "blk.2."): shape
        for name, shape in toy.tensors.items()
        if not name.startswith("blk.1.")
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (says("general.type", "mmproj"), "is the image part of a model"),
        (is_called("clip"), "is the image part of a model"),
        (says("general.type", "adapter"), "is an adapter (LoRA)"),
        (says("general.type", "imatrix"), "is an importance matrix"),
        (is_called("controlvector"), "is a control vector"),
        (is_called("bert"), "is an embedding model"),
        (says("attention.causal", False), "is an embedding model"),
        (says("pooling_type", 3), "is an embedding model"),
        (says("pooling_type", 4), "is a reranker"),
        (is_called("eagle3"), "is a draft model"),
        (is_called("gemma4-assistant"), "is a draft model"),
        (is_called("flux"), "is a model for pictures or video"),
        (is_called("qwen3tts"), "is a model for speech"),
        (is_called("llada"), "is a diffusion model"),
        (is_called("t5"), "does not converse"),
        (is_called("gptoss"), "is made by Ollama for its own engine"),
        (is_called("mllama"), "Take Llama 3.2 Vision as a GGUF file for llama.cpp"),
        (lambda toy: toy.tensors.__setitem__("v.patch_embd.weight", (8, 8)), "is made by Ollama"),
        (lambda toy: toy.tensors.clear(), "is a vocabulary only"),
        (predicts_only, "predicts further tokens (MTP)"),
    ],
)
def test_each_has_its_own_sentence(tmp_path: Path, change: Change, words: str) -> None:
    toy = toy_models.llama()
    change(toy)
    path = toy.write(tmp_path, "file.gguf")
    error = refusal(path)
    assert words in str(error) and error.why and error.todo
    assert "damaged" not in str(error) and "Download the file again" not in str(error)
    listed = describe(str(path))
    assert words in listed.error and not listed.runtime


@pytest.mark.parametrize("change", [says("pooling_type", 0), says("attention.causal", True)])
def test_a_chat_model_may_have_the_same_keys(tmp_path: Path, change: Change) -> None:
    toy = toy_models.llama()
    change(toy)
    with GGUFFile.open(toy.write(tmp_path)) as file:
        assert read_spec(file).native


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (135, "is quantised for ik_llama.cpp. Its tensor t is stored as IQ2_BN. Take a version in"),
        (339, "stored as IQ4_K_R4. Take the version in IQ4_K, without _R4"),
        (
            223,
            "with its rows interleaved. Its tensor t is stored as IQ4_XS_R8. Take the version in IQ4_XS",
        ),
        (398, "stored as Q8_KV_R8. Take a version in another of its types"),
        (33, "is quantised for an old llama.cpp. Its tensor t is stored as Q4_0_8_8. Take"),
    ],
)
def test_types_of_others_are_named(tmp_path: Path, number: int, words: str) -> None:
    entries = [raw.entry("general.architecture", raw.STRING, "llama")]
    path = tmp_path / "ubergarm.gguf"
    path.write_bytes(
        raw.File(entries, [raw.tensor("t", [256, 8], number, 0)], bytes(1 << 12)).build()
    )
    error = refusal(path)
    assert words in str(error)
    assert words in describe(str(path)).error


def test_no_type_is_both_ours_and_foreign() -> None:
    assert not [number for number in TYPES if foreign_type(number)]
    assert foreign_type(43) is None and foreign_type(400) is None


@pytest.mark.parametrize(
    ("name", "offered"),
    [
        ("Qwen3.6-35B-A3B-Q4_K_M.gguf", True),
        ("smtp-assistant-Q4_K_M.gguf", True),
        ("mtp-Qwen3.6-35B-A3B-Q8_0.gguf", False),
        ("Llama-3.3-70B-EAGLE3-F16.gguf", False),
        ("gpt-oss-20b-dflash-Q8_0.gguf", False),
        ("qwen3-lora-adapter-F16.gguf", False),
    ],
)
def test_the_hubs_other_files_are_not_offered(name: str, offered: bool) -> None:
    assert is_model_file(f"folder/{name}") is offered
