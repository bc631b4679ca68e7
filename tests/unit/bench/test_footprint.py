"""How disk space is counted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.bench.footprint import disk_mb


def test_a_file_with_two_names_counts_once_and_a_link_to_a_folder_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "environment" / "lib" / "file"
    file.parent.mkdir(parents=True)
    file.write_bytes(os.urandom(3_000_000))
    assert disk_mb(tmp_path) == pytest.approx(3, abs=0.1)
    os.link(file, file.with_name("other"))
    (tmp_path / "environment" / "lib64").symlink_to("lib")
    assert disk_mb(tmp_path) == pytest.approx(3, abs=0.1)
