"""What one can type on the command line: right or wrong, it is answered in words."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from ktchat.common import paths
from ktchat.store.conversation import Conversation, Turn
from ktchat.store.store import Store
from tests.support.cli import ROOT, Program, one_clear_line
from tests.support.clock import PATIENCE, assert_within, within

REPLY = {"text": "Hello there."}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "home")


def save(program: Program, *conversations: Conversation) -> None:
    store = Store(program.database)
    for conversation in conversations:
        store.save_conversation(conversation)
    store.close()


# Odd surroundings


def the_line(text: str) -> str:
    assert one_clear_line(text), text
    return text.rstrip("\n")


def test_a_home_that_is_no_folder_is_said(program: Program, tmp_path: Path) -> None:
    done = program.run("models", "list", env={"KTCHAT_HOME": "~nobody-of-this-name"})
    assert done.returncode == 1
    assert the_line(done.stderr) == (
        "ktchat: KTCHAT_HOME is no folder. It names a user who does not exist."
        " Set it to a folder's whole path."
    )


NO_PASSWD = """
#include <pwd.h>
#include <stddef.h>
struct passwd* getpwuid(uid_t uid) { (void)uid; return NULL; }
struct passwd* getpwnam(const char* name) { (void)name; return NULL; }
int getpwuid_r(uid_t uid, struct passwd* p, char* b, size_t n, struct passwd** out) {
    (void)uid; (void)p; (void)b; (void)n; *out = NULL; return 0;
}
"""


def test_a_person_without_a_home_folder_is_told(tmp_path: Path) -> None:
    source, shim = tmp_path / "shim.c", tmp_path / "shim.so"
    source.write_text(NO_PASSWD)
    subprocess.run(["g++", "-x", "c", "-shared", "-fPIC", "-o", shim, source], check=True)
    program = Program(tmp_path)
    environment = program.environment(LD_PRELOAD=str(shim))
    del environment["KTCHAT_HOME"], environment["HOME"]
    done = subprocess.run(
        program.command(None, "models", "list"),
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "This user has no home folder. Set KTCHAT_HOME" in the_line(done.stderr)


def test_a_working_folder_that_is_gone(program: Program, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    script = f'mkdir {gone} && cd {gone} && rmdir {gone} && exec "$@"'
    command = program.command(None, "run", "--no-stdin", "-m", "../x.gguf", "hi")
    done = subprocess.run(
        ["sh", "-c", script, "sh", *command],
        env=program.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert the_line(done.stderr) == "ktchat: There is no file ../x.gguf. Check the path."


@pytest.mark.parametrize("files", [6, 8, 10, 12, 14])
def test_few_open_files_are_said_in_words(program: Program, files: int) -> None:
    command = program.command(None, "run", "--no-stdin", "-m", str(paths.guide_model()), "hi")
    done = subprocess.run(
        ["bash", "-c", f'ulimit -n {files}; exec "$@"', "bash", *command],
        env=program.environment(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=ROOT,
    )
    if done.returncode:  # how many are needed is the system's matter
        assert "oo many files are open. Allow more of them" in the_line(done.stderr)


@pytest.mark.parametrize("proxy", ["socks://127.0.0.1:9", "socks5h://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_is_said(program: Program, proxy: str) -> None:
    done = program.run("models", "search", "x", env={"ALL_PROXY": proxy})
    assert done.returncode == 1
    assert "The proxy cannot be used" in the_line(done.stderr)


def test_a_setting_with_a_nul_is_no_path(program: Program) -> None:
    program.home.mkdir(0o700, parents=True)
    text = 'recent_models = ["a\\u0000b"]\nlast_model = "a\\u0000b"\nsetup_done = true\n'
    (program.home / "settings.toml").write_text(text)
    done = program.run("models", "list")
    assert done.returncode == 0
    assert done.stderr == ""


# Out through one door

HOSTILE = "a\x1b]0;owned\x07\x1b]52;c;QQ==\x07\x1b]8;;http://x\x07\x1b[2Jb\x9d0;x\x9c\x05\u202ec"


@pytest.mark.parametrize(
    "command",
    [
        "list",
        "show ID",
        "export ID",
        "export ID --format json",
        "export ID --format html",
        "search SYSTEM",
    ],
)
def test_nothing_stored_steers_the_terminal(program: Program, command: str) -> None:
    turn = Turn(f"PROMPT{HOSTILE}", model=f"MODEL{HOSTILE}", state="complete")
    turn.raw_reply, turn.raw_thinking = f"REPLY{HOSTILE}", f"THOUGHT{HOSTILE}"
    conversation = Conversation(system=f"SYSTEM{HOSTILE}", turns=[turn])
    conversation.title, conversation.model_name = f"TITLE{HOSTILE}", f"NAME{HOSTILE}"
    conversation.model_path = f"/PATH{HOSTILE}"
    save(program, conversation)
    arguments = command.replace("ID", conversation.id).split()
    code, written = program.in_terminal("sessions", *arguments)
    assert code == 0
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e]", written), written


# run


def test_run_prints_the_reply_and_nothing_else(program: Program) -> None:
    done = program.run("run", "-m", "m.gguf", "hi", script=REPLY)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello there.\n", "")
    (session,) = program.sessions()
    assert [(t.prompt, t.reply, t.state) for t in session.turns] == [
        ("hi", "Hello there.", "complete")
    ]
    assert session.title == "hi" and session.model_name == "m"


def test_run_appends_what_is_piped_in(program: Program) -> None:
    done = program.run("run", "-m", "m.gguf", "Explain:", input="line one\n\nline two\n", script={})
    assert done.returncode == 0
    assert program.sessions()[0].turns[0].raw_prompt == "Explain:\n\nline one\n\nline two"


def test_run_takes_the_whole_prompt_from_a_pipe(program: Program) -> None:
    assert program.run("run", "-m", "m.gguf", input="only piped\n", script=REPLY).returncode == 0
    assert program.sessions()[0].turns[0].raw_prompt == "only piped"


def test_a_pipe_that_says_nothing_is_told_of(program: Program) -> None:
    running = program.start(
        "run", "-m", "m.gguf", "hi", script=REPLY, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert running.stderr is not None
    assert running.stderr.readline() == (
        b"ktchat: waiting for standard input; </dev/null goes without\n"
    )
    output, _ = running.communicate(b"late", timeout=PATIENCE)
    assert output == b"Hello there.\n"
    assert program.sessions()[0].turns[0].raw_prompt == "hi\n\nlate"


def test_a_loop_keeps_its_lines(program: Program) -> None:
    done = program.run(
        "run", "--no-stdin", "-m", "m.gguf", "hi", script=REPLY, input="of the loop\n"
    )
    assert done.returncode == 0
    assert program.sessions()[0].turns[0].raw_prompt == "hi"
    assert "--no-stdin" in program.run("run", "--help").stdout


def test_bytes_that_are_no_text_are_replaced(program: Program) -> None:
    done = program.run(
        *("run", "-m", "m.gguf", os.fsdecode(b"caf\xe9")),
        script=REPLY, input=b"\xef\xbb\xbf\xff\x00ok\n".decode("utf-8", "surrogateescape"),
        errors="surrogateescape",
    )  # fmt: skip
    assert done.returncode == 0
    assert program.sessions()[0].turns[0].raw_prompt == "caf\ufffd\n\n\ufffd\x00ok"


def test_continue_goes_on_with_the_last_session(program: Program) -> None:
    program.run("run", "-m", "m.gguf", "one", script=REPLY)
    program.run("run", "-m", "m.gguf", "two", script=REPLY)
    assert program.run("run", "-c", "-m", "m.gguf", "three", script=REPLY).returncode == 0
    assert [[t.prompt for t in s.turns] for s in program.sessions()] == [["two", "three"], ["one"]]


def test_json_is_one_event_a_line(program: Program) -> None:
    script = {"text": "a \x1b[31m b", "thinking": "hm", "prefill_steps": 2}
    done = program.run("run", "-m", "m.gguf", "--json", "hi", script=script)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    names = [event["event"] for event in events]
    assert names[:4] == ["progress", "progress", "loaded", "started"]
    assert names[-1] == "finished" and "prefilled" in names
    assert "".join(e["text"] for e in events if e["event"] == "text") == "a \x1b[31m b"
    assert "".join(e["text"] for e in events if e["event"] == "thinking") == "hm"
    assert done.stdout.isascii() and "\x1b" not in done.stdout
    assert events[-1]["figures"]["reply_tokens"] == 4
    assert events[3]["session"] == program.sessions()[0].id


def test_a_failure_is_in_the_json_too(program: Program) -> None:
    script = {"error": "The prompt is too long"}
    done = program.run("run", "-m", "m.gguf", "--json", "hi", script=script)
    assert done.returncode == 1 and one_clear_line(done.stderr)
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["event"] == "failed" and last["error"]["kind"] == "ContextError"


def test_a_pipe_gets_the_raw_text_and_a_terminal_the_safe_one(program: Program) -> None:
    script = {"text": "a\x1b]52;c;QQ==\x07 b\x1b[31m c", "thinking": "one two"}
    assert program.run("run", "-m", "m.gguf", "hi", script=script).stdout == script["text"] + "\n"
    code, written = program.in_terminal("run", "-m", "m.gguf", "hi", script=script)
    assert code == 0
    assert "a b c\r\n" in written and "\x1b]" not in written and "\x1b[31m" not in written
    assert "thinking · 2 tokens" in written and "tok/s" in written and "one two" not in written


def test_thinking_is_printed_apart_when_asked_for(program: Program) -> None:
    script = {"text": "reply", "thinking": "one two"}
    done = program.run("run", "-m", "m.gguf", "--thinking", "-v", "hi", script=script)
    assert done.stdout == "reply\n"
    assert done.stderr.startswith("one two\n") and "3 tokens" in done.stderr
    assert done.stderr.endswith(" · CPU\n")  # what computed


def test_sampling_reaches_the_session(program: Program) -> None:
    program.run(
        *("run", "-m", "m.gguf", "--seed", "9", "--temperature", "0", "--top-k", "3"),
        *("--max-tokens", "1", "--system", "Be short.", "hi"), script=REPLY,
    )  # fmt: skip
    (session,) = program.sessions()
    turn = session.turns[0]
    assert (turn.sampling.seed, turn.sampling.temperature, turn.sampling.top_k) == (9, 0.0, 3)
    assert (turn.max_tokens, turn.reason, turn.reply) == (1, "length", "Hello")
    assert session.system == "Be short."


def test_thinking_is_chosen_where_the_model_offers_it(program: Program) -> None:
    script = {**REPLY, "think": ["low", "medium", "high"]}
    run = ("run", "-m", "m.gguf", "--think")
    done = program.run(*run, "high", "hi", script=script)
    assert (done.returncode, done.stderr) == (0, "")
    (session,) = program.sessions()
    assert session.think == "high"
    refused = program.run(*run, "off", "hi", script=script)
    assert refused.returncode == 1 and refused.stdout == ""
    assert one_clear_line(refused.stderr)
    assert "Choose one of: low, medium, high" in refused.stderr
    nothing = program.run(*run, "off", "hi", script=REPLY)
    assert nothing.returncode == 1 and "offers no choice" in nothing.stderr
    assert one_clear_line(nothing.stderr) and len(program.sessions()) == 1


def test_thinking_that_was_printed_is_said_to_be_that(program: Program) -> None:
    script = {"text": "Hello", "unopened": "I plan"}
    done = program.run("run", "-m", "m.gguf", "hi", script=script)
    assert done.stdout == "I planHello\n" and "proved to be the model's thinking" in done.stderr
    done = program.run("run", "-m", "m.gguf", "--json", "hi", script=script)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [event["event"] for event in events]
    after = events[kinds.index("wasthinking") :]
    assert "".join(event["text"] for event in after if event["event"] == "text") == "Hello"


WRONG_USAGE = [
    ["run", "--think", "much", "x"],
    ["bogus"],
    ["--bogus"],
    ["run", "--bogus", "x"],
    ["run", "a", "b"],
    ["run"],
    ["run", "  "],
    ["run", "-m"],
    ["run", "--temperature", "hot", "x"],
    ["run", "--temperature", "nan", "x"],
    ["run", "--temperature", "-1", "x"],
    ["run", "--top-p", "1.5", "x"],
    ["run", "--min-p", "inf", "x"],
    ["run", "--top-k", "1.5", "x"],
    ["run", "--top-k", "-3", "x"],
    ["run", "--repeat-penalty", "0", "x"],
    ["run", "--seed", "-1", "x"],
    ["run", "--seed", "9" * 6000, "x"],
    ["run", "--max-tokens", "0", "x"],
    ["run", "-c", "--system", "s", "x"],
    ["sessions"],
    ["sessions", "bogus"],
    ["sessions", "rm"],
    ["models", "bogus\x1b]0;x\x07"],
    [],
]


@pytest.mark.parametrize("arguments", WRONG_USAGE, ids=lambda a: " ".join(a)[:30] or "nothing")
def test_wrong_usage_is_one_line_and_code_2(program: Program, arguments: list[str]) -> None:
    done = program.run(*arguments, script=REPLY)
    assert done.returncode == 2 and done.stdout == ""
    assert one_clear_line(done.stderr) and "\x1b" not in done.stderr
    assert len(done.stderr) < 700


FAILURES = [
    ["sessions", "show", "abc"],
    ["sessions", "export", "%"],
    ["sessions", "rm", "abc"],
    ["run", "-c", "-m", "m.gguf", "x"],
]


@pytest.mark.parametrize("arguments", FAILURES, ids=" ".join)
def test_a_failure_is_one_line_and_code_1(program: Program, arguments: list[str]) -> None:
    done = program.run(*arguments, script=REPLY)
    assert done.returncode == 1 and done.stdout == ""
    assert one_clear_line(done.stderr)


def test_too_much_input_is_refused(program: Program) -> None:
    done = program.run("run", "-m", "m.gguf", input="x" * ((16 << 20) + 1), script=REPLY)
    assert done.returncode == 1 and one_clear_line(done.stderr)
    assert "16 MiB" in done.stderr


def test_a_damaged_settings_file_is_said_and_does_not_stop(program: Program) -> None:
    program.home.mkdir(0o700)
    (program.home / "settings.toml").write_text("theme = ")
    done = program.run("run", "-m", "m.gguf", "hi", script=REPLY)
    assert (done.returncode, done.stdout) == (0, "Hello there.\n")
    assert one_clear_line(done.stderr)


def test_an_old_encoding_does_not_stop_the_reply(program: Program) -> None:
    env = {"LC_ALL": "C", "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    done = program.run("run", "-m", "m.gguf", "hi", script={"text": "é 中文 👍"}, env=env,
                       errors="replace")  # fmt: skip
    assert done.returncode == 0 and done.stdout.endswith("?? ?\n")


# The real program: files that are no models.


@pytest.mark.xdist_group("clock")
@pytest.mark.parametrize(
    "path", ["/nowhere/m.gguf", "/tmp", "/dev/null", "/dev/zero", "junk.gguf", "cut.gguf"]
)
def test_what_is_no_model_is_refused(program: Program, tmp_path: Path, path: str) -> None:
    (tmp_path / "junk.gguf").write_bytes(os.urandom(5000))
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 16)
    with within(5):
        done = program.run("run", "-m", str(tmp_path / path), "hi")
    assert done.returncode == 1 and done.stdout == ""
    assert one_clear_line(done.stderr)


# sessions and models


def a_session() -> Conversation:
    turn = Turn("What is \x1b[31mthis?", "A \x1b]0;x\x07reply.", "hm", state="complete", model="Q")
    return Conversation(id="abc" + "0" * 29, title="What is this?", turns=[turn], model_name="Q")


def test_sessions_are_listed_shown_exported_and_removed(program: Program, tmp_path: Path) -> None:
    assert program.run("sessions", "list").stdout == "No sessions yet.\n"
    save(program, a_session())
    listed = program.run("sessions", "list").stdout
    assert listed.startswith("abc00000  ") and listed.endswith("What is this?\n")
    assert json.loads(program.run("sessions", "list", "--json").stdout)[0]["turns"] == 1
    shown = program.run("sessions", "show", "abc").stdout
    assert "## You\n\nWhat is this?\n\n## Q\n\nA reply.\n" in shown
    assert "hm" in program.run("sessions", "show", "--thinking", "abc").stdout
    target = tmp_path / "out.json"
    assert program.run("sessions", "export", "abc", "-o", str(target)).returncode == 0
    data = json.loads(target.read_text())
    assert data["turns"][0]["reply"] == "A \x1b]0;x\x07reply."
    assert target.stat().st_mode & 0o777 == 0o600
    exported = program.run("sessions", "export", "abc", "--format", "markdown").stdout
    assert exported.startswith("# What is this?")
    assert program.run("sessions", "rm", "abc").stdout == "Removed abc00000.\n"
    assert program.run("sessions", "list").stdout == "No sessions yet.\n"


def test_an_export_that_cannot_be_written_leaves_nothing(program: Program, tmp_path: Path) -> None:
    save(program, a_session())
    (tmp_path / "folder").mkdir()
    for target in ("/proc/nowhere/x.md", str(tmp_path / "folder"), "/dev/null/x"):
        done = program.run("sessions", "export", "abc", "-o", target)
        assert done.returncode == 1 and one_clear_line(done.stderr)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "home"]


def test_an_export_to_a_device_does_not_replace_it(program: Program, tmp_path: Path) -> None:
    save(program, a_session())
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to(fifo)
    process = program.start("sessions", "export", "abc", "-o", str(link))
    assert fifo.read_text().startswith("# What is this?")
    assert process.wait(PATIENCE) == 0 and fifo.is_fifo() and link.is_symlink()


def test_a_session_that_is_open_elsewhere_is_not_removed(program: Program) -> None:
    save(program, a_session())
    store = Store(program.database)
    assert store.claim(a_session().id)
    done = program.run("sessions", "rm", "abc")
    assert done.returncode == 1 and "open in another ktchat" in done.stderr
    done = program.run("run", "-c", "-m", "m.gguf", "hi", script=REPLY)
    assert done.returncode == 1 and "open in another ktchat" in done.stderr
    store.close()
    assert program.run("sessions", "rm", "abc").returncode == 0


def test_models_are_listed_with_the_broken_ones(program: Program, tmp_path: Path) -> None:
    folder = program.home / "models" / "sub"
    folder.mkdir(parents=True)
    (folder / "bad\x1b[31m.gguf").write_bytes(b"nonsense" * 10)
    done = program.run("models", "list")
    assert done.returncode == 0 and "broken" in done.stdout and "\x1b" not in done.stdout
    (entry,) = [e for e in json.loads(program.run("models", "list", "--json").stdout)
                if e["source"] == "folder"]  # fmt: skip
    assert entry["error"] and entry["size"] == 80


# Starting fast, and light.


@pytest.mark.xdist_group("clock")
def test_the_version_is_there_at_once(program: Program) -> None:
    times = []
    for _ in range(5):
        start = time.monotonic()
        done = program.run("--version")
        times.append(time.monotonic() - start)
        assert done.returncode == 0 and done.stdout.startswith("ktchat ")
    assert_within(min(times), 0.15)


@pytest.mark.parametrize(
    ("arguments", "absent"),
    [
        (["--version"], ["asyncio", "sqlite3", "numpy", "textual", "engine"]),
        (["sessions", "list"], ["numpy", "textual", "llama_cpp", "engine.client"]),
        # numpy comes once the reply is there: the model's header is read, to keep its speed
        (["run", "-m", "m.gguf", "hi"], ["textual", "llama_cpp", "rich"]),
        (["models", "list"], ["textual", "llama_cpp", "rich"]),
    ],
    ids=lambda value: value[0],
)
def test_what_is_heavy_is_not_imported(
    program: Program, tmp_path: Path, arguments: list[str], absent: list[str]
) -> None:
    report = tmp_path / "modules"
    done = program.run(*arguments, script=REPLY, env={"KTCHAT_TEST_MODULES": str(report)})
    assert done.returncode == 0
    modules = set(report.read_text().split())
    assert not modules & {*absent, "torch", "jinja2", "huggingface_hub"}
