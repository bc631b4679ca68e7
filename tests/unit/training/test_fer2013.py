"""FER-2013 and FER+, from tiny files written by hand."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.manifest import EMOTIONS
from training.datasets import fer2013
from training.datasets.fer2013 import (
    FER2013_LABELS,
    DatasetError,
    FaceImages,
    carve_validation,
    load_fer2013,
    vote_labels,
    without_copies_of,
)

SPLITS = ("Training", "PublicTest", "PrivateTest")
NEUTRAL = (10, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def noise(seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (48, 48), np.uint8)


@dataclass
class Row:
    image: NDArray[np.uint8]
    usage: str = "Training"
    label: int = 6
    votes: tuple[int, ...] = NEUTRAL


@dataclass
class Files:
    """The official files, of which single lines can be spoiled. Line 1 is the header."""

    folder: Path
    rows: list[Row] = field(default_factory=list)

    def images(self) -> list[list[str]]:
        lines = [["emotion", "pixels", "Usage"]]
        for row in self.rows:
            lines.append([str(row.label), " ".join(map(str, row.image.ravel())), row.usage])
        return lines

    def votes(self) -> list[list[str]]:
        lines = [["Usage", "Image name", *fer2013.FERPLUS_COLUMNS, "unknown", "NF"]]
        for number, row in enumerate(self.rows):
            lines.append([row.usage, f"fer{number:07}.png", *map(str, row.votes)])
        return lines

    def write(self, images: list[list[str]] | None = None, votes: list[list[str]] | None = None) -> None:
        for name, lines in (
            ("fer2013.csv", images or self.images()),
            ("fer2013new.csv", votes or self.votes()),
        ):
            with (self.folder / name).open("w", newline="") as file:
                csv.writer(file).writerows(lines)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.setattr(fer2013, "PUBLISHED_COUNTS", {"Training": 3, "PublicTest": 1, "PrivateTest": 1})
    rows = [Row(noise(seed)) for seed in range(3)]
    return Files(tmp_path, [*rows, Row(noise(3), "PublicTest"), Row(noise(4), "PrivateTest")])


def test_rows_come_back_by_split_and_aligned(files: Files) -> None:
    files.rows[1] = Row(noise(1), label=3, votes=(0, 8, 2, 0, 0, 0, 0, 0, 0, 0))
    files.write()
    splits = load_fer2013(files.folder)
    assert tuple(splits) == SPLITS
    rows = splits["Training"]
    assert len(rows) == 3
    for seed in range(3):
        assert np.array_equal(rows.images[seed], noise(seed))
    assert FER2013_LABELS[rows.labels[1]] == "happiness"
    assert EMOTIONS[rows.majority[1]] == "happiness"
    np.testing.assert_allclose(rows.distributions[1], [0, 0.8, 0.2, 0, 0, 0, 0, 0])
    assert (rows.images.dtype, rows.distributions.dtype) == (np.uint8, np.float32)
    assert np.array_equal(splits["PrivateTest"].images[0], noise(4))


def test_the_compressed_file_is_read_too(files: Files) -> None:
    files.write()
    plain = files.folder / "fer2013.csv"
    (files.folder / "fer2013.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    wanted = load_fer2013(files.folder)["Training"].images
    plain.unlink()
    assert np.array_equal(load_fer2013(files.folder)["Training"].images, wanted)


def test_exact_copies_share_a_group_across_splits(files: Files) -> None:
    files.rows[3] = Row(noise(0), "PublicTest")
    files.write()
    splits = load_fer2013(files.folder)
    first, second, third = splits["Training"].group
    assert splits["PublicTest"].group[0] == first
    assert len({first, second, third, splits["PrivateTest"].group[0]}) == 4


@pytest.mark.parametrize("missing", ["fer2013.csv", "fer2013new.csv"])
def test_a_missing_file_is_named(files: Files, missing: str) -> None:
    files.write()
    (files.folder / missing).unlink()
    with pytest.raises(DatasetError, match=missing):
        load_fer2013(files.folder)


@pytest.mark.parametrize(
    ("column", "text"),
    [
        pytest.param(0, "7", id="emotion beyond the last"),
        pytest.param(0, "-1", id="emotion below the first"),
        pytest.param(0, "happy", id="emotion not a number"),
        pytest.param(1, "1 2 3", id="too few pixels"),
        pytest.param(1, "", id="no pixels"),
        pytest.param(1, "1 2 x 4", id="pixel not a number"),
        pytest.param(1, " ".join(["256"] + ["0"] * 2303), id="pixel too bright"),
        pytest.param(1, " ".join(["-1"] + ["0"] * 2303), id="pixel too dark"),
        pytest.param(2, None, id="cut short"),
    ],
)
def test_a_malformed_image_row_is_named_by_its_line(files: Files, column: int, text: str | None) -> None:
    lines = files.images()
    lines[2] = lines[2][:column] if text is None else [*lines[2][:column], text, *lines[2][column + 1 :]]
    files.write(images=lines)
    with pytest.raises(DatasetError, match=r"fer2013\.csv line 3"):
        load_fer2013(files.folder)


@pytest.mark.parametrize(("column", "text"), [(2, "many"), (11, ""), (5, None)])
def test_a_malformed_vote_row_is_named_by_its_line(files: Files, column: int, text: str | None) -> None:
    lines = files.votes()
    lines[2] = lines[2][:column] if text is None else [*lines[2][:column], text, *lines[2][column + 1 :]]
    files.write(votes=lines)
    with pytest.raises(DatasetError, match=r"fer2013new\.csv line 3"):
        load_fer2013(files.folder)


def test_votes_that_do_not_belong_to_the_images_are_refused(files: Files) -> None:
    lines = files.votes()
    files.write(votes=[*lines[:3], *lines[4:]])
    with pytest.raises(DatasetError, match="not row-aligned"):
        load_fer2013(files.folder)


@pytest.mark.parametrize("lost", SPLITS)
def test_a_split_without_its_published_count_is_refused(files: Files, lost: str) -> None:
    index = next(number for number, row in enumerate(files.rows) if row.usage == lost)
    files.rows.insert(index, files.rows[index])
    files.write()
    with pytest.raises(DatasetError, match=lost):
        load_fer2013(files.folder)


@pytest.mark.parametrize("lost", SPLITS)
def test_only_the_private_test_may_be_absent(files: Files, lost: str) -> None:
    files.rows[:] = [row for row in files.rows if row.usage != lost]
    files.write()
    if lost == "PrivateTest":
        assert set(load_fer2013(files.folder)) == {"Training", "PublicTest"}
    else:
        with pytest.raises(DatasetError, match=lost):
            load_fer2013(files.folder)


def test_an_unknown_split_is_refused(files: Files) -> None:
    files.rows.append(Row(noise(9), "Extra"))
    files.write()
    with pytest.raises(DatasetError, match="Extra"):
        load_fer2013(files.folder)


@pytest.mark.parametrize(
    ("votes", "distribution", "majority"),
    [
        pytest.param((10, 0, 0, 0, 0, 0, 0, 0, 0, 0), {0: 1.0}, 0, id="all agree"),
        pytest.param((0, 6, 4, 0, 0, 0, 0, 0, 0, 0), {1: 0.6, 2: 0.4}, 1, id="more than half"),
        pytest.param((5, 5, 0, 0, 0, 0, 0, 0, 0, 0), {0: 0.5, 1: 0.5}, -1, id="exactly half"),
        pytest.param((0, 8, 0, 1, 0, 0, 1, 0, 0, 0), {1: 1.0}, 1, id="single votes are outliers"),
        pytest.param((1, 1, 1, 1, 5, 1, 0, 0, 0, 0), {4: 1.0}, 4, id="majority of what remains"),
        pytest.param((1, 1, 1, 1, 1, 1, 1, 1, 1, 1), {}, -1, id="only outliers"),
        pytest.param((4, 0, 0, 0, 0, 0, 0, 0, 6, 0), {}, -1, id="mostly unknown"),
        pytest.param((5, 0, 0, 0, 0, 0, 0, 0, 5, 0), {}, -1, id="half unknown"),
        pytest.param((0, 0, 0, 0, 0, 0, 0, 0, 0, 10), {}, -1, id="not a face"),
        pytest.param((4, 3, 0, 0, 0, 0, 0, 0, 3, 0), {0: 4 / 7, 1: 3 / 7}, -1, id="unknown counts"),
        pytest.param((6, 0, 0, 0, 0, 0, 0, 0, 0, 4), {0: 1.0}, 0, id="a face to most"),
        pytest.param((0, 0, 0, 0, 0, 0, 0, 7, 3, 0), {7: 1.0}, 7, id="contempt"),
    ],
)
def test_votes(votes: tuple[int, ...], distribution: dict[int, float], majority: int) -> None:
    distributions, majorities = vote_labels(np.array([votes]))
    np.testing.assert_allclose(distributions, [[distribution.get(index, 0) for index in range(8)]], rtol=1e-6)
    assert majorities.tolist() == [majority]
    assert (distributions.dtype, majorities.dtype) == (np.float32, np.int64)


def images_of(*images: NDArray[np.uint8], group: list[int] | None = None) -> FaceImages:
    count = len(images)
    return FaceImages(
        np.stack(images),
        np.arange(count),
        np.zeros((count, 8), np.float32),
        np.full(count, -1),
        np.array(group if group is not None else range(count)),
    )


def test_validation_holds_whole_groups_and_its_share() -> None:
    group = [number // 2 for number in range(40)]
    rows = images_of(*(noise(number) for number in group), group=group)
    training, validation = carve_validation(rows, 0.25, seed=0)
    assert (len(training), len(validation)) == (30, 10)
    assert not set(training.group) & set(validation.group)
    assert sorted([*training.labels, *validation.labels]) == list(range(40))
    again = carve_validation(rows, 0.25, seed=0)[1]
    other = carve_validation(rows, 0.25, seed=1)[1]
    assert np.array_equal(again.labels, validation.labels)
    assert not np.array_equal(other.labels, validation.labels)


def test_exact_and_near_copies_are_dropped() -> None:
    original = noise(0)
    recompressed = np.clip(original.astype(int) + np.random.default_rng(1).integers(-5, 6, (48, 48)), 0, 255)
    darker = (original * 0.5 + 20).astype(np.uint8)
    half = np.where(np.arange(48)[:, None] < 24, original, noise(7))
    rows = images_of(noise(1), original, recompressed.astype(np.uint8), darker, half, noise(2))
    others = images_of(noise(3), original, group=[100, 101])
    assert without_copies_of(rows, others).labels.tolist() == [0, 4, 5]


def test_flat_images_are_copies_only_of_their_like() -> None:
    black, white = np.zeros((48, 48), np.uint8), np.full((48, 48), 255, np.uint8)
    rows = images_of(black, white, noise(0), group=[1, 2, 3])
    assert without_copies_of(rows, images_of(black, noise(1), group=[1, 4])).labels.tolist() == [1, 2]


def test_copies_are_found_in_every_block_of_a_large_set() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1030, 48, 48), np.uint8)
    rows = images_of(*images)
    others = images_of(images[1027], images[5], group=[5000, 5001])
    kept = without_copies_of(rows, others)
    assert set(range(1030)) - set(kept.labels.tolist()) == {5, 1027}
