"""Names on the hub, search, repositories, tokens, and reading headers before a download."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.errors import KtchatError
from engine.hub import bounded_client
from engine.hub.client import Hub, HubAccess, access_from_environment, ask
from engine.hub.errors import (
    GatedModelError,
    HubError,
    HubMissingError,
    HubNetworkError,
    HubOfflineError,
    HubServerError,
    HubTokenError,
    NoModelError,
    RateLimitError,
    UnsafeNameError,
)
from engine.hub.names import (
    HubFile,
    HubModel,
    best,
    group_models,
    is_model_file,
    note_of,
    parse_ref,
    quantisation_of,
    safe_path,
)
from engine.hub.remote_file import RemoteFile
from tests.support.clock import PATIENCE
from tests.support.hub_server import HubServer, Repo, hub_server
from tests.support.tiny import tiny_model

REPO = "own/Model-GGUF"
SHA = "sha256:" + "a" * 64


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub_server() as running:
        running.repos[REPO] = Repo(
            {
                "README.md": b"words",
                "Model-Q4_K_M.gguf": b"GGUF" + os.urandom(3_000_000),
                "Model-Q8_0.gguf": b"GGUF" + bytes(5_000_000),
                "mmproj-F16.gguf": b"GGUF",
                "imatrix.gguf": b"GGUF",
                "BF16/Model-BF16-00001-of-00002.gguf": b"GGUF" + bytes(6_000_000),
                "BF16/Model-BF16-00002-of-00002.gguf": b"GGUF" + bytes(100),
                "IQ2_XS/Model-IQ2_XS-00001-of-00003.gguf": b"GGUF",
            }
        )
        yield running


@pytest.fixture
def hub(server: HubServer) -> Hub:
    return Hub(HubAccess(server.endpoint, "hf_good"))


# Names


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("Qwen3-30B-A3B-Q4_K_M.gguf", "Q4_K_M"),
        ("Qwen3-30B-A3B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("gpt-oss-20b-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("model.IQ4_XS.gguf", "IQ4_XS"),
        ("mixtral-8x7b-v0.1.Q5_0.gguf", "Q5_0"),
        ("model-f16.gguf", "F16"),
        ("model-fp16.gguf", "F16"),
        ("BF16/model-00001-of-00002.gguf", "BF16"),
        ("Q8_0/DeepSeek-R1-Q8_0-00001-of-00015.gguf", "Q8_0"),
        ("UD-IQ1_S/DeepSeek-R1-UD-IQ1_S-00001-of-00003.gguf", "UD-IQ1_S"),
        ("q4_0-model-q4_1.gguf", "Q4_1"),
        ("DeepSeek-R1-0528-IQ4_KSS-00001-of-00007.gguf", "IQ4_KSS"),
        ("Qwen3-235B-A22B-mix-IQ3_K-00001-of-00003.gguf", "IQ3_K"),
        ("GLM-4.5-IQ2_KL.gguf", "IQ2_KL"),
        ("DeepSeek-V3-0324-IQ4_K_R4-00001-of-00010.gguf", "IQ4_K_R4"),
        ("Kimi-K2-smol-IQ1_KT.gguf", "IQ1_KT"),
        ("model-Q8_0_R8.gguf", "Q8_0_R8"),
        ("FAQ4_0x.gguf", ""),
        ("plain.gguf", ""),
    ],
)
def test_quantisations_are_read_from_names(path: str, label: str) -> None:
    assert quantisation_of(path) == label


@pytest.mark.parametrize(
    ("text", "repo", "quantisation", "file", "revision"),
    [
        ("own/Model-GGUF", REPO, "", "", "main"),
        (" own/Model-GGUF:q4_k_m ", REPO, "Q4_K_M", "", "main"),
        ("own/Model-GGUF:a.gguf", REPO, "", "a.gguf", "main"),
        ("own/Model-GGUF/BF16/a.gguf", REPO, "", "BF16/a.gguf", "main"),
        ("own/Model-GGUF@v2:Q8_0", REPO, "Q8_0", "", "v2"),
        ("hf.co/own/Model-GGUF:Q8_0", REPO, "Q8_0", "", "main"),
        ("https://huggingface.co/own/Model-GGUF", REPO, "", "", "main"),
        ("https://huggingface.co/own/Model-GGUF/tree/main", REPO, "", "", "main"),
        ("https://huggingface.co/own/Model-GGUF/blob/main/x/a.gguf", REPO, "", "x/a.gguf", "main"),
        (
            "https://huggingface.co/own/Model-GGUF/resolve/abc/a%20b.gguf?download=true",
            REPO,
            "",
            "a b.gguf",
            "abc",
        ),
    ],
)
def test_what_a_person_types_is_understood(
    text: str, repo: str, quantisation: str, file: str, revision: str
) -> None:
    ref = parse_ref(text)
    assert (ref.repo, ref.quantisation, ref.file, ref.revision) == (
        repo,
        quantisation,
        file,
        revision,
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "model",
        "own/",
        "../x",
        "own/..",
        "own/../etc:Q4_0",
        "own/m/../../x.gguf",
        "own/m/readme.md",
        "https://evil.example/own/m",
        "https://huggingface.co.evil.example/own/m",
        "https://user@evil.example:huggingface.co/own/m",
        "ftp://huggingface.co/own/m",
        "file:///etc/passwd",
        "own/m@../x",
        "own/m\x00",
        "own/m\nx",
        "https://[::1",
    ],
)
def test_what_names_no_model_is_refused_in_words(text: str) -> None:
    with pytest.raises(HubError) as refusal:
        parse_ref(text)
    assert refusal.value.what and "\x00" not in str(refusal.value)


@pytest.mark.parametrize(
    "path",
    [
        "../a.gguf",
        "/etc/a.gguf",
        "a/../b.gguf",
        "a//b.gguf",
        "./a.gguf",
        ".hidden.gguf",
        "-rf.gguf",
        "~root.gguf",
        "a\\b.gguf",
        "C:a.gguf",
        "a:stream.gguf",
        "con.gguf",
        "x/NUL",
        "COM1.gguf",
        "lpt9.x.gguf",
        "a.gguf.",
        "a.gguf ",
        "a\nb.gguf",
        "a\x1b[31m.gguf",
        "a\u202egguf.exe",
        "a\u200b.gguf",
        "*.gguf",
        "a?.gguf",
        "a|b.gguf",
        "$(x).gguf",
        "a" * 201 + ".gguf",
        "/".join("abcdefghi"),
        "",
    ],
)
def test_dangerous_file_names_are_refused(path: str) -> None:
    with pytest.raises(UnsafeNameError):
        safe_path(path)
    assert not is_model_file(path)


def test_ordinary_file_names_pass() -> None:
    for path in ("a.gguf", "BF16/Größe (2) 模型+x=1,[b].gguf", "console.gguf", "a.b/c_d-e.gguf"):
        assert safe_path(path) == path


def file(path: str, size: int = 10) -> HubFile:
    return HubFile(REPO, "c" * 40, path, size, SHA)


def test_split_files_are_one_model_and_incomplete_ones_are_none() -> None:
    names = ["a-Q4_K_M-00002-of-00002.gguf", "a-Q4_K_M-00001-of-00002.gguf", "b-Q8_0.gguf"]
    names += ["c-Q4_0-00001-of-00003.gguf", "c-Q4_0-00003-of-00003.gguf", "mmproj-x.gguf", "x.bin"]
    names += ["d-Q4_0-00001-of-99999.gguf", "e-vocab.gguf", "f.imatrix.gguf", "../g.gguf"]
    models = group_models(file(name) for name in names)
    assert [(m.quantisation, len(m.files), m.size) for m in models] == [
        ("Q8_0", 1, 10),
        ("Q4_K_M", 2, 20),
    ]
    assert [f.name[-18:-14] for f in models[1].files] == ["0001", "0002"]


def test_the_best_quantisation_that_fits_is_proposed() -> None:
    sizes = {"Q8_0": 80, "Q4_K_M": 45, "IQ2_XS": 20, "BF16": 160, "Q4_0": 43}
    models = group_models(file(f"m-{name}.gguf", size) for name, size in sizes.items())

    def proposed(room: int) -> str:
        found = best(models, lambda model: model.size <= room)
        assert found is not None
        return found.quantisation

    assert [proposed(room) for room in (1000, 44, 30, 5)] == ["Q4_K_M", "Q4_0", "IQ2_XS", "IQ2_XS"]
    assert best([]) is None


def test_files_for_ik_llama_cpp_are_told_apart() -> None:
    for name in ("IQ4_KSS", "Q6_0", "IQ2_KL", "IQ3_K", "IQ2_KT"):
        assert note_of(name) == "made for ik_llama.cpp: runs here"
    for name in ("IQ4_K_R4", "Q8_0_R8", "IQ1_KL", "IQ1_S_R4"):
        assert note_of(name) == "made for ik_llama.cpp: does not run here"
    for name in ("Q4_K_M", "IQ4_XS", "UD-Q2_K_XL", "Q6_K", ""):
        assert note_of(name) == ""
    names = {"IQ2_KS": 20, "IQ4_KS": 40, "IQ2_K_R4": 10, "IQ4_KS_R4": 39}
    models = group_models(file(f"m-{name}.gguf", size) for name, size in names.items())
    best_of = {room: best(models, lambda m, room=room: m.size <= room) for room in (100, 39, 15)}
    assert [m and m.quantisation for m in best_of.values()] == ["IQ4_KS", "IQ2_KS", "IQ2_K_R4"]


# The hub


def test_a_search_finds_repositories(server: HubServer, hub: Hub) -> None:
    server.repos["other/Thing-GGUF"] = Repo({"a.gguf": b"GGUF"}, downloads=99, gated=True)
    server.repos["no/safetensors"] = Repo({"a.safetensors": b"x"})
    hits = hub.search("")
    assert [hit.repo for hit in hits] == ["other/Thing-GGUF", REPO]
    assert hits[0].gated and hits[1].architecture == "qwen3moe" and hits[1].context == 4096
    assert hits[0].updated == "2026-05-01"
    assert [hit.repo for hit in hub.search("model")] == [REPO]
    assert len(hub.search("", limit=1)) == 1


def test_a_repository_lists_its_models_with_sizes_and_checksums(hub: Hub) -> None:
    found = hub.repository(REPO)
    assert [(m.label, m.size) for m in found.models] == [
        ("Q4_K_M", 3_000_004),
        ("Q8_0", 5_000_004),
        ("BF16", 6_000_108),
    ]
    assert found.commit == "c" * 40 and found.licence == "apache-2.0"
    assert all(f.checksum.startswith("sha256:") for m in found.models for f in m.files)


def test_a_model_is_found_by_every_name(hub: Hub) -> None:
    assert hub.find(REPO).label == "Q4_K_M"
    assert hub.find(f"{REPO}:q8_0").label == "Q8_0"
    assert hub.find(f"{REPO}:Model-Q8_0.gguf").label == "Q8_0"
    assert len(hub.find(f"{REPO}/BF16/Model-BF16-00002-of-00002.gguf").files) == 2
    address = f"{hub.access.endpoint}/{REPO}/blob/main/Model-Q8_0.gguf"
    assert hub.find(address).label == "Q8_0"
    assert hub.find(REPO, fits=lambda m: m.size > 6_000_000).label == "BF16"
    for model in hub.repository(REPO).models:
        assert hub.find(model.spec) == model
    with pytest.raises(NoModelError, match=r"It has Q4_K_M, Q8_0, BF16"):
        hub.find(f"{REPO}:Q6_K")


def test_two_models_of_one_name_must_be_told_apart(server: HubServer, hub: Hub) -> None:
    server.repos["own/two"] = Repo({"a-Q4_0.gguf": b"GGUF", "b-Q4_0.gguf": b"GGUF1"})
    with pytest.raises(NoModelError, match=r"a-Q4_0\.gguf, b-Q4_0\.gguf"):
        hub.find("own/two:Q4_0")
    assert hub.find("own/two:b-Q4_0.gguf").size == 5
    server.repos["own/none"] = Repo({"model.safetensors": b"x"})
    with pytest.raises(NoModelError, match="has no GGUF model"):
        hub.find("own/none")


def test_a_file_without_sha256_has_git_s_name(server: HubServer, hub: Hub) -> None:
    server.repos["own/plain"] = Repo({"a.gguf": b"GGUF"}, plain=True)
    (model,) = hub.repository("own/plain").models
    assert model.files[0].checksum.startswith("git-sha1:")


def test_failures_say_what_to_do(server: HubServer, hub: Hub) -> None:
    for repo, kind in (("own/absent", HubMissingError),):
        with pytest.raises(kind):
            hub.repository(repo)
    with pytest.raises(HubMissingError, match="revision"):
        hub.repository(REPO, "v9")
    with pytest.raises(HubMissingError, match="set HF_TOKEN"):
        Hub(HubAccess(server.endpoint)).repository("own/private")
    with pytest.raises(HubTokenError, match="settings/tokens"):
        Hub(HubAccess(server.endpoint, "hf_wrong")).repository(REPO)
    for status, error in ((429, RateLimitError), (500, HubServerError), (418, HubServerError)):
        server.fault("status", where="hub", value=status, times=1)
        with pytest.raises(error):
            hub.repository(REPO)
    with pytest.raises(HubOfflineError, match="HF_HUB_OFFLINE"):
        Hub(HubAccess(server.endpoint, offline=True)).search("x")
    with pytest.raises(HubNetworkError):
        Hub(HubAccess("http://127.0.0.1:9")).search("x")


def test_nonsense_from_the_hub_is_a_clear_error(server: HubServer, hub: Hub) -> None:
    server.repos["own/odd"] = Repo({"a.gguf": b"GGUF"}, commit="../../x")
    with pytest.raises(HubServerError):
        hub.repository("own/odd")
    server.fault("status", where="hub", value=200, times=2)  # its body is no JSON
    with pytest.raises(HubServerError):
        hub.search("x")
    with pytest.raises(HubServerError):
        hub.repository(REPO)


@pytest.mark.parametrize("kind", ["endless", "bomb", "trickle"])
def test_an_answer_without_end_is_given_up(
    server: HubServer, hub: Hub, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "trickle":
        monkeypatch.setattr(bounded_client, "MOST_SECONDS", 0.3)
    server.fault(kind, where="hub")
    with pytest.raises(HubServerError, match=r"makes no sense\. It") as caught:
        hub.search("x")
    assert str(caught.value).count("\n") == 0


def test_more_results_than_were_asked_for_are_not_taken(server: HubServer, hub: Hub) -> None:
    for number in range(150):
        server.repos[f"many/Model-{number}-GGUF"] = Repo({"a.gguf": b"GGUF"})
    assert len(hub.search("many", 20)) == 20


# Tokens


def test_the_token_goes_to_the_endpoint_only(server: HubServer, hub: Hub) -> None:
    assert hub.open(hub.find(REPO).files[0]).read(0, 4) == b"GGUF"
    at_hub = [request for request in server.requests if request.where == "hub"]
    at_cdn = [request for request in server.requests if request.where == "cdn"]
    assert {request.token for request in at_hub} == {"hf_good"}
    assert at_cdn and not any(request.token for request in at_cdn)


def test_a_search_that_is_redirected_elsewhere_takes_no_token_along(
    server: HubServer, hub: Hub
) -> None:
    away = {"Location": f"http://localhost:{server.cdn_port}/{REPO}/README.md?sig=1"}
    server.fault("status", where="hub", path="/api/models", value=302, headers=away)
    with pytest.raises(HubServerError):  # what the other host says is no search result
        hub.search("model")
    asked = [(request.where, request.token) for request in server.requests]
    assert asked == [("hub", "hf_good"), ("cdn", "")]


def test_a_token_is_never_sent_in_clear_over_a_network() -> None:
    clear = HubAccess("http://mirror.example", "hf_secret")
    assert clear.headers("http://mirror.example/x") == {}
    safe = HubAccess("https://mirror.example", "hf_secret")
    assert safe.headers("https://mirror.example/x") == {"Authorization": "Bearer hf_secret"}
    for other in (
        "https://mirror.example:444/x",
        "http://mirror.example/x",
        "https://cdn.mirror.example/x",
        "https://huggingface.co/x",
        "https://mirror.example.evil.example/x",
        "https://mirror.example@evil.example/x",
    ):
        assert safe.headers(other) == {}
    with pytest.raises(HubServerError, match="not https"):
        safe.check("http://mirror.example/x")


def test_a_token_is_in_no_words_and_no_log(
    server: HubServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    access = HubAccess(server.endpoint, "hf_verysecret")
    words = [repr(access), repr(Hub(access))]
    server.repos["own/gated"] = Repo({"a.gguf": b"GGUF"}, gated=True)
    hub = Hub(access)
    for call in (lambda: hub.repository(REPO), lambda: hub.search("x"), lambda: hub.find("a")):
        try:
            call()
        except KtchatError as error:
            words += [str(error), repr(error), str(error.to_dict()), repr(error.__cause__)]
    out, err = capfd.readouterr()
    assert "verysecret" not in "".join(words) + out + err
    assert "verysecret" not in caplog.text


def test_a_gated_repository_says_where_to_accept(server: HubServer) -> None:
    server.repos["own/gated"] = Repo({"a.gguf": b"GGUFx"}, gated=True, members=("hf_good",))
    (model,) = Hub(HubAccess(server.endpoint)).repository("own/gated").models
    with pytest.raises(GatedModelError, match=r"Accept it at http.*/own/gated, then set HF_TOKEN"):
        Hub(HubAccess(server.endpoint)).open(model.files[0]).read(0, 4)
    member = Hub(HubAccess(server.endpoint, "hf_good"))
    assert member.open(model.files[0]).read(0, 4) == b"GGUF"


def test_the_environment_is_honoured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    monkeypatch.setenv("HF_TOKEN", " hf_abc \n")
    access = access_from_environment(lambda endpoint: True)
    assert (access.endpoint, access.token, access.offline) == (
        "https://mirror.example",
        "hf_abc",
        False,
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert access_from_environment().offline
    assert access_from_environment().token is None
    monkeypatch.setenv("HF_ENDPOINT", "mirror")
    with pytest.raises(HubError, match="HF_ENDPOINT"):
        access_from_environment()
    monkeypatch.setenv("HF_ENDPOINT", "https://me:secret@mirror.example")
    with pytest.raises(HubError) as refusal:
        access_from_environment()
    assert "secret" not in str(refusal.value)


# Headers before a download


def test_parts_of_a_remote_file_are_read_and_kept(server: HubServer, hub: Hub) -> None:
    file = hub.find(REPO).files[0]
    data = server.repos[REPO].files[file.path]
    remote = hub.open(file)
    for offset, count in ((0, 10), (4, 300_000), (262_140, 10), (2_999_000, 99_999), (5, 5)):
        assert remote.read(offset, count) == data[offset : offset + count]
    fetched = remote.fetched
    assert remote.read(0, 300_000) == data[:300_000] and remote.fetched == fetched
    assert remote.read(file.size, 10) == remote.read(-1, 10) == remote.read(3, 0) == b""


def test_a_plan_needs_the_headers_only(server: HubServer, hub: Hub, tmp_path: Path) -> None:
    model = tiny_model("qwen3moe", tmp_path).read_bytes()
    padded = model + bytes(30_000_000)  # a file may have more than its tensors
    server.repos["own/tiny"] = Repo({"tiny-F32.gguf": padded})
    spec = hub.spec(hub.find("own/tiny"))
    assert spec.architecture == "qwen3moe"
    assert server.bodies < 3_000_000


def test_a_header_without_end_is_given_up(
    server: HubServer, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RemoteFile, "LIMIT", 1 << 20)
    remote = hub.open(hub.find(REPO).files[0])
    with pytest.raises(HubServerError, match="too large"):
        for offset in range(0, 3_000_000, 100_000):
            remote.read(offset, 100_000)
    assert server.bodies <= 2 << 20


def test_a_remote_read_is_tried_twice(server: HubServer, hub: Hub) -> None:
    remote = hub.open(hub.find(REPO).files[0])
    server.fault("drop", value=10)
    assert remote.read(0, 4) == b"GGUF"
    server.fault("status", value=503, times=2)
    with pytest.raises(HubServerError):
        remote.read(2_000_000, 4)


async def test_a_blocking_call_leaves_the_loop_free() -> None:
    awake = threading.Event()
    naps = [asyncio.create_task(ask(awake.wait, PATIENCE)) for _ in range(5)]
    await asyncio.sleep(0.01)
    awake.set()  # by the loop, which none of them holds up
    assert all(await asyncio.gather(*naps))
    with pytest.raises(ZeroDivisionError):
        await ask(lambda: 1 // 0)


def test_a_model_s_names_agree() -> None:
    model = HubModel(REPO, "c" * 40, "", (file("x.gguf"),))
    assert model.spec == f"{REPO}:x.gguf" and parse_ref(model.spec).file == "x.gguf"
