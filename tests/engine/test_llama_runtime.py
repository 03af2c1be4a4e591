"""llama.cpp as a runtime: logits, prefixes, cancelling, silence and failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.errors import EngineError, ModelFileError
from engine.runtimes import llama_buffers
from engine.runtimes.base import CancelFlag, CancelledError, Floats
from engine.runtimes.llama_cpp import CHUNK, LlamaCppRuntime
from tests.support.clock import within
from tests.support.foreign import internlm2, mamba
from tests.support.tiny import quantise, tiny_model

PROMPT = [(7 * i * i + 3 * i) % 250 for i in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module", params=[internlm2, mamba])
def path(request: pytest.FixtureRequest, folder: Path) -> Path:
    return request.param(folder)


@pytest.fixture
def runtime(path: Path) -> Iterator[LlamaCppRuntime]:
    loaded = LlamaCppRuntime.load(path, 256, 1)
    yield loaded
    loaded.close()


def run(runtime: LlamaCppRuntime, tokens: list[int], chunk: int = 256) -> Floats:
    """Logits after `tokens`, whatever of them was cached."""
    cached = runtime.begin(tokens)
    logits = None
    for start in range(cached, len(tokens), chunk):
        logits = runtime.forward(tokens[start : start + chunk])
    assert logits is not None
    return logits.copy()


def close(one: Floats, other: Floats) -> bool:
    return bool(np.allclose(one, other, atol=1e-4 * float(np.abs(other).max()) + 1e-5))


def test_the_runtime_says_what_it_is(runtime: LlamaCppRuntime, path: Path) -> None:
    assert (runtime.name, runtime.context, runtime.chunk) == ("llama.cpp", 256, 256)
    assert runtime.vocab_size > 256
    assert 0 < runtime.weights_bytes < path.stat().st_size


def test_chunks_and_single_tokens_give_the_same_logits(runtime: LlamaCppRuntime) -> None:
    whole = run(runtime, PROMPT)
    assert whole.dtype == np.float32
    assert whole.shape == (runtime.vocab_size,)
    assert np.isfinite(whole).all()
    for chunk in (1, 7):
        runtime.begin([249])
        assert close(run(runtime, PROMPT, chunk), whole)


def test_a_prefix_is_reused_where_the_memory_can_be_cut(
    runtime: LlamaCppRuntime, path: Path
) -> None:
    whole = run(runtime, PROMPT)
    other = run(runtime, [*PROMPT[:30], 5, 6, 7])
    cached = runtime.begin(PROMPT)
    assert cached == (30 if path.stem == "internlm2" else 0)
    assert close(run(runtime, PROMPT), whole)
    assert close(run(runtime, [*PROMPT[:30], 5, 6, 7]), other)


def test_going_on_reuses_everything(runtime: LlamaCppRuntime) -> None:
    run(runtime, PROMPT)
    runtime.forward([9])
    assert runtime.begin([*PROMPT, 9, 10]) == len(PROMPT) + 1


def test_the_same_prompt_again_keeps_all_but_one_token_or_nothing(
    runtime: LlamaCppRuntime, path: Path
) -> None:
    whole = run(runtime, PROMPT)
    assert runtime.begin(PROMPT) == (len(PROMPT) - 1 if path.stem == "internlm2" else 0)
    assert close(run(runtime, PROMPT), whole)


def test_the_whole_context_can_be_filled(runtime: LlamaCppRuntime) -> None:
    tokens = [index % 250 for index in range(256)]
    assert np.isfinite(run(runtime, tokens, 100)).all()
    assert close(run(runtime, PROMPT), run(runtime, PROMPT, 3))


def test_cancelled_in_the_middle_of_a_chunk(folder: Path) -> None:
    flag = CancelFlag()
    runtime = LlamaCppRuntime.load(internlm2(folder), 1024, 1, cancelled=flag)
    tokens = [index % 250 for index in range(CHUNK)]
    whole = run(runtime, tokens, CHUNK)
    runtime.begin([1])
    flag.set()
    runtime.begin(tokens)
    with pytest.raises(CancelledError):
        runtime.forward(tokens)
    flag.clear()
    assert runtime.begin(tokens) == 0
    assert close(run(runtime, tokens, CHUNK), whole)
    runtime.close()


def test_a_cancelled_recurrent_state_starts_anew(folder: Path) -> None:
    flag = CancelFlag()
    runtime = LlamaCppRuntime.load(mamba(folder), 256, 1, cancelled=flag)
    whole = run(runtime, PROMPT)
    run(runtime, PROMPT[:20])
    flag.set()
    with pytest.raises(CancelledError):
        runtime.forward(PROMPT[20:])
    flag.clear()
    assert close(run(runtime, PROMPT), whole)
    runtime.close()


@pytest.mark.xdist_group("clock")
def test_another_thread_cancels_soon(folder: Path) -> None:
    flag = CancelFlag()
    runtime = LlamaCppRuntime.load(internlm2(folder), 4096, 1, cancelled=flag)
    runtime.begin([1] * 4000)
    promise = within(0.5)

    def cancel() -> None:
        time.sleep(0.02)
        promise.begin()
        flag.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(CancelledError):
        while True:
            runtime.begin([2])
            for _ in range(7):
                runtime.forward([1] * CHUNK)
    promise.check()
    thread.join()
    runtime.close()


def test_loading_prints_nothing_and_reports_progress(
    path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    steps: list[tuple[int, int]] = []
    runtime = LlamaCppRuntime.load(path, 64, 1, lambda done, total: steps.append((done, total)))
    runtime.begin([1, 2])
    runtime.forward([1, 2])
    runtime.close()
    runtime.close()
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "llama_model_loader" not in captured.err
    assert steps == sorted(steps)
    assert steps[-1][0] == steps[-1][1] > 0


def test_a_file_that_llama_cpp_refuses_is_a_typed_error(path: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(path.read_bytes()[:-4096])
    with pytest.raises(ModelFileError, match=r"llama\.cpp cannot load broken\.gguf") as caught:
        LlamaCppRuntime.load(broken, 64, 1)
    assert caught.value.why


def test_a_token_outside_the_vocabulary_is_a_typed_error(runtime: LlamaCppRuntime) -> None:
    whole = run(runtime, PROMPT)
    runtime.begin([1])
    with pytest.raises(EngineError, match=r"llama\.cpp failed"):
        runtime.forward([1 << 30])
    assert close(run(runtime, PROMPT), whole)


def test_stacked_matrices_are_left_alone_where_amx_would_take_them(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    latent = tiny_model("deepseek2", models, variant="v3-split", expert_type="F32")
    quantised = quantise(latent, "Q5_K", only_experts=False)
    grouped = tiny_model("qwen3moe", models, expert_type="Q4_K")
    monkeypatch.setattr(llama_buffers, "_has_amx", lambda: True)
    assert not llama_buffers.may_rearrange(quantised) and llama_buffers.may_rearrange(grouped)
    monkeypatch.setattr(llama_buffers, "_has_amx", lambda: False)
    assert llama_buffers.may_rearrange(quantised)
