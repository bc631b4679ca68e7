"""Several data sets as one, and training on them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from service.core.manifest import EMOTIONS
from tests.unit.training.made_up import (
    noise,
    tiny_config,
    write_fer2013,
    write_list,
    write_picture,
)
from training.checkpoint import load_trained
from training.datasets import DatasetSource, load
from training.datasets.faces import Dataset, LabelledFaces
from training.datasets.splits import split_training
from training.lineage import Start, refuse_what_learned_validation
from training.train import train

SOURCES = (
    DatasetSource(name="fer2013", root="fer"),
    DatasetSource(name="list", root="mine", weight=2),
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """FER+ with 24 training images, and a list of 20 coloured pictures of 30 px with another emotion."""
    usages = ["Training"] * 24 + ["PublicTest"] * 2
    write_fer2013(tmp_path / "fer", [(usage, noise(seed)) for seed, usage in enumerate(usages, start=100)])
    rows = [(write_picture(tmp_path / "mine" / f"{seed}.png", seed, 30).name, "fear") for seed in range(20)]
    write_list(tmp_path / "mine/train.csv", ("image", "label"), rows)
    write_list(tmp_path / "mine/test.csv", ("image", "label"), [("test.png", "sad")])
    write_picture(tmp_path / "mine/test.png", 500, 30)
    return tmp_path


def joined(data: Path) -> Dataset:
    return load(SOURCES, data, skip_bad=True)


def names(rows: LabelledFaces) -> set[str]:
    return set(rows.names.tolist())


def test_sets_are_joined_with_their_names_labels_and_weights(data: Path) -> None:
    dataset = joined(data)
    assert (dataset.name, dataset.emotions, dataset.label_emotions) == (
        "fer2013+list",
        EMOTIONS,
        EMOTIONS[:7],
    )
    assert list(dataset.tests) == ["fer/PublicTest", "mine/test"]
    rows = dataset.training
    assert rows.names[[0, -1]].tolist() == ["fer/fer2013.csv line 2", "mine/19.png"]
    assert rows.majority[24:].tolist() == [EMOTIONS.index("fear")] * 20
    # The label head learns labels of FER-2013 alone.
    assert (rows.labels[:24] >= 0).all()
    assert (rows.labels[24:] == -1).all()
    assert rows.weights is not None
    assert rows.weights.tolist() == [1] * 24 + [2] * 20
    assert len(np.unique(rows.group)) == 44
    assert any(problem.startswith("fer: Training has 24 images") for problem in dataset.problems)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_those_of_the_sets(data: Path, channels: int) -> None:
    parts = [load(source.name, data / source.root, skip_bad=True).training for source in SOURCES]
    alone = np.concatenate(
        [part.pictures.read(np.arange(len(part)), size=48, channels=channels) for part in parts]
    )
    rows = joined(data).training
    order = np.random.default_rng(0).permutation(len(rows))[:30]
    assert np.array_equal(rows.pictures.read(order, size=48, channels=channels), alone[order])
    chosen = rows.rows(order).rows(np.arange(30) % 2 == 0)
    assert np.array_equal(chosen.pictures.read(np.arange(15), size=48, channels=channels), alone[order[::2]])


def test_each_set_is_split_as_it_would_be_alone(data: Path) -> None:
    training, validation = split_training(joined(data), 0.25)
    for source in SOURCES:
        alone = load(source.name, data / source.root, skip_bad=True)
        for rows, both in zip(split_training(alone, 0.25), (training, validation), strict=True):
            expected = {f"{source.root}/{name}" for name in names(rows)}
            assert {name for name in names(both) if name.startswith(f"{source.root}/")} == expected


def test_copies_across_sets_are_dropped(data: Path) -> None:
    """The list gets copies of a test image and of a training image of FER-2013, and of its own test image."""
    before = sum(map(len, split_training(joined(data), 0.25)))
    copies = {"a": 124, "b": 100, "c": 500}
    with (data / "mine/train.csv").open("a") as file:
        for name, seed in copies.items():
            write_picture(data / "mine" / f"{name}.png", seed, 30 if name == "c" else 48)
            file.write(f"{name}.png,fear\n")
    training, validation = split_training(joined(data), 0.25)
    left = names(training) | names(validation)
    assert not left & {"mine/a.png", "mine/c.png"}
    # A copy of a training image may be left if the copy is held out: `training_rows` then drops the image.
    assert ("mine/b.png" in left) == ("mine/b.png" in names(validation))
    assert len(training) + len(validation) - ("mine/b.png" in left) == before


def test_folds_hold_out_every_image_once(data: Path) -> None:
    dataset = joined(data)
    held_out = [names(split_training(dataset, 0.25, fold)[1]) for fold in range(4)]
    assert sum(map(len, held_out)) == len(set().union(*held_out)) == 44


def test_a_run_learns_from_all_sets(data: Path) -> None:
    config = tiny_config(epochs=1, dataset=[source.model_dump() for source in SOURCES])
    train(config, joined(data), data / "run", threads=1)
    trained = load_trained(data / "run")
    assert trained.config == config
    assert (trained.emotions, trained.label_emotions) == (EMOTIONS, EMOTIONS[:7])


@pytest.mark.parametrize(
    ("earlier", "refused"),
    [
        ({}, False),
        ({"dataset": "fer2013"}, False),
        ({"fold": 1}, True),
        ({"dataset": "fer2013", "fold": 1}, True),
    ],
)
def test_a_teacher_of_another_fold_is_refused(
    data: Path, earlier: dict[str, object], refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = {"dataset": [source.model_dump() for source in SOURCES]}
    monkeypatch.setattr("training.lineage.config_of", lambda path: tiny_config(**sets | earlier))
    start = Start(teachers=(data,))
    if refused:
        with pytest.raises(ValueError, match="its fold was 1, this run's is 0"):
            refuse_what_learned_validation(start, tiny_config(**sets))
    else:
        refuse_what_learned_validation(start, tiny_config(**sets))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": [{"name": "folder", "root": "a"}, {"name": "list", "root": "a"}]}, "a root of its own"),
        ({"dataset": [{"name": "folder", "root": "a", "weight": 0}]}, "weight"),
        ({"dataset": []}, "at least 1"),
        ({"validation_share": 0.3, "fold": 3}, "fold must be below"),
    ],
)
def test_sets_and_folds_that_cannot_be_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny_config(**changes)


def test_an_error_names_the_folder_of_its_set(data: Path) -> None:
    shutil.rmtree(data / "mine")
    with pytest.raises(ValueError, match=r"no list of pictures in .*/mine"):
        joined(data)
    with pytest.raises(ValueError, match="cats is no kind of data set; kinds are fer2013"):
        load("cats", data)
