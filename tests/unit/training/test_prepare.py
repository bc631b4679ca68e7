"""Faces are found, levelled, cropped and stored as the gateway crops them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.assembly import Engines, assemble, make_engines, served_manifests
from service.core.arrays import Classification, Faces
from service.core.deadline import NEVER, Deadline
from service.core.query import Query
from service.core.timings import Timings
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.fake_engine import FakeClassifier
from tests.unit.training.made_up import noise, write_fer2013, write_list
from training import prepare as module
from training.datasets import load
from training.datasets.faces import DatasetError
from training.prepare import Choice, prepare

REPOSITORY = Settings().model_repository


@dataclass
class RecordingClassifier(FakeClassifier):
    faces: list[Faces] = field(default_factory=list)

    async def classify(self, faces: Faces, deadline: Deadline) -> Classification:
        self.faces.append(faces)
        return await super().classify(faces, deadline)


async def gateways_crops(photo: bytes) -> Faces:
    """What the gateway's classifier gets for a photo."""
    settings = Settings()
    engines = make_engines(settings, *served_manifests(settings), Metrics())
    classifier = RecordingClassifier()
    async with assemble(settings, Engines(classifier, engines.detector)) as assembly:
        await assembly.faces.run(photo, Query(), NEVER, Timings())
    return classifier.faces[0]


@pytest.fixture
def photos(tmp_path: Path, astronaut: NDArray[np.uint8]) -> Path:
    """Photos of one person, most of them happy, and pictures without one good face."""
    person = Image.fromarray(astronaut)
    happy, neutral = tmp_path / "photos/train/happy", tmp_path / "photos/test/neutral"
    for folder in (happy, neutral):
        folder.mkdir(parents=True)
    person.save(happy / "a_photo.jpg", quality=95)
    person.rotate(25, expand=True).save(happy / "b_tilted.png")
    person.rotate(70, expand=True).save(happy / "c_turned.png")
    person.crop((150, 40, 290, 200)).resize((100, 100)).save(happy / "d_close.png")
    person.resize((160, 160)).save(happy / "e_small.png")
    Image.new("RGB", (300, 300)).save(happy / "f_empty.png")
    Image.fromarray(np.concatenate([astronaut, astronaut], axis=1)).save(happy / "g_two.png")
    content = (happy / "a_photo.jpg").read_bytes()
    Image.new("1", (8000, 7000)).save(happy / "h_huge.png")  # more pixels than the gateway accepts
    (happy / "i_torn.jpg").write_bytes(content[: len(content) // 2])
    person.save(neutral / "a_copy.jpg", quality=95)
    return tmp_path / "photos"


def prepared(data: Path, **options: Any) -> Path:
    return prepare("folder", data, data.parent / "faces", REPOSITORY, **options)


def journal(data: Path) -> dict[str, dict[str, Any]]:
    lines = (data.parent / "faces/faces.jsonl").read_text().splitlines()[1:]
    return {Path(line["source"]).stem: line for line in map(json.loads, lines)}


def read(path: Path) -> NDArray[np.int64]:
    with Image.open(path) as image:
        return np.asarray(image, np.int64)


def test_crops_equal_the_gateways(photos: Path) -> None:
    prepared(photos, choice=Choice(max_tilt=180))
    lines = journal(photos)
    for name in ("a_photo.jpg", "b_tilted.png", "c_turned.png"):
        crop = read(photos.parent / "faces" / lines[Path(name).stem]["image"])
        expected = asyncio.run(gateways_crops((photos / "train/happy" / name).read_bytes()))
        assert np.array_equal(crop, expected[0].transpose(1, 2, 0))


def test_pictures_without_one_good_face_are_skipped_with_the_reason(photos: Path) -> None:
    prepared(photos)
    assert {name: line.get("skipped") for name, line in journal(photos).items()} == {
        "a_photo": None,
        "b_tilted": None,
        "c_turned": "tilted",
        "d_close": None,
        "e_small": "too small",
        "f_empty": "no face",
        "g_two": "several faces",
        "h_huge": "unreadable",
        "a_copy": None,
    }
    card = json.loads((photos.parent / "faces/card.json").read_text())
    assert card["pictures"] == {"training": 8, "test": 1}
    assert card["faces"] == {"training": 3, "test": 1}
    assert sum(card["skipped"]["training"].values()) == 5
    # The data set's own check already skips a file that is cut short.
    assert "i_torn.jpg" in card["problems"][0]


def test_the_choice_keeps_more_faces(photos: Path) -> None:
    prepared(photos, choice=Choice(min_face_px=20, max_tilt=90, largest=True), size=64)
    kept = {name: line["image"] for name, line in journal(photos).items() if line["image"]}
    assert set(kept) == {"a_photo", "b_tilted", "c_turned", "d_close", "e_small", "g_two", "a_copy"}
    assert read(photos.parent / "faces" / kept["g_two"]).shape == (64, 64, 3)


def test_prepared_faces_are_a_data_set(photos: Path) -> None:
    card = prepared(photos, source="drawn", licence="CC0")
    dataset = load("prepared", photos.parent / "faces")
    original = load("folder", photos, skip_bad=True)
    assert (dataset.name, dataset.emotions, dataset.licences) == ("folder", original.emotions, ("CC0",))
    assert dataset.training.labels.tolist() == [1, 1, 1]
    assert np.array_equal(dataset.training.distributions.argmax(axis=1), dataset.training.majority)
    assert dataset.tests["test"].labels.tolist() == [0]
    text = card.read_text()
    assert "Source: drawn" in text
    assert "Training faces that are copies or near copies of faces of test: 1" in text


def test_votes_and_labels_are_kept(tmp_path: Path, astronaut: NDArray[np.uint8]) -> None:
    """FER+ has no files: its pixels are searched. Most of these images are noise."""
    face = np.asarray(Image.fromarray(astronaut[40:200, 145:305]).convert("L").resize((48, 48)))
    images = [("Training", face), ("Training", noise(0)), ("PublicTest", face)]
    write_fer2013(tmp_path / "fer", images)
    prepare("fer2013", tmp_path / "fer", tmp_path / "faces", REPOSITORY, choice=Choice(min_face_px=20))
    dataset = load("prepared", tmp_path / "faces")
    fer = load("fer2013", tmp_path / "fer", skip_bad=True)
    assert (dataset.emotions, dataset.label_emotions) == (fer.emotions, fer.label_emotions)
    for attribute in ("labels", "majority", "distributions"):
        kept, original = getattr(dataset.training, attribute), getattr(fer.training, attribute)
        assert np.array_equal(kept, original[:1])
    card = json.loads((tmp_path / "faces/card.json").read_text())
    assert card["emotions"]["training"]["sadness"] == {"faces": 1, "votes": 1.0}


def test_a_listed_box_selects_the_face(photos: Path) -> None:
    two = "train/happy/g_two.png"
    boxes = [(two, "happy", left, 60, 110, 130) for left in (512 + 170, 170, 350)]
    write_list(photos / "train.csv", ("image", "label", "left", "top", "width", "height"), boxes)
    prepare("list", photos, photos.parent / "faces", REPOSITORY)
    lines = [*map(json.loads, (photos.parent / "faces/faces.jsonl").read_text().splitlines()[1:])]
    assert [line.get("skipped") for line in lines] == [None, None, "no face in the listed box"]
    first, second = (read(photos.parent / "faces" / line["image"]) for line in lines[:2])
    assert np.abs(first - second).mean() < 8


@pytest.mark.parametrize("torn", [b"", b'{"source": "train/hap'])
def test_an_interrupted_preparation_resumes(
    photos: Path, monkeypatch: pytest.MonkeyPatch, torn: bytes
) -> None:
    prepared(photos)
    faces = photos.parent / "faces"
    complete = {path: path.read_bytes() for path in faces.rglob("*") if path.is_file()}
    for path in complete:
        path.unlink()
    monkeypatch.setattr(module, "BLOCK", 1)
    original, calls = module._write_face, []

    def interrupted(*arguments: Any) -> dict[str, Any]:
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(*arguments)

    (faces / "faces.jsonl").unlink(missing_ok=True)
    for folder in sorted(faces.rglob("*"), reverse=True):
        folder.rmdir()
    monkeypatch.setattr(module, "_write_face", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepared(photos)
    with (faces / "faces.jsonl").open("ab") as file:
        file.write(torn)
    with pytest.raises(DatasetError, match=r"looked for card\.json.*can resume"):
        load("prepared", faces)
    prepared(photos)
    assert len(calls) == 4 + 6
    assert {path: path.read_bytes() for path in faces.rglob("*") if path.is_file()} == complete


def test_other_options_and_other_folders_are_refused(photos: Path) -> None:
    prepared(photos)
    with pytest.raises(DatasetError, match=r"begun with other options \(crop, choice\); use another folder"):
        prepared(photos, size=40, choice=Choice(largest=True))
    (photos / "train/happy/a_photo.jpg").rename(photos / "train/happy/z_photo.jpg")
    with pytest.raises(DatasetError, match=r"other options \(the pictures or labels of the data set\)"):
        prepared(photos)
    with pytest.raises(DatasetError, match="is not empty"):
        prepare("folder", photos, photos / "train", REPOSITORY)
    with pytest.raises(DatasetError, match="cats is no kind"):
        prepare("cats", photos, photos.parent / "out", REPOSITORY)


def test_a_data_set_without_a_face_is_refused_with_the_reasons(photos: Path) -> None:
    with pytest.raises(DatasetError, match=r"no training picture of folder .*: \d too small, 1 no face"):
        prepared(photos, choice=Choice(min_face_px=1000, max_tilt=0, largest=True))


def test_a_missing_face_is_named(photos: Path) -> None:
    prepared(photos)
    faces = photos.parent / "faces"
    (faces / journal(photos)["b_tilted"]["image"]).unlink()
    with pytest.raises(DatasetError, match=r"missing files \(1\): training/happiness/0000001\.png"):
        load("prepared", faces)
    assert len(load("prepared", faces, skip_bad=True).training) == 2
