"""`ktchat models` against a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ktchat.cli import main
from tests.support.cli import Program, one_clear_line
from tests.support.hub_server import HubServer, Repo, hub_server
from tests.support.tiny import tiny_model

REPO = "own/Tiny-GGUF"
TOKEN = "hf_secretsecret"


@pytest.fixture(scope="module")
def model(models: Path) -> bytes:
    """A model file."""
    return tiny_model("qwen3moe", models).read_bytes()


@pytest.fixture
def server(model: bytes) -> Iterator[HubServer]:
    with hub_server() as running:
        files = {"Tiny-Q4_K_M.gguf": model, "Tiny-Q8_0.gguf": model + bytes(100_000)}
        running.repos[REPO] = Repo(files)
        running.tokens = (TOKEN,)
        yield running


@pytest.fixture
def program(
    tmp_path: Path,
    server: HubServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Program:
    """Runs in this process, which is quick; on a terminal it is a process of its own."""

    class WithHub(Program):
        def run(
            self, *arguments: str, script: object = None, **options: Any
        ) -> subprocess.CompletedProcess[str]:
            assert script is None
            with monkeypatch.context() as patch:
                for name, value in self.environment(**options.get("env", {})).items():
                    patch.setenv(name, value)
                code = main(list(arguments))
            return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    hub = {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path), "HF_TOKEN": TOKEN}
    return WithHub(tmp_path / "home", HOME=str(tmp_path), **hub).knows_the_machine()


def test_search_info_pull_list_verify_and_rm(program: Program, server: HubServer) -> None:
    done = program.run("models", "search", "tiny")
    assert done.returncode == 0 and REPO in done.stdout and "10 downloads" in done.stdout
    done = program.run("models", "info", REPO)
    assert done.returncode == 0 and done.stderr == ""
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["Q4_K_M", "Q8_0"]
    assert done.stdout.splitlines()[1].endswith("proposed")
    done = program.run("models", "info", f"{REPO}:q8_0")
    assert done.returncode == 0 and "sha256:" in done.stdout and "No plan" not in done.stdout
    done = program.run("models", "pull", REPO)
    path = Path(done.stdout.strip())
    assert done.returncode == 0 and path.name == "Tiny-Q4_K_M.gguf" and path.is_file()
    assert "\x1b" not in done.stderr
    done = program.run("models", "list")
    assert "qwen3moe" in done.stdout and str(path) in done.stdout
    done = program.run("models", "verify")
    assert (done.returncode, done.stdout) == (
        0,
        "Tiny-Q4_K_M.gguf: intact (unchanged since it was checked)\n",
    )
    done = program.run("models", "verify", f"{REPO}:Q4_K_M", "--force")
    assert (done.returncode, done.stdout) == (0, "Tiny-Q4_K_M.gguf: intact\n")
    done = program.run("models", "rm", f"{REPO}:Q4_K_M", "--yes")
    assert done.returncode == 0 and not path.exists()
    assert list((program.home / "models").iterdir()) == []
    assert TOKEN not in done.stdout + done.stderr


def test_every_action_speaks_json(program: Program, server: HubServer) -> None:
    def read(*arguments: str) -> object:
        done = program.run("models", *arguments, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    (hit,) = read("search", "tiny")  # type: ignore[misc]
    assert hit["repo"] == REPO
    found = read("info", REPO)
    assert [m["proposed"] for m in found["models"]] == [True, False]  # type: ignore[index]
    detail = read("info", f"{REPO}:Q8_0")
    assert detail["files"][0]["checksum"] and detail["fit"]  # type: ignore[index]
    done = program.run("models", "pull", REPO, "--json")
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["stage"] == "done" and last["done"] == last["total"]
    listed = [e for e in read("list") if e["source"] == "folder"]  # type: ignore[attr-defined]
    assert listed[0]["path"] == last["path"]
    (checked,) = read("verify", last["path"])  # type: ignore[misc]
    assert checked["intact"] and not checked["hashed"]
    removed = read("rm", last["path"], "--yes")
    assert removed["freed"] >= last["total"]  # type: ignore[index]
    assert read("list", "--others") == []


def test_a_search_and_a_list_say_what_fits(program: Program) -> None:
    done = program.run("models", "search", "tiny")
    assert done.stdout.split()[-2:] == ["MB", "CPU"] and "Q4_K_M" in done.stdout
    (hit,) = json.loads(program.run("models", "search", "tiny", "--json").stdout)
    assert (hit["proposed"], hit["fit"]) == ("Q4_K_M", "CPU") and hit["size"] > 6_000_000
    (guide,) = json.loads(program.run("models", "list", "--json").stdout)
    assert guide["fit"] == "CPU" and guide["context"] > 0 and not guide["measured"]
    assert "CPU" in program.run("models", "list").stdout


def test_the_catalogue_and_files_are_known_without_a_network(
    program: Program, tmp_path: Path, model: bytes
) -> None:
    away = {"env": {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}}
    listed = program.run("models", "list", "--catalogue", **away)
    assert listed.returncode == 0 and "qwen3-30b-a3b-instruct" in listed.stdout
    ranked = json.loads(program.run("models", "list", "--catalogue", "--json", **away).stdout)
    assert all(entry["fit"] and entry["size"] for entry in ranked)
    info = program.run("models", "info", "mixtral-8x7b", **away)
    assert info.returncode == 0 and info.stdout.count("proposed") == 1 and "Q8_0" in info.stdout
    shown = json.loads(program.run("models", "info", "mixtral-8x7b:Q2_K", "--json", **away).stdout)
    assert [one["name"] for one in shown["models"] if one["proposed"]] == ["Q2_K"]
    assert shown["plan"]["quantisation"] == "Q2_K"
    file = tmp_path / "tiny.gguf"
    file.write_bytes(model)
    info = program.run("models", "info", str(file), **away)
    assert info.returncode == 0 and "runs on the CPU" in info.stdout and str(file) in info.stdout
    assert json.loads(program.run("models", "info", str(file), "--json", **away).stdout)["plan"]
    assert "sampling: temperature 0.7 (built in) · top-k 40 (built in)" in info.stdout
    (program.home / "settings.toml").write_text("temperature = 0.2\n")
    again = program.run("models", "info", str(file), **away)
    assert "temperature 0.2 (everywhere) · top-k 40 (built in)" in again.stdout
    file.write_bytes(model[:1000])
    info = program.run("models", "info", str(file), **away)
    assert info.returncode == 1 and one_clear_line(info.stderr) and info.stdout == ""


def test_a_model_of_the_catalogue_is_pulled_by_its_id(
    program: Program, server: HubServer, model: bytes
) -> None:
    repo = "mradermacher/DeepSeek-V2-Lite-Chat-GGUF"
    server.repos[repo] = Repo({"DeepSeek-V2-Lite-Chat.Q2_K.gguf": model})
    done = program.run("models", "pull", "deepseek-v2-lite:q2_k")
    assert done.returncode == 0 and Path(done.stdout.strip()).is_file(), done.stderr
    done = program.run("models", "pull", "deepseek-v2-lite:Q1")
    assert done.returncode == 1 and "Use one of" in done.stderr and one_clear_line(done.stderr)


def test_a_terminal_gets_a_bar(program: Program, server: HubServer) -> None:
    server.repos[REPO] = Repo({"Big-Q4_K_M.gguf": os.urandom(3_000_000)})
    server.rate = 1_200_000
    code, text = program.in_terminal("models", "pull", REPO)
    assert code == 0 and "━" in text and "B/s" in text and "left" in text
    assert text.rstrip().endswith("Big-Q4_K_M.gguf")
    assert all(len(line) < 200 for line in text.replace("\r", "\n").splitlines())


def test_damage_is_found_and_named(program: Program, server: HubServer) -> None:
    path = Path(program.run("models", "pull", REPO).stdout.strip())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    done = program.run("models", "verify")
    assert done.returncode == 1 and one_clear_line(done.stderr)
    assert "Tiny-Q4_K_M.gguf is damaged" in done.stderr
    done = program.run("models", "verify", "--json")
    assert done.returncode == 1 and not json.loads(done.stdout)[0]["intact"]
    done = program.run("models", "pull", REPO)
    assert done.returncode == 0
    assert program.run("models", "verify", "--force").returncode == 0


def test_a_file_is_taken_in_by_link_or_moved(
    program: Program, tmp_path: Path, model: bytes
) -> None:
    source = tmp_path / "mine.gguf"
    source.write_bytes(model)
    done = program.run("models", "import", str(source))
    taken = program.home / "models" / "imported" / source.name
    assert done.returncode == 0 and taken.samefile(source)
    assert program.run("models", "verify").stdout == f"{source.name}: intact\n"
    assert "unchanged" in program.run("models", "verify").stdout
    assert program.run("models", "rm", source.name, "--yes").returncode == 0
    assert source.exists() and not taken.exists()
    done = program.run("models", "import", str(source), "--move")
    assert done.returncode == 0 and taken.exists() and not source.exists()


def test_models_of_other_programs_are_listed(
    program: Program, tmp_path: Path, model: bytes
) -> None:
    path = tmp_path / ".lmstudio" / "models" / "own" / "x" / "m.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(model)
    done = program.run("models", "list", "--others")
    assert done.returncode == 0
    assert "LM Studio" in done.stdout and str(path) in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["search"], 2, "QUERY"),
        (["search", "x", "--limit", "0"], 2, "0 results"),
        (["pull"], 2, "SPEC"),
        (["pull", "nothing"], 1, "does not name a model"),
        (["pull", "../../etc/passwd"], 1, "does not name a model"),
        (["pull", "own/absent"], 1, "is not on the hub"),
        (["pull", f"{REPO}:Q2_K"], 1, "It has Q4_K_M, Q8_0"),
        (["info", "https://evil.example/own/x"], 1, "not one of the hub"),
        (["info", "own/x\x1b]0;pwned\x07"], 1, "does not name a model"),
        (["rm", "absent"], 2, "names no models here"),
        (["rm", "/etc/passwd", "--yes"], 2, "not in the models folder"),
        (["verify", "own/absent"], 2, "names no models here"),
        (["import", "/etc/passwd"], 1, "is not a GGUF model"),
        (["import", "/absent.gguf"], 1, "is not a GGUF model"),
    ],
)
def test_failures_are_one_clear_line(
    program: Program, arguments: list[str], code: int, words: str
) -> None:
    done = program.run("models", *arguments)
    assert done.returncode == code and done.stdout == ""
    assert one_clear_line(done.stderr) and words in done.stderr
    assert "\x1b" not in done.stderr and TOKEN not in done.stderr


def test_deleting_asks_first(program: Program, server: HubServer) -> None:
    path = Path(program.run("models", "pull", REPO).stdout.strip())
    done = program.run("models", "rm", str(path))
    assert done.returncode == 2 and "--yes" in done.stderr and path.exists()


def test_the_hub_s_refusals_are_one_clear_line(program: Program, server: HubServer) -> None:
    server.repos["own/gated"] = Repo({"a-Q4_0.gguf": b"GGUF"}, gated=True)
    done = program.run("models", "pull", "own/gated")
    assert done.returncode == 1 and "Accept it at" in done.stderr.splitlines()[-1]
    done = program.run("models", "search", "x", env={"HF_TOKEN": "hf_wrong"})
    assert done.returncode == 0  # search is public
    done = program.run("models", "info", REPO, env={"HF_TOKEN": "hf_wrong"})
    assert done.returncode == 1 and one_clear_line(done.stderr)
    assert "hf_wrong" not in done.stderr
    done = program.run("models", "pull", REPO, env={"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 1 and "HF_HUB_OFFLINE" in done.stderr
    done = program.run("models", "search", "x", env={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert done.returncode == 1 and one_clear_line(done.stderr)
    done = program.run("models", "search", "x", env={"HF_ENDPOINT": "nonsense"})
    assert done.returncode == 1 and "HF_ENDPOINT" in done.stderr


def test_a_token_goes_to_a_mirror_only_after_a_yes(program: Program) -> None:
    env = {"HF_ENDPOINT": "https://127.0.0.2:9"}  # nobody listens there
    for command in (("search", "x"), ("info", REPO), ("pull", REPO)):
        done = program.run("models", *command, env=env)
        assert done.returncode == 1 and "--send-token" in done.stderr, command
        assert one_clear_line(done.stderr) and TOKEN not in done.stderr
    done = program.run("models", "search", "x", "--no-send-token", env=env)
    assert done.returncode == 1 and "--send-token" not in done.stderr  # asked, and nobody answered
    assert "--send-token" in program.run("plan", REPO, env=env).stderr
    assert "cannot be reached" in program.run("plan", REPO, "--send-token", env=env).stderr
    done = program.run("models", "search", "x", env=env)
    assert "cannot be reached" in done.stderr and one_clear_line(done.stderr)


def test_texts_of_the_hub_cannot_reach_the_terminal(program: Program, server: HubServer) -> None:
    data = server.repos[REPO].files["Tiny-Q8_0.gguf"]
    server.repos[REPO].files["x\x1b]0;pwned\x07-Q6_K.gguf"] = data
    server.repos[REPO].files["../../../evil-Q5_0.gguf"] = data
    server.repos[REPO].files["\u202elld.x-Q3_K_M.gguf"] = data
    for arguments in (["info", REPO], ["search", "tiny"]):
        done = program.run("models", *arguments)
        assert done.returncode == 0 and "\x1b" not in done.stdout and "\u202e" not in done.stdout
        assert "Q6_K" not in done.stdout and "Q5_0" not in done.stdout
