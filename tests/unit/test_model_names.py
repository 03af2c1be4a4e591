"""What a model is called where its file's title is a label of its training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.common.model_names import is_label, model_name
from engine.gguf.file import GGUFFile
from engine.spec.reader import read_spec
from tests.support import toy_models

ROOT = Path(__file__).parents[2]
VOCABULARIES = ROOT.parent / "shared" / "data" / "vocabs"

LABELS = (
    "Checkpoint 1200",
    "checkpoint-1200",
    "Model",
    "hf_out",
    "merged",
    "Llm Model Merged v2",
    "Smollm2 135M 8k Lc100K Mix1 Ep2",  # the title of SmolLM2-135M-Instruct
    "C1899de289a04d12100db370d81485cdf75e47ca",
    "0d4b76e1efeb5eb6f6b5e757c79870472e04bd3a",
    "Snapshots",
    "tmpq3x_z81k",
    "workspace",
    "models",
    ".",
    "Bf16",
    "Global Step 500",
    "Output 7B",
)
NAMES = (
    "ktchat guide",
    "Qwen3 30B A3B Instruct 2507",
    "Step 3.5 Flash",
    "LLaMA v2",
    "mistralai_mixtral-8x7b-instruct-v0.1",
    "gpt-oss-20b",
    "Gemma 3 4b It",
    "Command R",
    "Dots1",
    "K2",
    "千问",
    "Decade",
)


@pytest.mark.parametrize("title", LABELS)
def test_a_label_gives_way_to_the_files_name(title: str) -> None:
    assert is_label(title)
    assert model_name(title, "Qwen3-30B-A3B-UD-Q4_K_XL-00001-of-00003.gguf") == "Qwen3-30B-A3B"


@pytest.mark.parametrize("title", NAMES)
def test_a_name_stays(title: str) -> None:
    assert model_name(title, "some-file-Q8_0.gguf") == title


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("SmolLM2-135M-Instruct.Q4_K_M.gguf", "SmolLM2-135M-Instruct"),
        ("a model.GGUF", "a model"),
        ("Q4_K_M.gguf", "Q4_K_M"),
        ("no-ending", "no-ending"),
        (".gguf", ".gguf"),
    ],
)
def test_the_files_name_without_what_is_said_beside_it(file: str, name: str) -> None:
    assert model_name(None, file) == model_name(" ", file) == model_name(7, file) == name


def test_a_label_stays_where_the_file_has_no_better_name() -> None:
    assert model_name("Checkpoint 1200", "model.gguf") == "Checkpoint 1200"


def test_every_model_of_the_catalogue_keeps_its_name() -> None:
    for model in json.loads((ROOT / "assets" / "catalog.json").read_text())["models"]:
        assert not is_label(model["name"])


@pytest.mark.skipif(not VOCABULARIES.is_dir(), reason="../shared/data/vocabs is not there")
def test_titles_of_real_files_are_names() -> None:
    files = [*VOCABULARIES.glob("*.gguf"), ROOT / "assets" / "ktchat-guide.gguf"]
    assert len(files) > 1
    for path in files:
        with GGUFFile.open(path) as file:
            title = file.metadata["general.name"]
            assert model_name(title, path.name) == title


def test_a_models_spec_has_the_name(tmp_path: Path) -> None:
    toy = toy_models.qwen3moe()
    toy.metadata["general.name"] = "Checkpoint 1200"
    with GGUFFile.open(toy.write(tmp_path, "Good-Name-F32.gguf")) as file:
        assert read_spec(file).name == "Good-Name"
