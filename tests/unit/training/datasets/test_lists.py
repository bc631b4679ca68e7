"""Lists of pictures that a user writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.core.manifest import EMOTIONS
from tests.unit.training.made_up import write_list, write_picture
from training.datasets import load
from training.datasets.faces import DatasetError, FilePictures

BOXED = ("image", "label", "left", "top", "width", "height")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        write_picture(tmp_path / f"images/{number}.png", number)
    write_list(
        tmp_path / "train.csv",
        ("number", "label", "image"),
        [(7, "happy", "images/0.png"), (8, "2", "images/1.png"), (9, "other", "images/1.png")],
    )
    write_list(tmp_path / "test.csv", ("image", "label"), [("images/2.png", "neutral")])
    (tmp_path / "emotions.yaml").write_text("2: sad\nother: skip\n")
    return tmp_path


def test_labels_are_names_or_explained_by_a_map(folder: Path) -> None:
    dataset = load("list", folder)
    assert [EMOTIONS[label] for label in dataset.training.labels] == ["happiness", "sadness"]
    assert {name: len(rows) for name, rows in dataset.tests.items()} == {"test": 1}
    assert dataset.problems == ("skipped: 1 training images labelled other",)
    (folder / "emotions.yaml").unlink()
    with pytest.raises(DatasetError, match=r"the label '2' of train\.csv line 3 is a number.*emotions\.yaml"):
        load("list", folder)


def test_boxes_are_read(folder: Path) -> None:
    write_list(folder / "train.csv", BOXED, [("images/0.png", "happy", 1, 2, 30, 40)])
    with pytest.raises(DatasetError, match="either all lists have boxes"):
        load("list", folder)
    (folder / "test.csv").unlink()
    pictures = load("list", folder).training.pictures
    assert isinstance(pictures, FilePictures)
    assert pictures.boxes is not None
    assert pictures.boxes.tolist() == [[1, 2, 31, 42]]


def test_a_bad_row_is_named_by_its_line(folder: Path) -> None:
    rows = [
        ("images/0.png", "happy", 1, 2, 0, 40),
        ("images/0.png", "happy", 1),
        ("images/9.png", "happy", *[9] * 4),
    ]
    write_list(folder / "train.csv", BOXED, rows)
    (folder / "test.csv").unlink()
    with pytest.raises(DatasetError, match="Fix them") as refused:
        load("list", folder)
    for part in (
        "malformed rows (2): train.csv line 2 (a face of 0x40 px)",
        "missing files (1): images/9.png",
    ):
        assert part in str(refused.value)


def test_a_list_without_header_is_refused(folder: Path) -> None:
    (folder / "train.csv").write_text("images/0.png,happy\n")
    with pytest.raises(DatasetError, match=r"train\.csv has no column image or label"):
        load("list", folder)
