"""EmoNet-Face and DiffusionFER, from made-up folders in the layouts that their readers assume."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.core.manifest import EMOTIONS
from tests.unit.training.made_up import write_class_folders, write_list, write_picture
from training.datasets import load
from training.datasets.emonet_face import CATEGORIES, COLUMNS
from training.datasets.faces import DatasetError

ANSWERS = {
    "00000": [("Elation", True), ("Sadness", False)],
    "00001": [("Elation", True), ("Contentment", True)],
    "00002": [("Fear", True), ("Fear", False), ("Fear", True)],
    "00003": [("Fear", True), ("Fear", False)],
    "00004": [("Shame", True), ("Sexual Lust", False)],
    "00005": [("Anger", True), ("Pain", True)],
    "00006": [("Contempt", True)],
}


@pytest.fixture
def emonet(tmp_path: Path) -> Path:
    rows = []
    for seed, (name, answers) in enumerate(ANSWERS.items()):
        write_picture(tmp_path / "images" / f"{name}.{'png' if seed % 2 else 'jpg'}", seed)
        rows += [(name, f"human-{place}", value, emotion) for place, (emotion, value) in enumerate(answers)]
    write_list(tmp_path / "binary.csv", COLUMNS, rows)
    return tmp_path


def test_confirmed_categories_become_emotions(emonet: Path) -> None:
    dataset = load("emonet_face", emonet)
    labels = [EMOTIONS[label] for label in dataset.training.labels]
    assert labels == ["happiness", "happiness", "fear", "contempt"]
    assert (dataset.emotions, dataset.tests) == (EMOTIONS, {})
    assert dataset.problems == (
        "skipped: 1 training images without a confirmed category",
        "skipped: 1 training images labelled Shame",
        "skipped: 1 training images with categories of several emotions",
    )
    assert "CC BY 4.0" in dataset.licences[0]


def test_categories_mean_one_emotion_each() -> None:
    names = [name for names in CATEGORIES.values() for name in names]
    assert len(names) == len(set(names))
    assert set(CATEGORIES) <= set(EMOTIONS)


def test_a_missing_picture_and_a_bad_answer_are_named(emonet: Path) -> None:
    (emonet / "images/00006.jpg").unlink()
    with (emonet / "binary.csv").open("a") as file:
        file.write("00000,human-7,maybe,Anger\n")
    with pytest.raises(
        DatasetError, match=r"True or False \(1\).*line 16; missing files \(1\): images/00006\.jpg"
    ):
        load("emonet_face", emonet)


@pytest.mark.parametrize("below", [False, True])
def test_diffusionfer_is_read_from_its_cropped_faces(tmp_path: Path, below: bool) -> None:
    root = write_class_folders(
        tmp_path / "DiffusionEmotion_S",
        {"cropped/angry": 2, "cropped/surprise": 1, "original/angry": 2},
    )
    dataset = load("diffusionfer", tmp_path if below else root)
    assert [EMOTIONS[label] for label in dataset.training.labels] == ["anger", "anger", "surprise"]
    assert (dataset.emotions, dataset.tests) == (EMOTIONS[:7], {})


def test_packed_diffusionfer_is_refused_with_what_helps(tmp_path: Path) -> None:
    (tmp_path / "cropped").mkdir()
    (tmp_path / "cropped/angry.zip").touch()
    with pytest.raises(DatasetError, match=r"looked for cropped/EMOTION/.*unpack its archives"):
        load("diffusionfer", tmp_path)
