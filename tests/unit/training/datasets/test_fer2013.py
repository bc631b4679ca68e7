"""FER-2013 and FER+, from tiny files that the tests write."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.core.manifest import EMOTIONS
from tests.unit.training.made_up import noise, write_class_folders
from training.datasets import load
from training.datasets.faces import ROW_ALIGNED, Dataset, DatasetError, PixelPictures
from training.datasets.fer2013 import FER2013_LABELS, load_fer2013, write_small
from training.datasets.splits import split_training

SPLITS = ("Training", "PublicTest", "PrivateTest")
COUNTS = {"Training": 3, "PublicTest": 1, "PrivateTest": 1}
NEUTRAL = (10, 0, 0, 0, 0, 0, 0, 0, 0, 0)
SEVEN = EMOTIONS[:7]


def pixels(dataset: Dataset, split: str = "Training") -> NDArray[np.uint8]:
    faces = dataset.training if split == "Training" else dataset.tests[split]
    assert isinstance(faces.pictures, PixelPictures)
    return faces.pictures.pixels


@dataclass
class Row:
    image: NDArray[np.uint8]
    usage: str = "Training"
    label: int = 6
    votes: tuple[int, ...] = NEUTRAL


@dataclass
class Files:
    """The official files. A test can replace the lines of each file. Line 1 is the header."""

    folder: Path
    rows: list[Row] = field(default_factory=list)

    def images(self) -> list[list[str]]:
        lines = [["emotion", "pixels", "Usage"]]
        for row in self.rows:
            lines.append([str(row.label), " ".join(map(str, row.image.ravel())), row.usage])
        return lines

    def votes(self) -> list[list[str]]:
        lines = [["Usage", "Image name", *EMOTIONS, "unknown", "NF"]]
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

    def load(self, *, skip_bad: bool = False, published: Mapping[str, int] = COUNTS) -> Dataset:
        return load_fer2013(self.folder, skip_bad=skip_bad, published=published)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    rows = [Row(noise(seed)) for seed in range(3)]
    return Files(tmp_path, [*rows, Row(noise(3), "PublicTest"), Row(noise(4), "PrivateTest")])


def damaged(lines: list[list[str]], column: int, text: str | None) -> list[list[str]]:
    """Replace one column of line 3. If `text` is None, cut the line off before that column."""
    lines[2] = lines[2][:column] if text is None else [*lines[2][:column], text, *lines[2][column + 1 :]]
    return lines


def test_rows_are_grouped_by_split_and_aligned_with_votes(files: Files) -> None:
    files.rows[1] = Row(noise(1), label=3, votes=(0, 8, 2, 0, 0, 0, 0, 0, 0, 0))
    files.write()
    dataset = files.load()
    assert (dataset.emotions, dataset.label_emotions) == (EMOTIONS, SEVEN)
    assert tuple(dataset.tests) == ("PublicTest", "PrivateTest")
    rows = dataset.training
    assert len(rows) == 3
    assert np.array_equal(pixels(dataset), [noise(seed) for seed in range(3)])
    assert EMOTIONS[rows.labels[1]] == EMOTIONS[rows.majority[1]] == "happiness"
    np.testing.assert_allclose(rows.distributions[1], [0, 0.8, 0.2, 0, 0, 0, 0, 0])
    assert rows.labels.dtype == np.int64
    assert rows.distributions.dtype == np.float32
    assert rows.names.tolist() == ["fer2013.csv line 2", "fer2013.csv line 3", "fer2013.csv line 4"]
    assert np.array_equal(pixels(dataset, "PrivateTest")[0], noise(4))
    assert not dataset.problems
    assert len(dataset.licences) == 2


def test_votes_may_be_read_by_the_published_rule_or_ignored(files: Files) -> None:
    files.rows[1] = Row(noise(1), label=3, votes=(0, 5, 3, 2, 0, 0, 0, 0, 0, 0))
    files.write()
    published = load_fer2013(files.folder, votes="published", published=COUNTS)
    np.testing.assert_allclose(published.training.distributions[1, :4], [0, 5 / 8, 3 / 8, 0])
    ignored = load_fer2013(files.folder, votes="none", published=COUNTS)
    assert (ignored.emotions, ignored.label_emotions, len(ignored.licences)) == (SEVEN, (), 1)
    assert EMOTIONS[ignored.training.distributions[1].argmax()] == "happiness"
    assert ignored.problems == ("fer2013new.csv is not used: ferplus_votes is none",)


def test_a_set_without_votes_has_seven_emotions_and_no_label_head(files: Files) -> None:
    files.rows[:3] = [Row(noise(label), label=label) for label in range(3)]
    files.write()
    (files.folder / "fer2013new.csv").unlink()
    dataset = files.load()
    assert (dataset.emotions, dataset.label_emotions) == (SEVEN, ())
    rows = dataset.training
    assert [EMOTIONS[label] for label in rows.labels] == list(FER2013_LABELS[:3])
    assert np.array_equal(rows.majority, rows.labels)
    assert np.array_equal(rows.distributions.argmax(axis=1), rows.labels)
    assert np.array_equal(rows.distributions.sum(axis=1), [1, 1, 1])
    assert len(dataset.licences) == 1


def test_a_compressed_file_is_read(files: Files) -> None:
    files.write()
    plain = files.folder / "fer2013.csv"
    (files.folder / "fer2013.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    expected = pixels(files.load())
    plain.unlink()
    assert np.array_equal(pixels(files.load()), expected)


@pytest.mark.parametrize("kept", [100, -4])
def test_a_compressed_file_that_is_cut_short_is_refused(files: Files, kept: int) -> None:
    files.write()
    plain = files.folder / "fer2013.csv"
    (files.folder / "fer2013.csv.gz").write_bytes(gzip.compress(plain.read_bytes())[:kept])
    plain.unlink()
    with pytest.raises(DatasetError, match="cut short or damaged"):
        files.load()


def test_the_other_csv_of_kaggle_gives_the_same_set(files: Files) -> None:
    """Its columns are in another order. Their names and each usage begin with a blank."""
    files.write()
    expected = files.load()
    (files.folder / "fer2013.csv").unlink()
    lines = ["emotion, Usage, pixels"]
    lines += [f"{label}, {usage}, {image}" for label, image, usage in files.images()[1:]]
    (files.folder / "icml_face_data.csv").write_text("\r\n".join([*lines, "", ""]))
    found = files.load()
    assert np.array_equal(pixels(found), pixels(expected))
    assert np.array_equal(found.training.labels, expected.training.labels)
    assert tuple(found.tests) == tuple(expected.tests)
    assert found.training.names[0] == "icml_face_data.csv line 2"


def test_names_of_columns_and_splits_ignore_case(files: Files) -> None:
    lines = [[cell.lower() for cell in line] for line in files.images()]
    files.write(images=lines)
    assert {name: len(faces) for name, faces in files.load().tests.items()} == {
        "PublicTest": 1,
        "PrivateTest": 1,
    }


def test_the_training_images_of_the_challenge_are_read_without_tests(files: Files) -> None:
    rows = [line[:2] for line in files.images()[:4]]
    with (files.folder / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    dataset = files.load()
    assert len(dataset.training) == 3
    assert not dataset.tests
    assert dataset.problems == ("train.csv has no test images: those are in icml_face_data.csv",)
    with pytest.raises(DatasetError, match="published: 28709"):
        load("fer2013", files.folder)


def test_other_files_go_before_the_training_images_of_the_challenge(files: Files) -> None:
    files.write()
    (files.folder / "train.csv").write_text("unlike\n")
    assert len(files.load().tests) == 2


def test_quoted_cells_and_blank_lines_are_accepted(files: Files) -> None:
    files.write()
    expected = pixels(files.load())
    with (files.folder / "fer2013.csv").open("w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(files.images())
        file.write("\n")
    assert np.array_equal(pixels(files.load()), expected)


def test_exact_copies_share_a_group_across_splits(files: Files) -> None:
    files.rows[3] = Row(noise(0), "PublicTest")
    files.write()
    dataset = files.load()
    first, second, third = dataset.training.group
    assert dataset.tests["PublicTest"].group[0] == first
    assert len({first, second, third, dataset.tests["PrivateTest"].group[0]}) == 4


def test_an_error_names_missing_files_and_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"looked for .*fer2013\.csv.*icml_face_data\.csv.*Kaggle"):
        load("fer2013", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("column", "text"),
    [
        pytest.param(0, "7", id="emotion beyond the last"),
        pytest.param(0, "-1", id="emotion below the first"),
        pytest.param(0, "happy", id="emotion not a number"),
        pytest.param(0, "", id="no emotion"),
        pytest.param(1, "1 2 3", id="too few pixels"),
        pytest.param(1, "", id="no pixels"),
        pytest.param(1, "1 2 x 4", id="pixel not a number"),
        pytest.param(1, " ".join(["256"] + ["0"] * 2303), id="pixel too bright"),
        pytest.param(1, " ".join(["-1"] + ["0"] * 2303), id="pixel too dark"),
        pytest.param(1, " ".join(["0"] * 2304 + ["x"]), id="rubbish after the pixels"),
        pytest.param(2, None, id="cut short"),
        pytest.param(2, "", id="no usage"),
        pytest.param(2, "Extra", id="unknown usage"),
    ],
)
def test_a_malformed_image_row_is_named_by_its_line(files: Files, column: int, text: str | None) -> None:
    files.write(images=damaged(files.images(), column, text))
    with pytest.raises(DatasetError, match=r"malformed rows \(1\): fer2013\.csv line 3"):
        files.load()
    dataset = files.load(skip_bad=True)
    assert np.array_equal(pixels(dataset), [noise(0), noise(2)]), "votes stay aligned"
    assert dataset.problems[0].startswith("skipped: malformed rows (1): fer2013.csv line 3")
    assert dataset.problems[1] == "Training has 2 images; published: 3"


@pytest.mark.parametrize(("column", "text"), [(2, "many"), (11, ""), (5, None)])
def test_a_malformed_vote_row_is_named_by_its_line(files: Files, column: int, text: str | None) -> None:
    files.write(votes=damaged(files.votes(), column, text))
    with pytest.raises(DatasetError, match=r"malformed votes \(1\): fer2013new\.csv line 3"):
        files.load()
    assert np.array_equal(pixels(files.load(skip_bad=True)), [noise(0), noise(2)])


@pytest.mark.parametrize("name", ["fer2013.csv", "fer2013new.csv"])
def test_a_missing_column_is_named(files: Files, name: str) -> None:
    files.write()
    path = files.folder / name
    path.write_text(path.read_text().replace("Usage", "Use", 1))
    with pytest.raises(DatasetError, match=rf"{name} has no column Usage"):
        files.load()


@pytest.mark.parametrize("ending", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("name", ["fer2013.csv", "fer2013new.csv"])
def test_line_endings_of_every_system_are_read(files: Files, name: str, ending: str) -> None:
    files.write()
    path = files.folder / name
    path.write_bytes(path.read_bytes().replace(b"\r\n", ending.encode()))
    assert np.array_equal(pixels(files.load()), [noise(seed) for seed in range(3)])


def test_an_error_does_not_quote_a_long_line_in_full(files: Files) -> None:
    (files.folder / "fer2013.csv").write_text("0 1 2 " * 100_000)
    with pytest.raises(DatasetError, match="cut short or damaged") as refused:
        files.load()
    assert len(str(refused.value)) < 1000


def test_an_empty_file_is_refused(files: Files) -> None:
    (files.folder / "fer2013.csv").touch()
    with pytest.raises(DatasetError, match="has no column Usage or emotion or pixels"):
        files.load()


@pytest.mark.parametrize("skip_bad", [False, True])
def test_votes_that_do_not_belong_to_the_images_are_refused(files: Files, skip_bad: bool) -> None:
    lines = files.votes()
    files.write(votes=[*lines[:3], *lines[4:]])
    with pytest.raises(DatasetError, match="not row-aligned"):
        files.load(skip_bad=skip_bad)


def test_votes_that_contradict_the_labels_are_refused(files: Files) -> None:
    for row in files.rows:
        row.label = 3
    files.write()
    with pytest.raises(DatasetError, match=r"not row-aligned .* agree on 0%"):
        files.load()


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_without_its_published_count_is_refused(files: Files, split: str) -> None:
    index = next(number for number, row in enumerate(files.rows) if row.usage == split)
    files.rows.insert(index, files.rows[index])
    files.write()
    with pytest.raises(DatasetError, match=split):
        files.load()
    assert any(split in problem for problem in files.load(skip_bad=True).problems)


@pytest.mark.parametrize("split", SPLITS)
def test_only_the_private_test_may_be_absent(files: Files, split: str) -> None:
    files.rows[:] = [row for row in files.rows if row.usage != split]
    files.write()
    if split == "PrivateTest":
        assert set(files.load().tests) == {"PublicTest"}
    else:
        with pytest.raises(DatasetError, match=split):
            files.load()


def test_the_published_counts_are_required_by_default(files: Files) -> None:
    files.write()
    with pytest.raises(DatasetError, match=r"Training has 3 images; published: 28709; PublicTest .* 3589"):
        load("fer2013", files.folder)


FOLDERS = {"train/angry": 2, "train/happy": 1, "test/surprise": 2}
FOLDER_COUNTS = {"Training": 3, "test": 2}


def test_a_small_file_has_the_same_rows_splits_and_nearly_the_same_values(
    files: Files, tmp_path: Path
) -> None:
    # Two rows that only 8 bits distinguish, and copies.
    similar = noise(1).copy()
    similar[0, 0] ^= 1
    images = (similar, noise(0), noise(1), noise(1), *(noise(seed) for seed in range(5, 300)))
    files.rows[:3] = [Row(image, label=6 if number % 2 else 3) for number, image in enumerate(images)]
    files.write()
    counts = {"Training": len(images), "PublicTest": 1, "PrivateTest": 1}
    small = tmp_path / "small"
    small.mkdir()
    assert write_small(files.folder, small) == small / "fer2013.npz"
    (small / "fer2013new.csv").write_bytes((files.folder / "fer2013new.csv").read_bytes())
    expected, found = files.load(published=counts), load("fer2013", small)
    assert found.problems == ("fer2013.npz has grey values of 6 bits",)
    assert found.training.near is not None
    assert set(found.training.near[0]) == {found.training.group[0], found.training.group[2]}
    for split in ("Training", "PublicTest", "PrivateTest"):
        assert np.abs(pixels(found, split).astype(int) - pixels(expected, split)).max() == 2
    for a, b in (
        (expected.training, found.training),
        (expected.tests["PublicTest"], found.tests["PublicTest"]),
        *zip(split_training(expected, 0.3), split_training(found, 0.3), strict=True),
    ):
        for name in ROW_ALIGNED:
            assert np.array_equal(getattr(a, name), getattr(b, name)), name


def test_a_small_file_is_made_of_a_whole_csv_file(files: Files, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no CSV file of FER-2013 in .*fer2013\.csv"):
        write_small(files.folder, tmp_path)
    files.write(damaged(files.images(), 0, "9"))
    with pytest.raises(DatasetError, match=r"malformed rows \(1\)"):
        write_small(files.folder, tmp_path)


def test_folders_of_images_are_read_as_fer2013(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "data", FOLDERS)
    dataset = load_fer2013(folder, published=FOLDER_COUNTS)
    assert (dataset.emotions, dataset.label_emotions) == (SEVEN, ())
    assert [EMOTIONS[label] for label in dataset.training.labels] == ["anger", "anger", "happiness"]
    assert np.array_equal(pixels(dataset), [noise(0), noise(1), noise(2)])
    assert len(dataset.tests["test"]) == 2
    assert dataset.training.names[2] == "train/happy/0.png"
    with pytest.raises(DatasetError, match=r"Training has 3 images; published: 28709; test .* 7178"):
        load("fer2013", folder)


def test_copies_among_image_files_are_found_by_their_pixels(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "data", FOLDERS)
    Image.fromarray(noise(0)).save(folder / "test/surprise/0.png", compress_level=0)
    dataset = load_fer2013(folder, published=FOLDER_COUNTS)
    assert dataset.tests["test"].group[0] == dataset.training.group[0]


def test_votes_beside_folders_are_reported_as_unused(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "data", FOLDERS)
    (folder / "fer2013new.csv").touch()
    dataset = load_fer2013(folder, published=FOLDER_COUNTS)
    assert dataset.emotions == SEVEN
    assert "fer2013new.csv is not used" in dataset.problems[0]


@pytest.mark.parametrize(
    ("content", "reason"), [("cut", "truncated"), ("large", "not 48x48 px"), ("text", "cannot identify")]
)
def test_an_image_file_that_cannot_be_used_is_named(tmp_path: Path, content: str, reason: str) -> None:
    folder = write_class_folders(tmp_path / "data", FOLDERS)
    path = folder / "train/angry/1.png"
    if content == "cut":
        path.write_bytes(path.read_bytes()[:1500])
    elif content == "large":
        Image.fromarray(noise(0, side=50)).save(path)
    else:
        path.write_text("no picture")
    with pytest.raises(DatasetError, match=rf"unreadable images \(1\): train/angry/1\.png \(.*{reason}"):
        load_fer2013(folder, published=FOLDER_COUNTS)
    dataset = load_fer2013(folder, skip_bad=True, published=FOLDER_COUNTS)
    assert dataset.training.names.tolist() == ["train/angry/0.png", "train/happy/0.png"]
    assert dataset.problems[-1] == "Training has 2 images; published: 3"


def test_a_folder_of_contempt_is_refused(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "data", FOLDERS | {"train/contempt": 1})
    with pytest.raises(DatasetError, match="train/contempt is not a known emotion"):
        load_fer2013(folder)
