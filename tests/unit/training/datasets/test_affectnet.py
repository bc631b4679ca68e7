"""AffectNet, from made-up folders in its official layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from service.core.manifest import EMOTIONS
from tests.unit.training.made_up import (
    write_affectnet_folders,
    write_affectnet_lists,
    write_list,
    write_picture,
)
from training.datasets import load
from training.datasets.affectnet import MANUAL
from training.datasets.faces import DatasetError

EIGHT = ["neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return write_affectnet_folders(tmp_path / "data", range(8), [1, 7])


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    return write_affectnet_lists(tmp_path / "data", {"training.csv": range(11), "validation.csv": [1, 7, 8]})


@pytest.mark.parametrize(("kind", "classes"), [("affectnet7", 7), ("affectnet8", 8)])
@pytest.mark.parametrize("form", ["folders", "lists"])
def test_expressions_become_emotions(
    form: str, kind: str, classes: int, request: pytest.FixtureRequest
) -> None:
    dataset = load(kind, request.getfixturevalue(form))
    assert (dataset.name, dataset.emotions, dataset.label_emotions) == (kind, EMOTIONS[:classes], ())
    assert [EMOTIONS[label] for label in dataset.training.labels] == EIGHT[:classes]
    validation = [EMOTIONS[label] for label in dataset.tests["validation"].labels]
    assert validation == ["happiness", "contempt"][: classes - 6]
    assert np.array_equal(dataset.training.distributions.argmax(axis=1), dataset.training.majority)


def test_images_without_an_emotion_are_skipped_and_counted(lists: Path) -> None:
    assert load("affectnet7", lists).problems == (
        *(
            f"skipped: 1 training images labelled {name}"
            for name in ("contempt", "none", "uncertain", "no face")
        ),
        "skipped: 1 validation images labelled contempt",
        "skipped: 1 validation images labelled none",
        "training has 7 images; published: 283901",
        "validation has 1 images; published: 3500",
    )
    assert load("affectnet8", lists).problems[-2:] == (
        "training has 8 images; published: 287651",
        "validation has 2 images; published: 4000",
    )


def test_faces_are_cut_out_of_photos(lists: Path) -> None:
    faces = load("affectnet8", lists).training
    assert (faces.pictures.read(np.arange(8), size=20, channels=3) == 255).all()


def test_lists_may_be_in_the_folder_of_their_archive(lists: Path) -> None:
    unpacked = lists / "Manually_Annotated_file_lists"
    unpacked.mkdir()
    for name in ("training.csv", "validation.csv"):
        (lists / name).rename(unpacked / name)
    (lists / "Manually_Annotated").mkdir()
    (lists / MANUAL[0]).rename(lists / MANUAL[1])
    dataset = load("affectnet8", lists)
    assert (len(dataset.training), len(dataset.tests["validation"])) == (8, 2)


def test_a_list_without_header_has_the_official_columns(lists: Path) -> None:
    path = lists / "validation.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    assert len(load("affectnet8", lists).tests["validation"]) == 2


def test_automatic_annotations_are_used_if_manual_ones_are_missing(tmp_path: Path) -> None:
    folder = write_affectnet_lists(
        tmp_path / "data", {"automatically_annotated.csv": [0, 1, 2], "validation.csv": [3]}
    )
    dataset = load("affectnet8", folder)
    assert (len(dataset.training), len(dataset.tests["validation"])) == (3, 1)
    write_affectnet_lists(folder, {"training.csv": [0, 1]})
    assert len(load("affectnet8", folder).training) == 2


def test_an_error_names_missing_files_and_where_to_get_them(tmp_path: Path, lists: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"looked for .*train_set/.*labels\.csv.*training\.csv.*signed agreement"
    ):
        load("affectnet8", tmp_path / "nowhere")
    (lists / MANUAL[0]).rename(lists / "elsewhere")
    with pytest.raises(
        DatasetError, match=r"no images of training\.csv in .*: looked for .*Manually_Annotated_Images"
    ):
        load("affectnet8", lists)


def test_a_missing_column_is_named(lists: Path) -> None:
    path = lists / "training.csv"
    path.write_text(path.read_text().replace("face_width", "width"))
    with pytest.raises(DatasetError, match="has no column face_width"):
        load("affectnet8", lists)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("0/training.csv.png,10,20,20,20,1;2;3,11,-2,-2", "expression '11'"),
        ("0/training.csv.png,10,20,20,20,1;2;3,happy,-2,-2", "happy"),
        ("0/training.csv.png,10,20,20,20,1;2;3,,-2,-2", "expression ''"),
        ("0/training.csv.png,10,20,0,20,1;2;3,0,-2,-2", "a face of 0x20 px"),
        ("0/training.csv.png,NULL,20,20,20,1;2;3,0,-2,-2", "NULL"),
        ("0/training.csv.png,10,20", "expression"),
    ],
)
def test_a_malformed_row_is_named_by_its_line(lists: Path, row: str, reason: str) -> None:
    path = lists / "training.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], row, *lines[2:], "", ""]))
    with pytest.raises(DatasetError, match=rf"malformed rows \(1\): training\.csv line 2 \(.*{reason}"):
        load("affectnet8", lists)
    assert len(load("affectnet8", lists, skip_bad=True).training) == 7


def test_a_face_outside_of_its_photo_is_named(lists: Path) -> None:
    path = lists / "training.csv"
    path.write_text(path.read_text().replace("0/training.csv.png,10,20", "0/training.csv.png,70,20"))
    with pytest.raises(
        DatasetError, match=r"face boxes outside of their image \(1\): .*/0/training\.csv\.png"
    ):
        load("affectnet8", lists)


def test_unpaired_images_and_invalid_annotations_are_named(folders: Path) -> None:
    (folders / "train_set/annotations/3_exp.npy").unlink()
    (folders / "train_set/images/4.jpg").unlink()
    (folders / "val_set/annotations/0_exp.npy").write_bytes(b"")
    np.save(folders / "val_set/annotations/1_exp.npy", "11")
    with pytest.raises(DatasetError, match="Fix them") as refused:
        load("affectnet8", folders)
    for part in (
        "images without an annotation (1): train_set/images/3.jpg",
        "missing files (1): train_set/images/4.jpg",
        "annotations without a number from 0 to 10 (2): val_set/annotations/0_exp.npy, "
        "val_set/annotations/1_exp.npy",
    ):
        assert part in str(refused.value)
    dataset = load("affectnet8", folders, skip_bad=True)
    assert len(dataset.training) == 6
    assert not dataset.tests


def test_annotations_may_be_numbers_or_text(folders: Path) -> None:
    np.save(folders / "train_set/annotations/0_exp.npy", np.array([6]))
    assert EMOTIONS[load("affectnet8", folders).training.labels[0]] == "anger"


def test_folders_without_annotations_are_refused(folders: Path) -> None:
    (folders / "val_set/annotations").rename(folders / "val_set/elsewhere")
    with pytest.raises(DatasetError, match=r"val_set: looked for images/, annotations/"):
        load("affectnet8", folders)


def test_a_set_without_training_images_is_refused(tmp_path: Path) -> None:
    folder = write_affectnet_folders(tmp_path / "data", [7], [0])
    with pytest.raises(DatasetError, match=r"no training pictures of neutral.* fear$"):
        load("affectnet7", folder)


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """Kaggle's form: its list corrects the folder of the second picture."""
    rows = [(0, "anger/image0000006.jpg", "anger", 0.87), (1, "anger/image0000060.jpg", "surprise", 0.8)]
    rows += [(2, "contempt/image0000043.jpg", "contempt", 0.7)]
    for seed, row in enumerate(rows):
        write_picture(tmp_path / "data" / str(row[1]), seed)
    write_list(tmp_path / "data/labels.csv", ("", "pth", "label", "relFCs"), rows)
    return tmp_path / "data"


def test_kaggles_list_is_read_and_has_no_test_split(kaggle: Path) -> None:
    dataset = load("affectnet8", kaggle)
    assert [EMOTIONS[label] for label in dataset.training.labels] == ["anger", "surprise", "contempt"]
    assert (dataset.emotions, dataset.tests) == (EMOTIONS, {})
    assert "no test split" in dataset.problems[-1]
    seven = load("affectnet7", kaggle)
    assert len(seven.training) == 2
    assert seven.problems[0] == "skipped: 1 training images labelled contempt"


def test_an_unknown_label_of_kaggles_list_is_named(kaggle: Path) -> None:
    path = kaggle / "labels.csv"
    path.write_text(path.read_text().replace("surprise", "boredom"))
    with pytest.raises(DatasetError, match=r"'boredom' of labels\.csv line 3 is not a known emotion"):
        load("affectnet8", kaggle)
