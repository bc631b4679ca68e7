"""How disk space is counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.bench.footprint import disk_mb


def test_hard_links_and_links_to_folders_take_no_disk_space(tmp_path: Path) -> None:
    file = tmp_path / "environment" / "lib" / "file"
    file.parent.mkdir(parents=True)
    file.write_bytes(os.urandom(3_000_000))
    assert disk_mb(tmp_path) == pytest.approx(3, abs=0.1)
    os.link(file, file.with_name("other"))
    (tmp_path / "environment" / "lib64").symlink_to("lib")
    assert disk_mb(tmp_path) == pytest.approx(3, abs=0.1)
