"""Data sets with one folder of pictures per emotion."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.core.manifest import EMOTIONS
from tests.unit.training.made_up import write_class_folders, write_picture
from training.datasets import load
from training.datasets.faces import DatasetError
from training.datasets.folders import load_pictures
from training.datasets.labels import EMOTION_OF, SYNONYMS


def test_training_and_tests_are_found_by_their_folders(tmp_path: Path) -> None:
    folder = write_class_folders(
        tmp_path / "data", {"Train/Happy": 2, "Train/sad": 1, "test/sad": 1, "val/neutral": 3}, suffix=".jpg"
    )
    dataset = load("folder", folder)
    assert [EMOTIONS[label] for label in dataset.training.labels] == ["happiness", "happiness", "sadness"]
    assert {name: len(faces) for name, faces in dataset.tests.items()} == {"test": 1, "val": 3}
    assert (dataset.emotions, dataset.label_emotions) == (EMOTIONS[:4], ())
    assert dataset.training.names.tolist() == ["Train/Happy/0.jpg", "Train/Happy/1.jpg", "Train/sad/0.jpg"]


def test_folders_of_emotions_without_splits_are_training_data(tmp_path: Path) -> None:
    dataset = load("folder", write_class_folders(tmp_path / "data", {"joy": 1, "neutral": 1}))
    assert len(dataset.training) == 2
    assert not dataset.tests
    assert dataset.emotions == EMOTIONS[:2]


def test_every_emotion_and_synonym_is_known(tmp_path: Path) -> None:
    assert set(SYNONYMS) == set(EMOTIONS)
    folder = write_class_folders(tmp_path / "data", {f"train/{name.upper()}": 1 for name in EMOTION_OF})
    dataset = load("folder", folder)
    assert dataset.emotions == EMOTIONS
    for name, label in zip(dataset.training.names, dataset.training.labels, strict=True):
        assert name.split("/")[1].lower() in SYNONYMS[EMOTIONS[label]]


def test_a_number_beside_the_name_is_ignored(tmp_path: Path) -> None:
    names = ("0_angry", "01 - Happy", "sad.2", "surprise_03")
    dataset = load("folder", write_class_folders(tmp_path / "data", {f"train/{name}": 1 for name in names}))
    labels = [EMOTIONS[label] for label in dataset.training.labels]
    assert sorted(labels) == ["anger", "happiness", "sadness", "surprise"]


@pytest.mark.parametrize("kind", ["folder", "fer2013"])
def test_a_number_as_the_name_is_refused_with_what_helps(tmp_path: Path, kind: str) -> None:
    folder = write_class_folders(tmp_path / "data", {"train/0": 1, "train/1": 1, "test/0": 1})
    with pytest.raises(DatasetError, match=r"train/0 is a number.*emotions\.yaml.*'0: anger'.*RAF-DB"):
        load(kind, folder)


@pytest.mark.parametrize("parent", ["", "train/"])
def test_an_error_names_an_unknown_emotion_and_the_known_ones(tmp_path: Path, parent: str) -> None:
    folder = write_class_folders(tmp_path / "data", {f"{parent}happy": 1, f"{parent}sleepy": 1})
    with pytest.raises(DatasetError, match=r"sleepy is not a known emotion.*neutral.*angry.*contempt"):
        load("folder", folder)


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param({"train/happy": 1, "extra/happy": 1}, id="an unknown split"),
        pytest.param({"train/happy": 1, "sad": 1}, id="an emotion beside training"),
        pytest.param({"test/happy": 1}, id="no training"),
        pytest.param({"train/happy": 1, "training/happy": 1}, id="training twice"),
    ],
)
def test_an_ambiguous_or_incomplete_layout_is_refused(tmp_path: Path, layout: dict[str, int]) -> None:
    folder = write_class_folders(tmp_path / "data", layout)
    with pytest.raises(DatasetError, match="allowed are one of train"):
        load("folder", folder)


def test_an_empty_or_missing_folder_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DatasetError, match=r"no pictures in .*: looked for train/"):
            load("folder", folder)
    (tmp_path / "train" / "happy").mkdir(parents=True)
    with pytest.raises(DatasetError, match="has no training pictures"):
        load("folder", tmp_path)


def test_files_of_the_system_are_ignored_and_other_files_are_named(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "data", {"train/happy": 2})
    write_picture(folder / "train/happy/person/7.png", 7)
    (folder / ".cache").mkdir()
    write_picture(folder / "train/happy/.small/7.png", 8)
    for name in (".DS_Store", "Thumbs.db"):
        (folder / "train/happy" / name).touch()
    assert len(load("folder", folder).training) == 3
    (folder / "train/happy/notes.txt").touch()
    with pytest.raises(DatasetError, match=r"files that are no pictures \(1\): notes\.txt"):
        load("folder", folder)
    dataset = load("folder", folder, skip_bad=True)
    assert len(dataset.training) == 3
    assert "notes.txt" in dataset.problems[0]


def test_unlabelled_pictures_are_found_at_any_depth(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "data", {"b/c": 1, "a": 2})
    pictures = load_pictures(folder)
    assert [path.relative_to(folder).as_posix() for path in pictures.files] == [
        "a/0.png",
        "a/1.png",
        "b/c/0.png",
    ]
    (folder / "a/0.png").write_text("no picture")
    with pytest.raises(DatasetError, match=r"unreadable images \(1\): a/0\.png"):
        load_pictures(folder)
    with pytest.raises(DatasetError, match=r"no pictures in .*: looked for"):
        load_pictures(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["folder", "fer2013"])
def test_numbers_are_read_with_a_map(tmp_path: Path, kind: str) -> None:
    folder = write_class_folders(
        tmp_path / "data", {"train/0": 2, "train/1": 1, "train/happy": 1, "train/Sleepy": 3, "test/0": 1}
    )
    (folder / "emotions.yaml").write_text("0: Angry\n1: fear\nsleepy: skip\n")
    dataset = load(kind, folder, skip_bad=True)
    labels = [EMOTIONS[label] for label in dataset.training.labels]
    assert labels == ["anger", "anger", "fear", "happiness"]
    assert dataset.problems[0].lower() == "skipped: 3 training images labelled sleepy"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("0: sleepy\n", "0: sleepy is no known emotion; known are neutral"),
        ("anger\n", "is no map of labels to emotions"),
        ("0: [\n", "is not YAML"),
    ],
)
def test_a_bad_map_is_refused(tmp_path: Path, content: str, message: str) -> None:
    folder = write_class_folders(tmp_path / "data", {"train/0": 1})
    (folder / "emotions.yaml").write_text(content)
    with pytest.raises(DatasetError, match=message):
        load("folder", folder)
