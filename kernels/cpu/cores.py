"""How many threads the kernels use: physical cores within the affinity mask and the cgroup's CPU quota.

Both are read as Linux has them; elsewhere `os.cpu_count` stands in.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_CPUS = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")


def physical_cores() -> list[int]:
    """One logical CPU of each physical core that this process may run on, lowest first."""
    if not hasattr(os, "sched_getaffinity"):
        return list(range(os.cpu_count() or 1))
    chosen: dict[str, int] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        try:
            siblings = (_CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
        except OSError:
            siblings = str(cpu)
        chosen.setdefault(siblings, cpu)
    return sorted(chosen.values())


def default_threads() -> int:
    """Physical cores, at most the CPU time that a cgroup grants."""
    cores = len(physical_cores())
    quota = _cgroup_quota()
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def _cgroup_quota() -> float | None:
    """CPUs' worth of time in each period, or None without a limit."""
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (_CGROUP / "cpu/cpu.cfs_quota_us").read_text()
            period = (_CGROUP / "cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        limit = float(quota) / float(period)
    except (ValueError, ZeroDivisionError):  # "max": no limit
        return None
    return limit if limit > 0 else None
