"""The number of cores that the process may use, and the default numbers of processes and threads."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.process import cores
from service.process.cores import cores_of_process
from service.settings import Settings


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a control group. The affinity of the process has four cores."""
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    monkeypatch.setattr("service.process.cores.os.sched_getaffinity", lambda _: {0, 1, 2, 3})
    return tmp_path


@pytest.mark.parametrize(
    ("quota", "expected", "threads"),
    [("max", 4, 4), ("50000", 0.5, 1), ("150000", 1.5, 2), ("200000", 2, 2), ("900000", 4, 4)],
)
def test_a_quota_limits_the_cores(group: Path, quota: str, expected: float, threads: int) -> None:
    (group / "cpu.max").write_text(f"{quota} 100000\n")
    assert cores_of_process() == expected
    assert Settings().worker_threads == threads


@pytest.mark.parametrize(
    ("cores", "processes", "threads"),
    [(0.5, 1, 1), (1, 1, 1), (4, 1, 4), (5, 2, 2), (8, 2, 4), (9, 3, 3), (12, 3, 4), (64, 16, 4)],
)
def test_more_than_four_cores_have_several_processes(
    monkeypatch: pytest.MonkeyPatch, cores: float, processes: int, threads: int
) -> None:
    monkeypatch.setattr("service.settings.cores_of_process", lambda: cores)
    assert (Settings().processes, Settings().worker_threads) == (processes, threads)
    # The number of threads also has a default when the number of processes is set.
    assert Settings(processes=2).worker_threads == max(2, int(cores // 2))


@pytest.mark.parametrize(("quota", "expected"), [("-1", 4), ("70000", 0.7)])
def test_a_quota_of_version_1_limits_the_cores(group: Path, quota: str, expected: float) -> None:
    (group / "cpu").mkdir()
    (group / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (group / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores_of_process() == expected


def test_without_control_groups_the_affinity_limits_the_cores(group: Path) -> None:
    assert cores_of_process() == 4
