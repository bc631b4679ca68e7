"""A file that is being written keeps its old content until the new one is complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.atomic import replacing


def test_the_new_content_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    path.write_text("old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def write_half(path: Path, error: type[BaseException]) -> None:
    with replacing(path) as partial:
        partial.write_text("half")
        raise error


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_error_changes_nothing(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    path.write_text("old")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
