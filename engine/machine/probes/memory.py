"""RAM: how much there is for us, by Linux's /proc and cgroups (1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from engine.machine.types import Memory

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_LIMITS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
"""Limit and usage of a group: version 2, version 1."""


def memory(proc: Path = _PROC, cgroup: Path = _CGROUP) -> tuple[Memory, list[str]]:
    """RAM without its speed, and what could not be found out."""
    try:
        total = _meminfo(proc / "meminfo", "MemTotal")
        available = available_memory(proc, cgroup)
    except (OSError, ValueError, IndexError) as error:
        return Memory(), [f"The size of the memory is not known: {error}"]
    limits = [
        limit
        for folder in _groups(proc / "self" / "cgroup", cgroup)
        for name, _ in _LIMITS
        if (limit := _number(folder / name)) is not None
    ]
    return Memory(min([total, *limits]), available), []


def available_memory(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int:
    """Bytes that can be taken without swapping: the least of the system's and of every group above us.

    Cached files count as free, since the system gives them up. Raises `OSError`.
    """
    free = [_meminfo(proc / "meminfo", "MemAvailable")]
    for folder in _groups(proc / "self" / "cgroup", cgroup):
        for limit_name, usage_name in _LIMITS:
            limit, usage = _number(folder / limit_name), _number(folder / usage_name)
            if limit is not None and usage is not None:
                free.append(limit - usage + _cached(folder / "memory.stat"))
    return max(0, min(free))


def _meminfo(path: Path, field: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) << 10
    raise OSError(f"{path} has no {field}")


def _groups(path: Path, root: Path) -> Iterator[Path]:
    """Folders of the memory groups that this process is in, from the innermost outwards."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "memory" if controllers else root
        folder = top / name.lstrip("/")
        # Inside a container the path may be the host's: the root then is our own group.
        yield from (parent for parent in (folder, *folder.parents) if parent.is_relative_to(top))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # absent, or "max"
        return None


def _cached(path: Path) -> int:
    """Bytes of files in the group's page cache that can be dropped."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return 0
    values = dict(line.split()[:2] for line in lines if " " in line)
    return int(values.get("total_inactive_file", values.get("inactive_file", 0)))
