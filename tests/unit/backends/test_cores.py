"""Workers are as many as the affinity mask and the container's quota allow."""

import os
from pathlib import Path

import pytest

from rerank_sidecar.backends.cores import available_cores

ALL = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("cpu_max", "expected"),
    [
        ("max 100000", ALL),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("190000 100000", 1),
        ("100000000 100000", ALL),
    ],
)
def test_quota_of_cgroup_v2(tmp_path: Path, cpu_max: str, expected: int) -> None:
    (tmp_path / "cpu.max").write_text(cpu_max + "\n")
    assert available_cores(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", ALL), ("100000", 1)])
def test_quota_of_cgroup_v1(tmp_path: Path, quota: str, expected: int) -> None:
    folder = tmp_path / "cpu"
    folder.mkdir()
    (folder / "cpu.cfs_quota_us").write_text(quota + "\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cores(tmp_path) == expected


def test_without_a_cgroup_the_affinity_mask_decides(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == ALL
    one = min(os.sched_getaffinity(0))
    everything = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {one})
    try:
        assert available_cores(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, everything)
