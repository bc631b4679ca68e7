"""RAF-DB, from made-up folders in its official layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.core.manifest import EMOTIONS
from tests.unit.training.made_up import write_list, write_picture, write_rafdb
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
    assert (dataset.emotions, dataset.label_emotions) == (EMOTIONS[:7], ())
    assert dataset.training.names[0] == "Image/aligned/train_00001_aligned.jpg"


def test_counts_that_differ_from_the_published_ones_are_reported(folder: Path) -> None:
    assert load("rafdb", folder).problems == (
        "train has 7 images; published: 12271",
        "test has 1 images; published: 3068",
    )


def test_unlisted_images_are_counted(folder: Path) -> None:
    (folder / "Image/aligned/train_99999_aligned.jpg").touch()
    assert "not used: 1 files in Image/aligned" in load("rafdb", folder).problems[0]


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
    with pytest.raises(DatasetError, match="no training pictures of neutral"):
        load("rafdb", write_rafdb(tmp_path / "basic", {"test_0001": 1}))


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    for name, labels in (("train", range(1, 8)), ("test", (4,))):
        rows = [(f"{name}_{number:05}_aligned.jpg", number) for number in labels]
        write_list(tmp_path / f"data/{name}_labels.csv", ("image", "label"), rows)
        for image, number in rows:
            write_picture(tmp_path / "data/DATASET" / name / str(number) / image, number + 10 * len(rows))
    return tmp_path / "data"


def test_kaggles_lists_are_read(kaggle: Path, folder: Path) -> None:
    dataset, official = load("rafdb", kaggle), load("rafdb", folder)
    assert dataset.training.labels.tolist() == official.training.labels.tolist()
    assert dataset.tests["test"].labels.tolist() == official.tests["test"].labels.tolist()
    assert dataset.training.names[0] == "DATASET/train/1/train_00001_aligned.jpg"
    assert dataset.emotions == EMOTIONS[:7]


def test_bad_rows_of_kaggles_lists_are_named(kaggle: Path) -> None:
    with (kaggle / "train_labels.csv").open("a") as file:
        file.write("train_00001_aligned.jpg,1\ntrain_00009_aligned.jpg,8\ntrain_00009_aligned.jpg,2\n")
    with pytest.raises(DatasetError, match="Fix them") as refused:
        load("rafdb", kaggle)
    for part in (
        "images listed twice (1): train_labels.csv line 9",
        "labels that are not from 1 to 7 (1): train_labels.csv line 10",
        "missing files (1): DATASET/train/2/train_00009_aligned.jpg",
    ):
        assert part in str(refused.value)
    assert len(load("rafdb", kaggle, skip_bad=True).training) == 7


def test_an_error_names_both_forms(kaggle: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"list_patition_label\.txt, .*train_labels\.csv, test_labels\.csv"
    ):
        load("rafdb", tmp_path)
    (kaggle / "DATASET").rename(kaggle / "elsewhere")
    with pytest.raises(DatasetError, match="looked for DATASET"):
        load("rafdb", kaggle)
