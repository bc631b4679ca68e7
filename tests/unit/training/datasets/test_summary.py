"""The summary of a data set that a user sees before training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.training.made_up import write_class_folders
from training.datasets import LOADERS, load, summary


def test_every_split_is_counted_by_emotion(tmp_path: Path) -> None:
    folder = write_class_folders(
        tmp_path / "data", {"train/neutral": 12, "train/surprise": 1, "test/happy": 2, "test/neutral": 0}
    )
    copy = folder / "train/neutral/copy.png"
    copy.write_bytes((folder / "train/neutral/0.png").read_bytes())
    (folder / "test/happy/1.png").write_text("no picture")
    table, problem = summary(load("folder", folder, skip_bad=True)).rsplit("\n", 1)
    assert [line.split() for line in table.splitlines()] == [
        ["folder", "training", "test"],
        ["neutral", "13", "0"],
        ["happiness", "0", "1"],
        ["surprise", "1", "0"],
        ["none", "clear", "0", "0"],
        ["all", "14", "1"],
        ["distinct", "13", "1"],
    ]
    assert len({len(line) for line in table.splitlines()}) == 1
    assert "unreadable images (1): test/happy/1.png" in problem


@pytest.mark.parametrize("kind", LOADERS)
def test_a_missing_folder_is_an_error_for_every_kind(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="looked for"):
        load(kind, tmp_path / "nowhere")
