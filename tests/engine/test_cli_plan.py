"""`ktchat plan` and `ktchat doctor` as programs of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from engine.evaluation.synthetic import shape_file
from engine.gguf.file import GGUFFile, LazyArray
from engine.gguf.writer import TensorPlan, write_gguf
from ktchat.cli import main
from tests.support.cli import Program
from tests.support.hub_server import Repo, hub_server
from tests.support.tiny import tiny_model


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "home").knows_the_machine()


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_plan_of_a_file_fits_the_terminal(columns: int, program: Program, tmp_path: Path) -> None:
    path = tiny_model("qwen3moe", tmp_path)
    done = program.run("plan", str(path), env={"COLUMNS": str(columns)})
    assert done.returncode == 0 and not done.stderr
    lines = done.stdout.splitlines()
    assert "runs on the CPU" in lines[0] and "Context" in lines[1]
    assert all(len(line) <= max(columns, 40) for line in lines if line.startswith(("  ", "RAM")))


def test_a_model_that_does_not_fit_ends_with_one(program: Program) -> None:
    done = program.run("plan", "kimi-k2", "--profile", "4090-64gb")
    assert done.returncode == 1
    assert "short by" in done.stdout.splitlines()[0]
    assert done.stderr.count("\n") == 1 and "does not fit: short by" in done.stderr


MODEL = "Qwen3-Coder-30B-A3B-Instruct:q4_k_m"


def test_a_plan_with_a_gpu_says_what_goes_there_and_that_its_speed_is_predicted(
    program: Program,
) -> None:
    done = program.run("plan", MODEL, "--profile", "4060-32gb")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert "runs on GPU and CPU" in lines[0] and "not yet measured on a GPU" in lines[2]
    assert any(line.startswith("RTX 4060 · ") for line in lines)
    assert "VRAM holds" in done.stdout and done.stdout.count("routed experts ") >= 2
    alone = program.run("plan", MODEL, "--profile", "4060-32gb", "--device", "cpu")
    assert "runs on the CPU" in alone.stdout.splitlines()[0] and "RTX" not in alone.stdout


def test_the_context_and_its_cache_may_be_chosen(program: Program) -> None:
    def context(*options: str) -> int:
        done = program.run("plan", MODEL, "--profile", "4060-32gb", "--json", *options)
        plan = json.loads(done.stdout)
        assert plan["placement"]["context"] == plan["context"]
        return int(plan["context"])

    assert context("--ctx", "9000") == 9000
    longest = context("--ctx", "auto")
    assert context() < longest < context("--ctx", "auto", "--kv", "q8")


def test_a_plan_as_json_for_a_described_machine(program: Program, tmp_path: Path) -> None:
    profile = tmp_path / "other.json"
    described = program.run("doctor", "--profile", "no-gpu-32gb", "--json")
    profile.write_text(described.stdout)
    arguments = ("mixtral-8x7b:Q3_K_M", "--ctx", "4096", "--json", "--profile")
    mine = json.loads(program.run("plan", *arguments, str(profile)).stdout)
    shipped = json.loads(program.run("plan", *arguments, "no-gpu-32gb").stdout)
    assert mine["devices"] == shipped["devices"] and mine["context"] == 4096
    assert mine["decode_tok_s"] == shipped["decode_tok_s"] > 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("plan",), 2, "MODEL"),
        (("plan", "nothing"), 1, "one of qwen3-30b-a3b-instruct"),
        (("plan", "none.gguf"), 1, "no file"),
        (("plan", "mixtral-8x7b:Q9"), 1, "Use one of"),
        (("plan", "mixtral-8x7b", "--ctx", "0"), 1, "context of 0"),
        (("plan", "mixtral-8x7b", "--ctx", "many"), 2, "--ctx"),
        (("plan", "mixtral-8x7b", "--device", "tpu"), 2, "--device"),
        (
            ("plan", "mixtral-8x7b", "--device", "gpu", "--profile", "no-gpu-32gb"),
            1,
            "No NVIDIA GPU",
        ),
        (("plan", "mixtral-8x7b", "--profile", "nope"), 1, "The profiles are"),
        (("doctor", "--profile", "/"), 1, "no profile"),
    ],
)
def test_wrong_arguments_are_one_line(
    arguments: tuple[str, ...],
    code: int,
    words: str,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KTCHAT_HOME", str(program.home))
    assert main(list(arguments)) == code
    said = capsys.readouterr()
    assert not said.out
    assert said.err.count("\n") == 1 and words in said.err


def test_a_model_on_the_hub_is_not_asked_for_offline(program: Program) -> None:
    done = program.run("plan", "owner/repo:Q4_K_M", env={"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 1 and "HF_HUB_OFFLINE" in done.stderr


def test_a_split_model_on_the_hub_is_planned_from_its_headers(
    program: Program, tmp_path: Path
) -> None:
    first, second = split_shape(tmp_path)
    files = {"q/M-Q4_K_M-00001-of-00002.gguf": first, "q/M-Q4_K_M-00002-of-00002.gguf": second}
    with hub_server() as server:
        server.repos["owner/repo"] = Repo(files)
        hub = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path)}
        done = program.run("plan", "owner/repo:Q4_K_M", "--json", env=hub)
        wrong = program.run("plan", "owner/repo:Q9_K", env=hub)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    whole = json.loads(program.run("plan", str(tmp_path / "whole.gguf"), "--json").stdout)
    assert plan["devices"][0]["segments"] == whole["devices"][0]["segments"]
    ranges = [request.range for request in server.requests if request.range]
    assert ranges and all(int(r.split("-")[1]) < 4 << 20 for r in ranges), ranges
    assert wrong.returncode == 1 and "Q4_K_M" in wrong.stderr


def split_shape(folder: Path) -> tuple[bytes, bytes]:
    """A model of some MB in two files, and in one: whole.gguf."""
    path = shape_file("qwen3-4b", 1, folder)
    path.rename(folder / "whole.gguf")
    with GGUFFile.open(folder / "whole.gguf") as file:
        metadata = {key: file.metadata[key] for key in file.metadata}
        plans = [TensorPlan(i.name, i.type, i.shape) for i in file.tensors.values()]
        data = {name: bytes(file.tensor(name).data) for name in file.tensors}
    plain = {k: list(v.strings()) if isinstance(v, LazyArray) and v.element == "string"
             else v.numpy().tolist() if isinstance(v, LazyArray) else v
             for k, v in metadata.items()}  # fmt: skip
    parts = []
    for number, tensors in enumerate((plans[: len(plans) // 2], plans[len(plans) // 2 :])):
        split = {"split.no": number, "split.count": 2, "split.tensors.count": len(plans)}
        part = folder / f"part{number}"
        write_gguf(
            part,
            {**(plain if number == 0 else {}), **split},
            tensors,
            lambda tensor: iter([np.frombuffer(data[tensor.name], np.uint8)]),
            lambda done, total: None,
        )
        parts.append(part.read_bytes())
    return parts[0], parts[1]


def test_a_hostile_name_is_drawn_safely(program: Program, tmp_path: Path) -> None:
    path = tiny_model("qwen3moe", tmp_path)
    name = b"tiny qwen3moe"
    data = path.read_bytes()
    assert name in data
    path.write_bytes(
        data.replace(name, b"\x1b[2J\x1b]0;x\x07\xe2\x80\xae."[: len(name)].ljust(13), 1)
    )
    done = program.run("plan", str(path))
    assert done.returncode == 0 and "\x1b" not in done.stdout and "\u202e" not in done.stdout


def test_the_settings_hold_for_this_machine_and_not_for_another(
    program: Program, tmp_path: Path
) -> None:
    path = str(tiny_model("qwen3moe", tmp_path))
    program.home.mkdir(exist_ok=True)
    (program.home / "settings.toml").write_text('context = 96\nkv = "q8"\n')
    assert "The KV cache is kept in 8 bits" in program.run("plan", path).stdout
    done = program.run("plan", path, "--kv", "f16", "--json")
    assert "8 bits" not in done.stdout
    assert json.loads(done.stdout)["context"] == 96
    other = program.run("plan", path, "--profile", "no-gpu-32gb", "--json")
    assert json.loads(other.stdout)["context"] != 96


def test_the_doctor_says_what_is_there(tmp_path: Path) -> None:
    program = Program(tmp_path / "home")
    done = program.run("doctor")
    assert done.returncode == 0
    labels = [line[:17].strip() for line in done.stdout.splitlines()]
    assert labels[:4] == ["CPU", "RAM", "GPU", "Disk"] and "llama-cpp-python" in labels
    found = json.loads(program.run("doctor", "--json").stdout)
    assert found["cpu"]["cores"] >= 1 and found["memory"]["total"] > 0
    assert (program.home / "cache/machine.json").exists()


def test_the_doctor_says_whether_the_gpu_is_used(program: Program) -> None:
    done = program.run("doctor", "--profile", "4090-64gb")
    assert "reads up to 1,008 GB/s · PCIe 4 x16, 32 GB/s" in done.stdout
    assert any(
        line.startswith("GPU use") and line.endswith("ktchat computes on the GPU")
        for line in done.stdout.splitlines()
    )


def test_on_a_terminal_lines_keep_to_its_width(program: Program) -> None:
    profile = ("--profile", "4060-32gb")
    for command in (("plan", "qwen3-30b-a3b-instruct", *profile), ("doctor", *profile)):
        code, shown = program.in_terminal(*command)
        lines = shown.replace("\r", "").splitlines()
        assert code == 0 and max(map(len, lines)) <= 80
        piped = program.run(*command).stdout.splitlines()
        assert len(lines) > len(piped) and max(map(len, piped)) > 80
    label = " " * 17
    assert any(line.startswith(label) and "draws the screen" in line for line in lines)


def test_profiles_are_listed(program: Program) -> None:
    done = program.run("plan", "--profile", "list")
    assert "4090-64gb" in done.stdout.splitlines() and done.returncode == 0
