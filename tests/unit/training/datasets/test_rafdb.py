"""RAF-DB, from made-up folders in its official layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.core.manifest import EMOTIONS
from tests.unit.training.made_up import write_rafdb
from training.datasets import load
from training.datasets.faces import DatasetError

LABELS = {f"train_{number:05}": number for number in range(1, 8)} | {"test_0001": 4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_rafdb(tmp_path / "basic", LABELS)


@pytest.mark.parametrize("parent", [False, True])
def test_labels_have_the_meaning_that_the_authors_gave(folder: Path, parent: bool) -> None:
    dataset = load("rafdb", folder.parent if parent else folder)
    assert [EMOTIONS[label] for label in dataset.training.labels] == [
        *("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral")
    ]
    assert EMOTIONS[dataset.tests["test"].labels[0]] == "happiness"
    assert (dataset.served, dataset.auxiliary) == (EMOTIONS[:7], ())
    assert dataset.training.names[0] == "Image/aligned/train_00001_aligned.jpg"


def test_counts_that_differ_from_the_published_ones_are_reported(folder: Path) -> None:
    assert load("rafdb", folder).problems == (
        "train has 7 images; published: 12271",
        "test has 1 images; published: 3068",
    )


def test_unlisted_images_are_counted(folder: Path) -> None:
    (folder / "Image/aligned/train_99999_aligned.jpg").touch()
    assert "not used: 1 files in Image/aligned" in load("rafdb", folder).problems[-1]


@pytest.mark.parametrize("missing", ["EmoLabel/list_patition_label.txt", "Image/aligned"])
def test_an_error_names_missing_files_and_where_to_get_them(folder: Path, missing: str) -> None:
    (folder / missing).rename(folder / "elsewhere")
    with pytest.raises(DatasetError, match=rf"looked for .*{missing}.*signed agreement"):
        load("rafdb", folder)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("train_00002.jpg 8", r"not from 1 to 7 \(1\)"),
        ("train_00002.jpg 0", r"not from 1 to 7 \(1\)"),
        ("train_00002.jpg", r"lines that are not .* \(1\)"),
        ("train_00002.jpg fear", r"lines that are not .* \(1\)"),
        ("valid_00002.jpg 2", r"lines that are not .* \(1\)"),
        ("train_00001.jpg 2", r"listed twice \(1\)"),
    ],
)
def test_a_bad_line_is_named(folder: Path, line: str, fault: str) -> None:
    path = folder / "EmoLabel/list_patition_label.txt"
    path.write_text(path.read_text().replace("train_00002.jpg 2", line) + "\n")
    with pytest.raises(DatasetError, match=rf"{fault}: list_patition_label\.txt line 2"):
        load("rafdb", folder)
    dataset = load("rafdb", folder, skip_bad=True)
    assert len(dataset.training) == 6
    assert "line 2" in dataset.problems[0]


@pytest.mark.parametrize("content", [None, b"\xff\xd8\xff\xe0 no picture \xff\xd9"])
def test_a_listed_image_that_cannot_be_read_is_named(folder: Path, content: bytes | None) -> None:
    path = folder / "Image/aligned/train_00003_aligned.jpg"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"\(1\): Image/aligned/train_00003_aligned\.jpg"):
        load("rafdb", folder)
    assert len(load("rafdb", folder, skip_bad=True).training) == 6


def test_a_list_without_training_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="lists no training images"):
        load("rafdb", write_rafdb(tmp_path / "basic", {"test_0001": 1}))
