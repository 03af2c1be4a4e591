"""How many threads the kernels use, and on which cores: physical cores within the affinity mask, performance cores
before efficiency cores, and no more than the CPU time that the process's cgroups grant.

All of it is read as Linux has it; elsewhere `os.cpu_count` stands in.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_EFFICIENCY_CORES = Path("/sys/devices/cpu_atom/cpus")
_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def physical_cores() -> list[int]:
    """One logical CPU of each physical core that this process may run on: performance cores first, then by number."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    chosen: dict[str, int] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        try:
            siblings = (_CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
        except OSError:
            siblings = str(cpu)
        chosen.setdefault(siblings, cpu)
    slow = _efficiency_cores()
    return sorted(chosen.values(), key=lambda cpu: (cpu in slow, cpu))


def default_threads(coordinators: int = 0) -> int:
    """Physical cores, at most the CPU time that cgroups grant, less the threads that wait for a GPU; at least 1."""
    threads = len(physical_cores())
    quota = _cgroup_quota()
    if quota is not None:
        threads = min(threads, math.floor(quota))
    return max(1, threads - coordinators)


def _efficiency_cores() -> frozenset[int]:
    """The slower cores of a hybrid processor; a list such as "8-15,20"."""
    try:
        ranges = [part.split("-") for part in _EFFICIENCY_CORES.read_text().strip().split(",")]
        return frozenset(cpu for ends in ranges for cpu in range(int(ends[0]), int(ends[-1]) + 1))
    except (OSError, ValueError):
        return frozenset()


def _cgroup_quota() -> float | None:
    """CPUs' worth of time in each period, the least of the process's cgroups and their parents; None: no limit."""
    return min(filter(None, map(_limit, _cgroups())), default=None)


def _cgroups() -> Iterator[Path]:
    """Folders of the process's cgroups that ration CPU time, each followed by its parents.

    A container may be told its place as its host sees it; of folders that are not there the nearest parent counts.
    """
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        lines = []
    yield from (_CGROUP, _CGROUP / "cpu")
    for line in lines:
        _, controllers, place = line.split(":", 2)
        root = _CGROUP / "cpu" if "cpu" in controllers.split(",") else _CGROUP
        if (controllers and root == _CGROUP) or ".." in place.split("/"):
            continue
        path = Path(place.lstrip("/"))
        yield from (root / parent for parent in (path, *path.parents))


def _limit(cgroup: Path) -> float | None:
    """One cgroup's quota over its period, as version 2 or 1 writes it; None without one."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        limit = float(quota) / float(period)
    except (ValueError, ZeroDivisionError):  # "max": no limit
        return None
    return limit if limit > 0 else None
