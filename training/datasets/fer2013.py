"""FER-2013 (Goodfellow et al., 2013) in all published forms, with FER+ votes if present."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.core.manifest import EMOTIONS
from training.datasets import ferplus
from training.datasets.faces import (
    DECODING_THREADS,
    Bytes,
    Dataset,
    DatasetError,
    Ints,
    LabelledFaces,
    PixelPictures,
    decoded,
    one_hot,
)
from training.datasets.faults import Faults, not_found, wrong_counts
from training.datasets.files import ImageEntry
from training.datasets.folders import list_splits
from training.datasets.lists import read_rows
from training.datasets.sheets import from_sheets, to_sheets
from training.datasets.splits import near_copies

SIDE_PX = 48
SEVEN = EMOTIONS[:7]
FER2013_LABELS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
AS_EMOTIONS = np.array([EMOTIONS.index(label) for label in FER2013_LABELS])

CSV_FILES = ("fer2013.csv", "fer2013.csv.gz", "icml_face_data.csv")
TRAINING_FILE = "train.csv"  # of the challenge: training images only, so without Usage
SMALL_FILE = "fer2013.npz"  # of `write_small`
COLUMNS = ("emotion", "pixels", "Usage")
TRAINING = "Training"
PUBLISHED_COUNTS = {TRAINING: 28_709, "PublicTest": 3_589, "PrivateTest": 3_589}
_SPLIT_OF = {name.lower(): name for name in PUBLISHED_COUNTS}
MAY_BE_ABSENT = "PrivateTest"

# Kaggle's folders of images mix both tests into one.
FOLDER_SPLITS = {"train": TRAINING, "test": "test"}
PUBLISHED_FOLDER_COUNTS = {TRAINING: 28_709, "test": 7_178}

IMAGE_LICENCE = (
    "FER-2013 images: collected by image search for the 2013 ICML challenge; no licence stated; research use"
)
SOURCE = (
    "FER-2013 is on Kaggle: the challenge 'Challenges in Representation Learning: Facial Expression "
    "Recognition' has the CSV files, the data set msambare/fer2013 the folders of images; "
    f"FER+'s {ferplus.FILE} is in https://github.com/microsoft/FERPlus"
)


def load_fer2013(
    folder: Path,
    *,
    skip_bad: bool = False,
    votes: ferplus.VoteRule = "all",
    published: Mapping[str, int] | None = None,
) -> Dataset:
    """FER-2013 from a CSV file, `write_small`'s or folders of images; with `fer2013new.csv` beside it, FER+.

    Without FER+, the data set has seven emotions and one label per image. With FER+, the main head learns
    FER+'s eight, as label distributions, and the label head FER-2013's own labels. votes: the rule of the
    distributions; `none` ignores FER+. published: required images per split.
    Raises `DatasetError` when files are missing, rows are bad or counts differ from those published. With
    `skip_bad`, bad rows are skipped and counts are only reported.
    """
    faults = Faults(folder, skip_bad=skip_bad)
    has_folders = all((folder / name).is_dir() for name in FOLDER_SPLITS)
    names = CSV_FILES if has_folders else (*CSV_FILES, TRAINING_FILE)
    path = next((folder / name for name in (SMALL_FILE, *names) if (folder / name).is_file()), None)
    if path is not None and path.name == SMALL_FILE:
        rows, expected = _read_small(path), {}  # it may be of a part
        faults.note(f"{SMALL_FILE} has grey values of 6 bits")
    elif path is not None:
        rows = _read_csv(path, faults)
        expected = dict(PUBLISHED_COUNTS if published is None else published)
        if rows.usages and path.name == TRAINING_FILE and set(rows.usages) <= {TRAINING, None}:
            expected = {TRAINING: expected[TRAINING]}
            faults.note(f"{TRAINING_FILE} has no test images: those are in icml_face_data.csv")
    elif has_folders:
        rows = _read_folders(folder, faults)
        expected = dict(PUBLISHED_FOLDER_COUNTS if published is None else published)
    else:
        looked_for = (SMALL_FILE, *names, *(f"{name}/" for name in FOLDER_SPLITS))
        raise not_found("FER-2013", folder, looked_for, SOURCE)

    voted = (folder / ferplus.FILE).is_file() and path is not None and votes != "none"
    if (folder / ferplus.FILE).is_file() and not voted:
        why = "votes need the rows of a CSV file" if path is None else "ferplus_votes is none"
        faults.note(f"{ferplus.FILE} is not used: {why}")
    everything, splits = _labelled(rows, folder / ferplus.FILE if voted else None, votes, faults)
    problems = faults.raise_or_report()

    counts = {split: int((splits == split).sum()) for split in dict.fromkeys(splits.tolist())}
    if MAY_BE_ABSENT not in counts:
        expected.pop(MAY_BE_ABSENT, None)
    differing = wrong_counts(counts, expected)
    if TRAINING not in counts or (differing and not skip_bad):
        raise DatasetError(f"{path or folder}: {'; '.join(differing) or 'no training images'}")
    return Dataset(
        name="fer2013",
        emotions=EMOTIONS if voted else SEVEN,
        label_emotions=SEVEN if voted else (),
        training=everything.rows(splits == TRAINING),
        tests={split: everything.rows(splits == split) for split in counts if split != TRAINING},
        licences=(IMAGE_LICENCE, ferplus.LICENCE) if voted else (IMAGE_LICENCE,),
        problems=problems + differing,
    )


class _Rows(NamedTuple):
    """All rows of a file. Bad rows have label -1, and usage None if the usage is unknown.

    images: uint8 [N,48,48]; labels: int64 [N] into `EMOTIONS`. group, near: as `LabelledFaces` has them,
    where the images do not show them any more.
    """

    names: list[str]
    usages: list[str | None]
    labels: Ints
    images: Bytes
    group: Ints | None = None
    near: Ints | None = None


def _labelled(
    rows: _Rows, votes: Path | None, rule: ferplus.VoteRule, faults: Faults
) -> tuple[LabelledFaces, NDArray[np.str_]]:
    """The good rows, and the split of each."""
    good = rows.labels >= 0
    distributions, majority, cast = one_hot(rows.labels), rows.labels, None
    if votes is not None:
        cast = ferplus.read_votes(votes, rows.usages, rows.labels, faults)
        good &= cast[:, 0] >= 0
        distributions, majority = ferplus.vote_labels(cast, published=rule == "published")
    images = rows.images[good]
    everything = LabelledFaces(
        PixelPictures(images),
        names=np.array(rows.names, np.str_)[good],
        labels=rows.labels[good],
        distributions=distributions[good],
        majority=majority[good],
        group=_groups(images) if rows.group is None else rows.group[good],
        votes=None if cast is None else cast[good],
        near=rows.near,
    )
    return everything, np.array(rows.usages, np.str_)[good]


def _groups(images: Bytes) -> Ints:
    """int64 [N], equal for images with equal pixels, in the order of their bytes."""
    flat = np.ascontiguousarray(images.reshape(len(images), SIDE_PX**2))
    _, group = np.unique(flat.view(np.dtype((np.void, SIDE_PX**2))).ravel(), return_inverse=True)
    return group.astype(np.int64)


def write_small(folder: Path, out: Path) -> Path:
    """Write the CSV file of a folder as `out/fer2013.npz`, with grey values of 6 bits.

    The file has the copies and near copies of the values of 8 bits, so that every split stays the same.
    Raises `DatasetError` without a CSV file, and for bad rows.
    """
    faults = Faults(folder, skip_bad=False)
    path = next((folder / name for name in CSV_FILES if (folder / name).is_file()), None)
    if path is None:
        raise not_found("CSV file of FER-2013", folder, CSV_FILES, SOURCE)
    names, usages, labels, images, *_ = _read_csv(path, faults)
    faults.raise_or_report()
    group, lines = _groups(images), np.array(names)
    faces = LabelledFaces.singly_labelled(PixelPictures(images), names=lines, labels=labels, group=group)
    columns: dict[str, Any] = {f"sheet{number}": sheet for number, sheet in enumerate(to_sheets(images))}
    columns |= {"names": lines, "usages": usages, "labels": labels, "group": group}
    np.savez_compressed(out / SMALL_FILE, near=near_copies(faces), **columns)
    return out / SMALL_FILE


def _read_small(path: Path) -> _Rows:
    with np.load(path) as file:
        names, usages = file["names"].tolist(), file["usages"].tolist()
        images = from_sheets([file[name] for name in file.files if name.startswith("sheet")], len(names))
        return _Rows(names, usages, file["labels"], images, file["group"], file["near"])


def _read_csv(path: Path, faults: Faults) -> _Rows:
    names: list[str] = []
    usages: list[str | None] = []
    labels: list[int] = []
    pixels = bytearray()
    for place, row in read_rows(path, COLUMNS[:2] if path.name == TRAINING_FILE else COLUMNS):
        try:
            usage, label, image = _parse_row(row)
        except ValueError as error:
            faults.add("malformed rows", f"{place} ({error})")
            usage, label, image = None, -1, bytes(SIDE_PX**2)
        names.append(place)
        usages.append(usage)
        labels.append(label)
        pixels += image
    images = np.frombuffer(pixels, np.uint8).reshape(-1, SIDE_PX, SIDE_PX)
    return _Rows(names, usages, np.array(labels, np.int64), images)


def _parse_row(row: Mapping[str, str]) -> tuple[str, int, bytes]:
    """(usage, label into `EMOTIONS`, pixels). Without usage, all images are for training."""
    image = np.fromstring(row["pixels"], np.int64, sep=" ")
    if len(image) != SIDE_PX**2 or image.min() < 0 or image.max() > 255:
        raise ValueError(f"not {SIDE_PX}x{SIDE_PX} grey values from 0 to 255")
    label = int(row["emotion"])
    if not 0 <= label < len(FER2013_LABELS):
        raise ValueError(f"emotion {label} is not from 0 to 6")
    named = row.get("usage", TRAINING).strip()
    split = _SPLIT_OF.get(named.lower())
    if split is None:
        raise ValueError(f"Usage {named!r} is none of {', '.join(PUBLISHED_COUNTS)}")
    return split, int(AS_EMOTIONS[label]), image.astype(np.uint8).tobytes()


def _read_folders(folder: Path, faults: Faults) -> _Rows:
    """Decode all images into memory (83 MB), so that copies are found by pixels, as in a CSV file."""
    entries = list(list_splits(folder, FOLDER_SPLITS, faults, known=SEVEN))

    def read(row: ImageEntry) -> Bytes | str:
        try:
            image = np.asarray(decoded(row.file, "L"))
        except DatasetError as error:
            return str(error.__cause__)
        return image if image.shape == (SIDE_PX, SIDE_PX) else f"not {SIDE_PX}x{SIDE_PX} px"

    names = [row.file.relative_to(folder).as_posix() for row in entries]
    labels = np.array([row.emotion for row in entries], np.int64)
    images = np.zeros((len(entries), SIDE_PX, SIDE_PX), np.uint8)
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        for number, answer in enumerate(pool.map(read, entries)):
            if isinstance(answer, str):
                faults.add("unreadable images", f"{names[number]} ({answer})")
                labels[number] = -1
            else:
                images[number] = answer
    return _Rows(names, [row.split for row in entries], labels, images)
