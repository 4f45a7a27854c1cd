"""How many processor cores this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_cores(cgroup: Path = _CGROUP) -> int:
    """Count the cores that the affinity mask and the container's quota leave, at least 1.

    A quota of 2.5 cores counts as 2: a third worker would only be throttled. The quota is read
    from cgroup v2 (`cpu.max`) or v1 (`cpu/cpu.cfs_quota_us`), see
    https://docs.kernel.org/admin-guide/cgroup-v2.html.
    """
    cores = visible_cores()
    quota = _quota_v2(cgroup) or _quota_v1(cgroup)
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def visible_cores() -> int:
    """Count the cores that the affinity mask leaves, however little of their time we get."""
    return len(os.sched_getaffinity(0))


def _quota_v2(cgroup: Path) -> float | None:
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    return float(quota) / float(period) if quota.isdigit() and period.isdigit() else None


def _quota_v1(cgroup: Path) -> float | None:
    quota = _read(cgroup / "cpu" / "cpu.cfs_quota_us")
    period = _read(cgroup / "cpu" / "cpu.cfs_period_us")
    return float(quota) / float(period) if quota.isdigit() and period.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
