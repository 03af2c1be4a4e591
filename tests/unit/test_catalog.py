"""The catalogue: what it says is checked, and its arithmetic agrees with published numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.catalog import catalog
from engine.catalog.tensors import MIXES, group_sizes, spec_of
from engine.common.json_files import DataFileError, assets_folder
from engine.errors import RequestError
from engine.machine import profiles
from tests.support.clock import computed_within
from tests.support.plans import GPT_OSS, MIXTRAL, QWEN3_30B, machine

WANTED = {
    "Qwen3-30B-A3B-Instruct-2507", "Qwen3-30B-A3B-Thinking-2507", "Qwen3-Coder-30B-A3B-Instruct",
    "Qwen3-235B-A22B-Instruct-2507", "Qwen3-Next-80B-A3B-Instruct", "Qwen3-Coder-Next",
    "Qwen3.5-122B-A10B", "Qwen3.5-397B-A17B", "Qwen3.6-35B-A3B", "Gemma-4-26B-A4B-it",
    "DeepSeek-V2-Lite-Chat", "DeepSeek-V3.1", "DeepSeek-V3.2", "DeepSeek-R1-0528",
    "Kimi-K2-Instruct-0905", "Kimi-K2-Thinking", "Kimi-K2.6", "GLM-4.5-Air", "GLM-4.6", "GLM-4.7",
    "GLM-4.7-Flash", "MiniMax-M2.7", "gpt-oss-20b", "gpt-oss-120b", "Mixtral-8x7B-Instruct-v0.1",
}  # fmt: skip

ACTIVE = {
    "Qwen3-30B-A3B-Instruct-2507": 3.3e9, "Qwen3-235B-A22B-Instruct-2507": 22e9,
    "Qwen3-Next-80B-A3B-Instruct": 3.9e9, "DeepSeek-V2-Lite-Chat": 2.4e9,
    "Qwen3.5-122B-A10B": 10e9, "Qwen3.5-397B-A17B": 17e9, "Gemma-4-26B-A4B-it": 3.8e9,
    "DeepSeek-V3.1": 37e9, "Kimi-K2-Instruct-0905": 32e9, "GLM-4.7": 32e9, "MiniMax-M2.7": 9.8e9,
    "GLM-4.5-Air": 12.5e9, "GLM-4.7-Flash": 3.6e9, "gpt-oss-20b": 3.6e9, "gpt-oss-120b": 5.1e9,
    "Mixtral-8x7B-Instruct-v0.1": 12.9e9,
}  # fmt: skip
"""Active parameters as published; some count the embedding."""


def named(name: str) -> catalog.CatalogModel:
    found = catalog.find(name)
    assert found is not None
    return found


def test_the_models_that_people_run_are_there() -> None:
    models = catalog.load()
    assert {model.name for model in models} >= WANTED
    for model in models:
        assert model.licence and model.good_at and model.base.count("/") == 1
        assert catalog.find(model.id) is catalog.find(model.name.upper()) is model
    assert catalog.find("nothing") is None


@pytest.mark.parametrize("model", catalog.load(), ids=lambda model: model.id)
def test_computed_parameters_are_the_published_ones(model: catalog.CatalogModel) -> None:
    spec = model.spec(model.quants[0].name)
    assert spec.parameters == pytest.approx(model.parameters, rel=0.02)
    if model.name in ACTIVE:
        assert spec.active_parameters == pytest.approx(ACTIVE[model.name], rel=0.10)


@pytest.mark.parametrize("model", catalog.load(), ids=lambda model: model.id)
def test_computed_sizes_are_the_listed_ones(model: catalog.CatalogModel) -> None:
    for quant in model.quants:
        computed = sum(size.bytes for size in group_sizes(model.numbers, quant.name).values())
        rel = 0.1 if quant.name.startswith("UD-") else 0.006
        assert computed == pytest.approx(quant.bytes, rel=rel), quant.name
        assert model.spec(quant.name).weights_bytes <= quant.bytes
        if not model.numbers.extra_layers:
            assert model.spec(quant.name).weights_bytes == quant.bytes


def test_kv_bytes_of_known_models() -> None:
    assert named("deepseek-v3.1").numbers.kv_bytes_per_token == 70272  # 576 values, 61 layers
    assert named("qwen3-30b-a3b-instruct").numbers.kv_bytes_per_token == 98304
    assert named("qwen3-next-80b-a3b-instruct").numbers.kv_bytes_per_token == 12 * 2048
    assert named("gpt-oss-20b").numbers.kv_bytes_per_token == 12 * 2048  # half of its layers


def test_what_runs_a_model() -> None:
    runs = {model.id: model.runtime for model in catalog.load()}
    assert runs["qwen3-30b-a3b-instruct"] == runs["kimi-k2"] == runs["mixtral-8x7b"] == "native"
    assert runs["glm-4.7-flash"] == "native"
    assert runs["glm-4.5-air"] == runs["minimax-m2.7"] == "native"
    assert runs["gpt-oss-20b"] == "native"
    assert runs["deepseek-v3.2"] == "llama.cpp"
    assert runs["qwen3-next-80b-a3b-instruct"] == "native"


def test_listed_sizes_win_over_computed_ones() -> None:
    spec = spec_of(QWEN3_30B, "x", "Q4_K_M", 18_600_000_000)
    assert spec.weights_bytes == 18_600_000_000
    assert spec.groups["attention"] == group_sizes(QWEN3_30B, "Q4_K_M")["attention"]
    for numbers in (QWEN3_30B, GPT_OSS, MIXTRAL):
        for quant in MIXES:
            assert spec_of(numbers, "x", quant).weights_bytes > 0


def test_quantisations_by_name_in_any_case() -> None:
    model = named("mixtral-8x7b")
    assert model.quant("q4_k_m").name == "Q4_K_M"
    assert model.ref(model.quant("Q6_K")) == "MaziyarPanahi/Mixtral-8x7B-Instruct-v0.1-GGUF:Q6_K"
    with pytest.raises(RequestError, match="Q5_K_M"):
        model.quant("Q9")


def test_the_best_of_about_four_bits_is_chosen_and_smaller_ones_where_it_does_not_fit() -> None:
    model = named("qwen3-30b-a3b-instruct")
    assert catalog.choose(model, machine(64)).quant.name == "Q4_K_M"
    assert catalog.choose(model, machine(17)).quant.name == "Q3_K_M"
    assert catalog.choose(model, machine(12)).quant.name == "Q2_K"
    assert not catalog.choose(model, machine(4)).plan.fits
    assert catalog.choose(model, machine(64), quant="Q8_0").quant.name == "Q8_0"
    assert catalog.choose(named("deepseek-v2-lite"), machine(64)).quant.name == "Q4_K_M"
    assert catalog.choose(model, machine(64), 1000).plan.context == 1000


def test_the_ranking_puts_the_best_that_fits_first_and_what_lacks_most_last() -> None:
    ranked = catalog.rank(catalog.load(), machine(64))
    assert len(ranked) == len(catalog.load())
    fits = [entry.plan.fits for entry in ranked]
    assert fits == sorted(fits, reverse=True) and True in fits and False in fits
    usable = [entry.quality for entry in ranked if entry.usable]
    assert usable == sorted(usable, reverse=True)
    shorts = [entry.plan.short_bytes for entry in ranked if not entry.plan.fits]
    assert shorts == sorted(shorts)
    assert ranked[0].plan.decode_tok_s and ranked[-1].model.id.startswith("kimi-k2")


def test_slow_models_come_after_those_one_can_talk_with() -> None:
    ranked = catalog.rank(catalog.load(), machine(1000, bandwidth=20))
    speeds = [entry.plan.decode_tok_s or 0.0 for entry in ranked]
    slow = [speed < catalog.USABLE_TOK_S for speed in speeds]
    assert slow == sorted(slow) and True in slow and False in slow


def test_small_quantisations_lose_quality() -> None:
    model = named("qwen3-30b-a3b-instruct")
    good = catalog.choose(model, machine(64), quant="Q4_K_M")
    poor = catalog.choose(model, machine(64), quant="Q2_K")
    assert poor.quality < good.quality == model.quality


def test_ranking_is_quick_on_every_profile() -> None:
    catalog.rank(catalog.load(), machine(64, 24))
    with computed_within(10):
        for name in profiles.names():
            assert catalog.rank(catalog.load(), profiles.load(name))


# files that lie


def entry(**change: Any) -> dict[str, Any]:
    data = json.loads((assets_folder() / "catalog.json").read_text())
    model: dict[str, Any] = data["models"][0]
    for path, value in change.items():
        target: Any = model
        *outer, last = path.split("__")
        for key in outer:
            target = target[int(key)] if key.isdigit() else target[key]
        target[last] = value
    return model


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"id": "../x"}, "id"),
        ({"id": 3}, "id"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\x1b[31m"}, "name"),
        ({"repository": "../../etc"}, "repository"),
        ({"repository": "https://x/y"}, "repository"),
        ({"repository_status": "sure"}, "repository_status"),
        ({"released": "2026-13"}, "released"),
        ({"released": "2026-4"}, "released"),
        ({"released": 2026}, "released"),
        ({"quality": 101}, "quality"),
        ({"parameters": 0}, "parameters"),
        ({"numbers": None}, "numbers"),
        ({"numbers__layers": 0}, "layers"),
        ({"numbers__layers": 1 << 40}, "layers"),
        ({"numbers__hidden": True}, "hidden"),
        ({"numbers__top_k": 129}, "top_k"),
        ({"numbers__qk_norm": 1}, "qk_norm"),
        ({"numbers__window": 128}, "window"),
        ({"numbers__experts_width": 768}, "experts_width"),
        ({"quants": []}, "quants"),
        ({"quants__0__name": "Q4"}, "name"),
        ({"quants__0__size": "guessed"}, "size"),
        ({"quants__2__bytes": None}, "bytes"),
        ({"quants__2__bytes": -5}, "bytes"),
        ({"quants__1__name": "Q2_K"}, "quants"),
    ],
)
def test_a_catalogue_that_says_nonsense_is_refused(
    change: dict[str, Any], field: str, tmp_path: Path
) -> None:
    path = tmp_path / "catalog.json"
    path.write_text(json.dumps({"format": 1, "models": [entry(**change)]}))
    with pytest.raises(DataFileError) as caught:
        catalog.read(path)
    assert field in caught.value.why and "\x1b" not in str(caught.value)


def test_a_catalogue_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "catalog.json"
    for data in ({"format": 2, "models": [entry()]}, {"format": 1, "models": []},
                 {"format": 1, "models": [entry(), entry()]}, {"format": 1, "models": 3}, []):  # fmt: skip
        path.write_text(json.dumps(data))
        with pytest.raises(DataFileError):
            catalog.read(path)
    path.write_text(json.dumps({"format": 1, "models": [entry()]}))
    assert catalog.read(path)[0].id == catalog.load()[0].id
    with pytest.raises(DataFileError, match="cannot be read"):
        catalog.read(tmp_path / "none.json")
