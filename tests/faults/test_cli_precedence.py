"""Which sampling a reply of `ktchat run` gets: the order of `ktchat.common.precedence`, through the whole program."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ktchat.common.settings import SettingsFile
from ktchat.store.conversation import Turn
from ktchat.store.store import Store
from tests.support.cli import Program

SCRIPT: dict[str, Any] = {"text": "Hello."}
NAMES = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def last_turn(program: Program) -> Turn:
    store = Store(program.database)
    turns = store.load(store.last_session() or "").turns
    store.close()
    return turns[-1]


def values(program: Program) -> list[float]:
    return [getattr(last_turn(program).sampling, name) for name in NAMES]


def test_flag_session_model_file_everywhere_built_in(program: Program) -> None:
    def run(*arguments: str, **own: float) -> None:
        done = program.run(
            "run", "-m", "/x/m.gguf", *arguments, "hi", script={**SCRIPT, "sampling": own}
        )
        assert (done.returncode, done.stderr) == (0, "")

    run()
    assert values(program) == [0.7, 40, 0.95, 0.05, 1.0], "built in"
    file = SettingsFile(program.home / "settings.toml")
    everywhere = {"temperature": 0.1, "top_k": 1, "top_p": 0.1, "min_p": 0.1, "repeat_penalty": 1.1}
    file.update(**everywhere, max_tokens=50, system="everywhere")
    run()
    assert values(program) == [*everywhere.values()]
    own = {"temperature": 0.2, "top_k": 2, "top_p": 0.2, "min_p": 0.2}
    run(**own)
    assert values(program) == [*own.values(), 1.1]
    file.update_model("/elsewhere/m.gguf", temperature=0.3, top_k=3, top_p=0.3, max_tokens=60)
    run(**own)
    assert values(program) == [0.3, 3, 0.3, 0.2, 1.1] and last_turn(program).max_tokens == 60
    store = Store(program.database)
    session = store.load(store.last_session() or "")
    assert session.system == "everywhere"
    session.choices = {"temperature": 0.4, "top_k": 4}
    store.save_conversation(session)
    store.close()
    run("-c", **own)
    assert values(program) == [0.4, 4, 0.3, 0.2, 1.1]
    run("-c", "--temperature", "0.5", "--max-tokens", "2", **own)
    assert values(program) == [0.5, 4, 0.3, 0.2, 1.1] and last_turn(program).max_tokens == 2
    run("-c", **own)
    assert values(program)[0] == 0.4, "a flag is of one run"
    assert SettingsFile(file.path).said == file.said


def test_a_model_has_its_own_system_message_and_thinking_and_flags_go_before(
    program: Program,
) -> None:
    file = SettingsFile(program.home / "settings.toml")
    file.update(system="everywhere", think="low")
    file.update_model("m.gguf", system="for m", think="high")
    script = {**SCRIPT, "think": ["low", "medium", "high"]}

    def system(*arguments: str) -> str:
        assert program.run("run", *arguments, "hi", script=script).returncode == 0
        store = Store(program.database)
        session = store.load(store.last_session() or "")
        store.close()
        return session.system

    assert system("-m", "other.gguf") == "everywhere"
    assert system("-m", "m.gguf") == "for m"
    assert system("-m", "m.gguf", "--system", "flag") == "flag"
    assert system("-m", "m.gguf", "--system", "") == ""


def test_a_broken_file_is_said_with_its_line_and_left_alone(program: Program) -> None:
    path = program.home / "settings.toml"
    path.write_text("# mine\ntemperature = 0.3\ntop_k = = 2\n")
    done = program.run("run", "-m", "m.gguf", "hi", script=SCRIPT)
    assert done.returncode == 0 and done.stdout == "Hello.\n"
    assert "line 3" in done.stderr
    assert path.read_text() == "# mine\ntemperature = 0.3\ntop_k = = 2\n"
