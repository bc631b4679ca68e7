"""The folder in which several processes keep their metrics."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from service.telemetry.shared_metrics import LEFTOVER_AGE_S, PREFIX, metrics_folder


@pytest.fixture(autouse=True)
def _temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def make_old(folder: Path) -> None:
    then = folder.stat().st_mtime - LEFTOVER_AGE_S - 1
    os.utime(folder, (then, then))


def test_the_folder_is_removed_at_the_end_with_its_files() -> None:
    with metrics_folder() as folder:
        (folder / "counter_1.db").touch()
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_only_leftovers_are_removed_at_the_start(tmp_path: Path) -> None:
    leftover, new, other = (tmp_path / name for name in (f"{PREFIX}old", f"{PREFIX}new", "else"))
    for folder in (leftover, new, other):
        folder.mkdir()
        (folder / "counter_1.db").touch()
    (tmp_path / f"{PREFIX}link").symlink_to(other)
    for folder in (leftover, other):
        make_old(folder)
    with metrics_folder() as in_use:
        make_old(in_use)
        with metrics_folder():
            assert in_use.exists()
    assert not leftover.exists()
    assert (new / "counter_1.db").exists()
    assert (other / "counter_1.db").exists()
