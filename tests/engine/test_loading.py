"""From a path to an engine that answers: choices, refusals, and real models in a real child."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from engine.client import Engine
from engine.downloads.integrity import checksum_of, write_record
from engine.errors import (
    ContextError,
    EngineError,
    KtchatError,
    MemoryShortError,
    ModelFileError,
    RequestError,
    UnsupportedModelError,
)
from engine.gguf.file import GGUFFile
from engine.machine.probe import available_memory
from engine.plan.context import RESERVE, choose_context
from engine.plan.footprint import kv_row_bytes
from engine.protocol import (
    Event,
    Failed,
    Finished,
    Load,
    Loaded,
    Message,
    Notice,
    Prefilled,
    Progress,
    Sampling,
    Text,
)
from engine.spec.reader import read_spec
from engine.spec.spec import GroupSize, ModelSpec
from tests.support.engines import collect, text_of
from tests.support.foreign import internlm2
from tests.support.tiny import tiny_model

GREEDY = Sampling(temperature=0.0)
GIB = 1 << 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def spec(folder: Path) -> ModelSpec:
    with GGUFFile.open(tiny_model("qwen3moe", folder)) as file:
        return read_spec(file)


def sized(spec: ModelSpec, weights: int, kv: int, trained: int) -> ModelSpec:
    groups = {"experts": GroupSize(weights, weights)}
    return dataclasses.replace(spec, groups=groups, kv_bytes_per_token=kv, context=trained)


@pytest.mark.parametrize(
    ("weights", "kv", "trained", "free", "context"),
    [
        (1 * GIB, 1000, 4096, 16 * GIB, 4096),
        (1 * GIB, 1000, 262144, 16 * GIB, 32768),
        (1 * GIB, 262144, 262144, 16 * GIB, 16128),  # 16384 but for the scales
        (14 * GIB, 262144, 262144, 16 * GIB, 6912),  # 7168 but for a spare page
        (1 * GIB, 0, 40000, 2 * GIB, 32768),
        (1 * GIB, 1000, 100, 16 * GIB, 100),
        (1 * GIB, 1000, 5000, 16 * GIB, 5000),
    ],
)
def test_the_context_is_what_the_policy_says(
    spec: ModelSpec, weights: int, kv: int, trained: int, free: int, context: int
) -> None:
    assert choose_context(None, sized(spec, weights, kv, trained), free) == context


def test_a_context_asked_for_is_kept_or_refused_with_numbers(spec: ModelSpec) -> None:
    model = sized(spec, 2 * GIB, 1 << 20, 4096)
    assert choose_context(12345, model, 16 * GIB) == 12345
    with pytest.raises(MemoryShortError) as caught:
        choose_context(20000, model, 16 * GIB)
    page = 32 * kv_row_bytes(1 << 20, "f16")
    most = ((16 * GIB - 2 * GIB - RESERVE) // page - 1) * 32  # one of the pages is spare
    assert f"at most {most:,} tokens" in caught.value.todo
    assert "2.1 GB" in caught.value.why
    assert "20,000 tokens 21.3 GB" in caught.value.why
    assert "17.2 GB are free" in caught.value.why
    assert choose_context(most, model, 16 * GIB) == most
    for bad in (0, -5):
        with pytest.raises(RequestError):
            choose_context(bad, model, 16 * GIB)


def test_weights_that_do_not_fit_are_refused(spec: ModelSpec) -> None:
    with pytest.raises(MemoryShortError, match="smaller model"):
        choose_context(None, sized(spec, 17 * GIB, 1000, 4096), 16 * GIB)
    with pytest.raises(MemoryShortError):
        choose_context(None, sized(spec, 16 * GIB - RESERVE - 1000, 1000, 4096), 16 * GIB)


def groups(root: Path, cgroup: str, files: dict[str, str]) -> int:
    """Memory that is free under a made-up /proc and /sys/fs/cgroup."""
    (root / "self").mkdir()
    (root / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 8192 kB\n")
    (root / "self/cgroup").write_text(cgroup)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return available_memory(root, root / "cg")


MIB = 1 << 20


def test_free_memory_without_groups(tmp_path: Path) -> None:
    assert groups(tmp_path, "", {}) == 8 * MIB
    assert available_memory() > 100 * MIB


@pytest.mark.parametrize(
    ("cgroup", "files", "free"),
    [
        ("0::/a/b\n", {"cg/a/b/memory.max": "max", "cg/a/b/memory.current": "5"}, 8),
        (
            "0::/a/b\n",
            {
                "cg/a/memory.max": str(6 * MIB),
                "cg/a/memory.current": str(5 * MIB),
                "cg/a/memory.stat": f"anon 5\ninactive_file {MIB}\n",
            },
            2,
        ),
        (
            "4:memory:/x\n3:cpu:/y\n",
            {
                "cg/memory/x/memory.limit_in_bytes": str(4 * MIB),
                "cg/memory/x/memory.usage_in_bytes": str(3 * MIB),
            },
            1,
        ),
        ("0::/gone\n", {"cg/memory.max": str(3 * MIB), "cg/memory.current": "0"}, 3),
        ("0::/\n", {"cg/memory.max": str(3 * MIB), "cg/memory.current": str(4 * MIB)}, 0),
    ],
)
def test_free_memory_in_groups(
    tmp_path: Path, cgroup: str, files: dict[str, str], free: int
) -> None:
    assert groups(tmp_path, cgroup, files) == free * MIB


async def talk(path: Path, *words: str, **load: object) -> list[list[Event]]:
    """The events of loading and of each turn; turns make one conversation."""
    engine = Engine()
    try:
        answers = [await collect(engine.load(Load(str(path), **load)))]
        messages: list[Message] = []
        for word in words:
            messages.append(Message("user", word))
            answers.append(await collect(engine.generate(messages, GREEDY, 12)))
            messages.append(Message("assistant", text_of(answers[-1])))
        return answers
    finally:
        await engine.close()


def failure(events: list[Event]) -> KtchatError:
    assert isinstance(events[-1], Failed)
    assert "Traceback" not in str(events[-1].error)
    return events[-1].error


@pytest.mark.parametrize("runtime", ["native", "llama.cpp"])
async def test_a_tiny_model_talks(folder: Path, runtime: str) -> None:
    path = tiny_model("qwen3moe", folder)
    loading, first, second = await talk(
        path, "hello you", "and on", runtime=runtime, context=200, threads=1
    )
    loaded = loading[-1]
    assert isinstance(loaded, Loaded)
    assert (loaded.runtime, loaded.architecture, loaded.context) == (runtime, "qwen3moe", 200)
    assert loaded.weights_bytes > 0
    assert loaded.kv_bytes_per_token > 0
    assert not any(isinstance(event, Notice) for event in loading)
    progress = [event for event in loading if isinstance(event, Progress)]
    assert progress[-1].done == progress[-1].total > 0
    for events in (first, second):
        assert isinstance(events[-1], Finished)
        assert events[-1].figures.reply_tokens <= 12
        assert any(isinstance(event, Text) for event in events)
    assert second[-1].figures.cached_tokens >= first[-1].figures.prompt_tokens - 1


async def test_both_runtimes_say_the_same(folder: Path) -> None:
    path = tiny_model("llama", folder)
    replies = [
        [
            text_of(events)
            for events in (await talk(path, "hello", "go on", runtime=runtime, threads=1))[1:]
        ]
        for runtime in ("native", "llama.cpp")
    ]
    assert replies[0] == replies[1]


async def test_an_architecture_of_llama_cpp_is_noticed_and_answers(folder: Path) -> None:
    loading, reply = await talk(internlm2(folder), "hello", threads=1)
    assert loading[-1].runtime == "llama.cpp"
    (notice,) = [event.text for event in loading if isinstance(event, Notice)]
    assert "internlm2 runs on llama.cpp" in notice
    assert isinstance(reply[-1], Finished)
    (loading,) = await talk(internlm2(folder), runtime="native")
    assert isinstance(failure(loading), UnsupportedModelError)


async def test_a_prompt_longer_than_the_context_is_refused_with_numbers(folder: Path) -> None:
    _, reply = await talk(tiny_model("qwen3moe", folder), "hello " * 60, context=50)
    assert len(reply) == 1
    error = failure(reply)
    assert isinstance(error, ContextError)
    assert "holds 50" in error.why


async def test_files_that_are_no_models(folder: Path, tmp_path: Path) -> None:
    whole = tiny_model("qwen3moe", folder).read_bytes()
    bad = {"cut": whole[: len(whole) // 2], "nonsense": b"not a model", "empty": b""}
    for name, data in bad.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(data)
        (loading,) = await talk(path)
        assert isinstance(failure(loading), ModelFileError)
        assert name in str(failure(loading))
    (loading,) = await talk(tmp_path / "absent.gguf")
    assert isinstance(failure(loading), ModelFileError)
    (loading,) = await talk(tmp_path)
    assert isinstance(failure(loading), KtchatError)


async def test_a_context_that_cannot_fit_is_refused(folder: Path) -> None:
    (loading,) = await talk(tiny_model("qwen3moe", folder), context=1 << 40)
    assert isinstance(failure(loading), MemoryShortError)


async def test_a_context_beyond_the_training_is_noticed(folder: Path) -> None:
    (loading,) = await talk(tiny_model("qwen3moe", folder), context=2000)
    assert loading[-1].context == 2000
    assert any(isinstance(e, Notice) and "trained for 1,024" in e.text for e in loading)


async def test_a_file_that_changed_since_its_check_is_told_of_before_it_is_loaded(
    folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "pulled.gguf"
    path.write_bytes(tiny_model("qwen3moe", folder).read_bytes())
    write_record(path, checksum_of(path, "sha256"))
    (loading,) = await talk(path)
    assert not any(isinstance(event, Notice) for event in loading)
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    (loading,) = await talk(path)
    (notice,) = [event.text for event in loading if isinstance(event, Notice)]
    assert notice.startswith("pulled.gguf changed since it was checked")
    assert isinstance(loading[-1], Loaded)


async def test_one_child_takes_one_model_after_another(folder: Path) -> None:
    engine = Engine()
    for architecture in ("qwen3moe", "deepseek2", "qwen3moe"):
        path = tiny_model(architecture, folder)
        events = await collect(engine.load(Load(str(path), threads=1)))
        assert events[-1].architecture == architecture
        reply = await collect(engine.generate([Message("user", "hi")], GREEDY, 4))
        assert any(isinstance(event, Prefilled) for event in reply)
    await engine.close()


@pytest.mark.parametrize("runtime", ["native", "llama.cpp"])
async def test_a_file_that_shrinks_while_it_is_used(
    folder: Path, tmp_path: Path, runtime: str
) -> None:
    path = tmp_path / "shrinking.gguf"
    path.write_bytes(tiny_model("qwen3moe", folder).read_bytes())
    engine = Engine()
    await collect(engine.load(Load(str(path), runtime=runtime, threads=1)))
    os.truncate(path, 4096)
    events = await collect(engine.generate([Message("user", "hi there")], GREEDY, 4))
    assert isinstance(failure(events), EngineError)
    assert "the model file was shortened" in failure(events).why
    events = await collect(engine.generate([Message("user", "hi there")], GREEDY, 4))
    assert isinstance(failure(events), ModelFileError)
    await engine.close()
