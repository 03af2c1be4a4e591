"""This machine's parts, looked at through made-up systems; every part may be missing."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from engine.common import measurements
from engine.common.json_files import DataFileError
from engine.machine import probe as hardware
from engine.machine import profiles
from engine.machine import report as machine_report
from engine.machine.probe import Cpu, Gpu, GpuUser, Hardware, Memory, Problem, Software
from engine.machine.probes import bandwidth
from engine.machine.probes import cpu as cpu_probe
from engine.machine.probes import disk as disk_probe
from engine.machine.probes import gpu as gpu_probe
from engine.machine.probes import memory as memory_probe
from engine.machine.probes import software as software_probe

GIB = 1 << 30


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KTCHAT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# processor


def cpuinfo(path: Path, model: str, flags: str) -> Path:
    path.write_text(
        f"processor\t: 0\nmodel name\t: {model}\nflags\t\t: {flags}\n\nprocessor\t: 1\n"
    )
    return path


@pytest.mark.parametrize(
    ("flags", "isa", "vnni"),
    [
        ("fpu sse2", "plain", False),
        ("avx2 fma f16c", "avx2", False),
        ("avx2 fma f16c avx_vnni", "avx2", True),
        ("avx2 fma", "plain", False),
        ("avx2 fma f16c avx512f avx512bw avx512dq", "avx2", False),
        ("avx2 fma f16c avx512f avx512bw avx512dq avx512vl avx512_vnni", "avx512", True),
    ],
)
def test_instruction_sets_follow_from_flags(
    flags: str, isa: str, vnni: bool, tmp_path: Path
) -> None:
    nodes = tmp_path / "node"
    for name in ("node0", "node1", "online"):
        (nodes / name).mkdir(parents=True)
    found, notes = cpu_probe.cpu(cpuinfo(tmp_path / "cpuinfo", "Ryzen", flags), nodes)
    assert (found.model, found.isa, found.vnni, found.numa_nodes) == ("Ryzen", isa, vnni, 2)
    assert not notes


def test_a_processor_without_proc_is_still_one(tmp_path: Path) -> None:
    found, notes = cpu_probe.cpu(tmp_path / "none", tmp_path / "none")
    assert found.cores >= 1 and found.isa == "plain" and found.numa_nodes == 1
    assert "processor is not known" in notes[0]


# memory


def test_a_containers_limit_is_the_total(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").write_text("MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n")
    (tmp_path / "self/cgroup").write_text("0::/box\n")
    group = tmp_path / "cg/box"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(str(2 * GIB))
    (group / "memory.current").write_text(str(GIB))
    found, notes = memory_probe.memory(tmp_path, tmp_path / "cg")
    assert (found.total, found.available, notes) == (2 * GIB, GIB, [])


def test_memory_without_proc_is_unknown_and_says_so(tmp_path: Path) -> None:
    found, notes = memory_probe.memory(tmp_path / "none", tmp_path / "none")
    assert found == Memory()
    assert "memory is not known" in notes[0]


def test_reading_speed_is_measured_in_time_for_all_cores_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    now = [0.0]

    def slow(threads: int, seconds: float, buffer: int) -> float:
        asked.append(threads)
        now[0] += 0.6
        return 10.0 * threads

    monkeypatch.setattr("engine.machine.probes.bandwidth.read_bandwidth", slow)
    monkeypatch.setattr(bandwidth.time, "perf_counter", lambda: now[0])
    speeds, notes = bandwidth.read_speeds(16)
    assert asked == [16, 1, 8]  # 4 and 2 would take longer than there is time
    assert now[0] <= bandwidth.MEASURE_SECONDS
    assert speeds == ((1, 10.0), (8, 80.0), (16, 160.0)) and not notes


def test_reading_speed_needs_our_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("kernels.cpu.build.library_path", lambda: tmp_path / "none.so")
    speeds, notes = bandwidth.read_speeds(2)
    assert speeds == () and "not built" in notes[0]


# GPUs


class NvmlError(Exception):
    pass


class FakeNvml(ModuleType):
    """nvidia-ml-py over GPUs made up by the test; what a GPU lacks raises."""

    NVMLError = NvmlError

    def __init__(self, gpus: list[dict[str, Any]], broken: str = "") -> None:
        super().__init__("pynvml")
        self.gpus, self.broken, self.open = gpus, broken, 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise NvmlError(self.broken)
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, Any]:  # noqa: N802
        return self.gpus[index]

    def nvmlSystemGetProcessName(self, pid: int) -> bytes:  # noqa: N802
        if pid == 9:
            raise NvmlError("not yours")
        return b"/usr/lib/firefox/firefox --profile x"

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)

        def answer(*arguments: Any) -> Any:
            source = arguments[0] if arguments else {"nvmlSystemGetDriverVersion": "580.1"}
            if name not in source:
                raise NvmlError(f"{name} is not supported")
            return source[name]

        return answer


def card(**extra: Any) -> dict[str, Any]:
    memory = SimpleNamespace(total=24 * GIB, free=22 * GIB)
    return {"nvmlDeviceGetMemoryInfo": memory, "nvmlDeviceGetName": "RTX 4090", **extra}


def pci(tmp_path: Path, vendor: str) -> Path:
    device = tmp_path / "pci" / "0000:01:00.0"
    device.mkdir(parents=True, exist_ok=True)
    (device / "class").write_text("0x030000\n")
    (device / "vendor").write_text(vendor + "\n")
    return tmp_path / "pci"


def test_a_gpu_tells_what_its_driver_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    users = [
        SimpleNamespace(pid=7, usedGpuMemory=600 << 20),
        SimpleNamespace(pid=9, usedGpuMemory=None),
    ]
    library = FakeNvml(
        [
            card(
                nvmlDeviceGetCudaComputeCapability=(8, 9),
                nvmlDeviceGetMaxPcieLinkGeneration=4,
                nvmlDeviceGetMaxPcieLinkWidth=16,
                nvmlDeviceGetDisplayActive=1,
                nvmlDeviceGetMaxClockInfo=10501,
                nvmlDeviceGetMemoryBusWidth=384,
                nvmlDeviceGetGraphicsRunningProcesses=users,
                nvmlDeviceGetComputeRunningProcesses=users[:1],
            )
        ]
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    (found,), problems, notes = gpu_probe.gpus(tmp_path)
    assert found == Gpu(
        "RTX 4090", 24 * GIB, 22 * GIB, "580.1", "8.9", 4, 16, True,
        (GpuUser("firefox", 600 << 20), GpuUser("process 9", 0)), 1008.1,
    )  # fmt: skip
    assert round(found.pcie_gb_s, 1) == 31.5 and found.usable
    assert not problems and not notes and library.open == 0


def test_what_our_own_engine_holds_is_free_for_the_next_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        ours = [
            SimpleNamespace(pid=os.getpid(), usedGpuMemory=GIB // 2),
            SimpleNamespace(pid=child.pid, usedGpuMemory=GIB),
            SimpleNamespace(pid=1, usedGpuMemory=GIB),
        ]
        library = FakeNvml([card(nvmlDeviceGetComputeRunningProcesses=ours)])
        monkeypatch.setitem(sys.modules, "pynvml", library)
        (found,), _, _ = gpu_probe.gpus(tmp_path)
    finally:
        child.communicate(b"\n")
    assert found.free == 22 * GIB + GIB + GIB // 2
    assert found.users == (GpuUser("firefox", GIB),)


@pytest.mark.parametrize(
    ("setting", "shown"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("1", [1]),
        ("2,0", [2, 0]),
        ("0,7,1", [0]),
        ("0,0,1", [0]),
        ("GPU-b", [1]),
        ("GPU-c, gpu-a", [2, 0]),
        ("GPU-", []),
        ("nonsense,0", []),
    ],
)
def test_gpus_are_numbered_as_cuda_shows_them(setting: str | None, shown: list[int]) -> None:
    assert gpu_probe.visible(["GPU-a1", "GPU-b2", "GPU-c3"], setting) == shown


def test_gpus_that_are_hidden_are_not_planned_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = {**card(), "nvmlDeviceGetName": "RTX 3090"}
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml([card(), other]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    found, _, notes = gpu_probe.gpus(tmp_path)
    assert [gpu.name for gpu in found] == ["RTX 3090"]
    assert notes == ["CUDA_VISIBLE_DEVICES shows 1 of 2 GPUs"]


def test_a_gpu_that_says_little_is_still_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml([card(), {}]))
    found, _, notes = gpu_probe.gpus(tmp_path)
    assert found == (Gpu("RTX 4090", 24 * GIB, 22 * GIB, "580.1"),)
    assert "GPU 1 does not answer" in notes[0]


@pytest.mark.parametrize("installed", [True, False])
def test_a_gpu_without_its_driver_or_library_is_a_problem(
    installed: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = FakeNvml([], broken="driver not loaded") if installed else None
    monkeypatch.setitem(sys.modules, "pynvml", library)
    found, problems, _ = gpu_probe.gpus(pci(tmp_path, "0x10de"))
    assert not found and len(problems) == 1
    assert problems[0].fix == ("sudo apt install nvidia-driver" if installed else "nvidia-ml-py")


@pytest.mark.parametrize(
    ("driver", "people"),
    [
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4060 Laptop GPU", "RTX 4060 Laptop GPU"),
        ("NVIDIA H200", "H200"),
        ("Tesla T4", "Tesla T4"),
        ("NVIDIA ", "NVIDIA "),
    ],
)
def test_gpus_are_called_as_people_call_them(
    driver: str, people: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = FakeNvml([card(nvmlDeviceGetName=driver)])
    monkeypatch.setitem(sys.modules, "pynvml", library)
    (found,), _, _ = gpu_probe.gpus(tmp_path)
    assert found.name == people


def test_a_driver_that_was_updated_wants_a_restart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = FakeNvml([], broken="Driver/library version mismatch")
    monkeypatch.setitem(sys.modules, "pynvml", library)
    _, (problem,), _ = gpu_probe.gpus(pci(tmp_path, "0x10de"))
    assert "version mismatch" in problem.what and problem.fix == "sudo reboot"


def test_a_driver_that_cannot_count_is_not_taken_for_no_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(self: FakeNvml) -> int:
        raise NvmlError("Unknown Error")

    monkeypatch.setattr(FakeNvml, "nvmlDeviceGetCount", broken)
    monkeypatch.setitem(sys.modules, "pynvml", FakeNvml([]))
    found, _, notes = gpu_probe.gpus(tmp_path)
    assert not found and notes == ["The GPUs cannot be asked: Unknown Error"]


@pytest.mark.parametrize("installed", [True, False])
def test_no_gpu_is_no_problem(
    installed: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = FakeNvml([], broken="no library") if installed else None
    monkeypatch.setitem(sys.modules, "pynvml", library)
    found, problems, notes = gpu_probe.gpus(pci(tmp_path, "0x1002"))
    assert not found and not problems
    assert notes == ["An AMD GPU is here; ktchat uses NVIDIA GPUs only", "No NVIDIA GPU was found"]


def test_an_old_library_does_not_break_the_look(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library = SimpleNamespace(NVMLError=NvmlError, nvmlInit=lambda: None, nvmlShutdown=lambda: None)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    found, problems, notes = gpu_probe.gpus(tmp_path)
    assert not found and not problems and "cannot be asked" in notes[0]


# disk


def test_free_space_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    free, notes = disk_probe.free_space(tmp_path / "a" / "b")
    assert free > 0 and not notes


def test_a_disk_is_read_where_it_can_be(tmp_path: Path) -> None:
    speed, notes = disk_probe.read_speed(tmp_path)
    assert speed == 0 and "no model on it yet" in notes[0]
    with (tmp_path / "m.gguf").open("wb") as file:
        file.truncate(disk_probe.SMALLEST)
    speed, notes = disk_probe.read_speed(tmp_path)
    assert speed > 0 or "not measured" in notes[0]  # a file system without O_DIRECT


# software


def test_what_a_gpu_needs_is_named_with_the_command() -> None:
    found = Software(llama_cpp="0.3.36", native=True)
    assert software_probe.problems(found, ()) == []
    assert software_probe.problems(found, (Gpu("GTX", GIB, GIB, compute="7.5"),)) == []
    gpus = (Gpu("RTX", GIB, GIB, compute="8.9"),)
    (packages,) = software_probe.problems(found, gpus)
    assert packages.what.endswith("torch, triton")
    assert packages.fix.endswith("install 'torch>=2.11' 'triton>=3.6'")
    everything = Software("0.3.36", True, "2", "13.0", "3", "0.6", True)
    assert software_probe.problems(everything, gpus) == []
    (for_cpu,) = software_probe.problems(dataclasses.replace(everything, torch_cuda=""), gpus)
    assert "torch 2 was built for the CPU only" in for_cpu.what
    assert "--force-reinstall 'torch>=2.11'" in for_cpu.fix
    (slower,) = software_probe.problems(dataclasses.replace(everything, flashinfer=""), gpus)
    assert "our own attention" in slower.what and "flashinfer-python" in slower.fix


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("cuda: Optional[str] = '12.8'", "12.8"),
        ('cuda = "13.0"', "13.0"),
        ("cuda: Optional[str] = None", ""),
        ("hip: Optional[str] = '6.3'", ""),
        ("", ""),
    ],
)
def test_torchs_cuda_version_is_read_from_its_files(
    line: str, version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('it must not be imported')")
    (package / "version.py").write_text(f"__version__ = '2.13.0'\n{line}\ndebug = False\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert software_probe.software().torch_cuda == version


def test_software_is_found_without_importing_it() -> None:
    before = set(sys.modules)
    assert software_probe.software().llama_cpp
    assert not {"torch", "llama_cpp"} & (set(sys.modules) - before)


# everything


def test_speeds_are_measured_once_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def measure(cores: int) -> tuple[tuple[tuple[int, float], ...], list[str]]:
        calls.append(cores)
        return ((1, 20.0), (cores + 1, 40.0)), []

    monkeypatch.setattr(bandwidth, "read_speeds", measure)
    unmeasured = hardware.probe(tmp_path, measure=False)
    assert not unmeasured.memory.read_gb_s and any("doctor" in note for note in unmeasured.notes)
    first = hardware.probe(tmp_path)
    assert first.memory.best_read_gb_s == 40.0
    assert hardware.probe(tmp_path).memory.read_gb_s == first.memory.read_gb_s
    assert hardware.probe(tmp_path, measure=False).memory.read_gb_s == first.memory.read_gb_s
    assert len(calls) == 1
    hardware.probe(tmp_path, fresh=True)
    assert len(calls) == 2


@pytest.mark.parametrize(("load", "busy"), [(0.1, False), (500.0, True)])
def test_a_busy_machine_is_told_to_measure_again(
    load: float, busy: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bandwidth, "read_speeds", lambda cores: (((1, 5.0),), []))
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    for _ in range(2):  # the second time nothing is measured, and it is still so
        found = hardware.probe(tmp_path)
        assert any("--fresh" in note for note in found.notes) == busy


def test_a_speed_of_a_busy_machine_is_measured_again_when_it_is_quiet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    load, speeds = [500.0], [5.0, 40.0, 80.0]
    monkeypatch.setattr(bandwidth, "read_speeds", lambda cores: (((1, speeds.pop(0)),), []))
    monkeypatch.setattr("os.getloadavg", lambda: (load[0], 0.0, 0.0))
    assert hardware.probe(tmp_path).memory.best_read_gb_s == 5.0
    load[0] = 0.1
    assert hardware.probe(tmp_path, measure=False).memory.best_read_gb_s == 5.0
    quiet = [hardware.probe(tmp_path) for _ in range(2)]
    assert [found.memory.best_read_gb_s for found in quiet] == [40.0, 40.0]
    assert not any("--fresh" in note for found in quiet for note in found.notes)


def test_measurements_are_kept_under_what_a_full_look_finds(tmp_path: Path) -> None:
    full, here = hardware.probe(tmp_path, measure=False), hardware.here()
    assert hardware.machine_key(here.cpu, here.memory) == hardware.machine_key(
        full.cpu, full.memory
    )


def test_room_that_a_loaded_model_will_make() -> None:
    found = Hardware(memory=Memory(10, 4))
    assert found.freeing(3).memory.available == 7
    assert found.freeing(300).memory.available == 10
    assert found.freeing(-3) == found


@pytest.mark.parametrize("content", ["", "[]", "{", '{"machine": 3}', "\x00" * 50, '{"a":' * 9999])
def test_a_damaged_notebook_is_an_empty_one(content: str, home: Path) -> None:
    (home / "cache").mkdir(parents=True)
    (home / "cache/machine.json").write_text(content)
    assert measurements.read("machine") in ({}, {"machine": 3})
    assert hardware.probe(measure=False).cpu.cores >= 1


def test_nonsense_in_the_notebook_is_not_believed(home: Path, tmp_path: Path) -> None:
    key = hardware.machine_key(
        hardware.probe(measure=False).cpu, hardware.probe(measure=False).memory
    )
    for speeds in ({"1": -5}, {"x": 3}, {"1": "fast"}, {"1": True}, [1], {"1": 1e9}):
        measurements.write("machine", {key: {"memory_read_gb_s": speeds, "disk_read_gb_s": [3]}})
        assert hardware.probe(measure=False).memory.read_gb_s == ()


def test_a_home_that_cannot_be_written_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KTCHAT_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(bandwidth, "read_speeds", lambda cores: (((1, 5.0),), []))
    found = hardware.probe(tmp_path)
    assert found.memory.best_read_gb_s == 5.0
    assert any("cannot be kept" in note for note in found.notes)


# profiles and words


def test_every_shipped_profile_loads_and_says_that_it_is_assumed() -> None:
    assert set(profiles.names()) == {
        "4090-64gb", "3090-128gb", "4060-32gb", "no-gpu-32gb", "no-gpu-16gb-laptop",
        "dual-3090-128gb", "h200-1tb",
    }  # fmt: skip
    for name in profiles.names():
        found = profiles.load(name)
        assert found.name == name and "assumed" in found.assumed
        assert found.memory.best_read_gb_s > 10 and found.memory.available < found.memory.total
        assert len(found.gpus) == {"no": 0, "dual": 2}.get(name.split("-")[0], 1)
        assert all(gpu.usable and gpu.read_gb_s > 200 and gpu.pcie_gb_s > 10 for gpu in found.gpus)


def test_a_machine_written_as_json_is_read_back(tmp_path: Path) -> None:
    found = hardware.probe(measure=False)
    gpu = Gpu("RTX", GIB, GIB, "1", "8.9", 4, 16, True, (GpuUser("firefox", 5),), 936.5)
    memory = Memory(4 * GIB, 3 * GIB, ((1, 20.0), (8, 71.5)))
    found = Hardware(cpu=found.cpu, memory=memory, gpus=(gpu,), problems=(Problem("x", "y"),))
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(found.to_dict()))
    again = profiles.load(str(path))
    assert (again.cpu, again.memory, again.gpus) == (found.cpu, memory, (gpu,))
    assert again.name == "mine" and again.assumed


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"cpu": {"cores": 0}}, "cpu.cores"),
        ({"cpu": {"cores": "8"}}, "cpu.cores"),
        ({"cpu": {"cores": 8, "isa": "sse9"}}, "cpu.isa"),
        ({"memory": {"total": -1}}, "memory.total"),
        ({"memory": {"total": 5, "available": 6}}, "memory.available"),
        ({"memory": {"total": 5, "read_gb_s": {"1": float("inf")}}}, "read_gb_s.1"),
        ({"memory": {"total": 5, "read_gb_s": {"many": 3}}}, "read_gb_s.many"),
        ({"gpus": [{"name": "a\x1b[2J", "total": 5}]}, "gpus[0].name"),
        ({"gpus": [{"name": "a"}]}, "gpus[0].total"),
        ({"gpus": [{"name": "a", "total": 1}] * 17}, "gpus"),
        ({"gpus": {}}, "gpus"),
    ],
)
def test_a_profile_that_says_nonsense_is_refused(
    change: dict[str, Any], field: str, tmp_path: Path
) -> None:
    good = {"cpu": {"cores": 8}, "memory": {"total": 5}}
    path = tmp_path / "p.json"
    path.write_text(json.dumps({**good, **change}))
    with pytest.raises(DataFileError) as caught:
        profiles.load(str(path))
    assert field in caught.value.why and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_profile_that_is_no_json_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(content)
    with pytest.raises(DataFileError):
        profiles.load(str(path))
    with pytest.raises(DataFileError, match="no profile"):
        profiles.load("4090")


def test_a_machine_in_words() -> None:
    found = Hardware(
        cpu=Cpu("Ryzen 9 7950X", 16, "avx512", True),
        memory=Memory(64_000_000_000, 51_000_000_000, ((1, 30.2), (16, 71.0))),
        gpus=(Gpu("RTX 4090", 24_000_000_000, 22_900_000_000, users=(GpuUser("firefox", 600_000_000),)),),
    )  # fmt: skip
    assert machine_report.lines(found) == [
        ("CPU", "Ryzen 9 7950X · 16 cores · AVX-512 with VNNI"),
        ("RAM", "64.0 GB, 51.0 GB free · reads 71 GB/s (1 thread 30)"),
        ("GPU", "RTX 4090 · 24.0 GB, 22.9 GB free (firefox 600 MB)"),
        ("Disk", "0 B free"),
    ]
    assert "computes on the CPU. Compute capability" in machine_report.gpu_use(found)[1]
    (card,) = found.gpus
    found = dataclasses.replace(
        found,
        gpus=(
            dataclasses.replace(card, compute="8.9", pcie_gen=4, pcie_width=16, read_gb_s=1008.1),
        ),
    )
    assert machine_report.lines(found)[2][1] == (
        "RTX 4090 · 24.0 GB, 22.9 GB free (firefox 600 MB) · reads up to 1,008 GB/s"
        " · PCIe 4 x16, 32 GB/s · compute 8.9"
    )
    assert "Not installed" in machine_report.gpu_use(found)[1]
    assert machine_report.gpu_use(dataclasses.replace(found, assumed="x"))[1].endswith("on the GPU")
    assert machine_report.lines(Hardware())[1:3] == [
        ("RAM", "not known"),
        ("GPU", "none that can be used"),
    ]
