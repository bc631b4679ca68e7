"""FER-2013 (Goodfellow et al., 2013) with FER+ votes (Barsoum et al., 2016), in their official files."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.manifest import EMOTIONS

SIDE_PX = 48
FER2013_LABELS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
FERPLUS_COLUMNS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
PUBLISHED_COUNTS = {"Training": 28709, "PublicTest": 3589, "PrivateTest": 3589}
REQUIRED_SPLITS = ("Training", "PublicTest")

LICENCES = (
    "FER-2013 images: collected by image search for the 2013 ICML challenge; no licence stated; research use",
    "FER+ votes: Microsoft, MIT",
)


class DatasetError(ValueError):
    """A data set's file is missing, incomplete or not in its published format; says which and where."""


@dataclass(frozen=True)
class FaceImages:
    """Faces with both kinds of labels, row-aligned.

    images: uint8 [N,48,48] grey. labels: int64 [N] into `FER2013_LABELS`. distributions: float32 [N,8] over
    `EMOTIONS`, all zero where the votes cannot be used. majority: int64 [N] into `EMOTIONS`, -1 where no
    emotion has more than half of the votes. group: int64 [N], equal for exact copies of an image.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    distributions: NDArray[np.float32]
    majority: NDArray[np.int64]
    group: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> FaceImages:
        return FaceImages(
            self.images[chosen],
            self.labels[chosen],
            self.distributions[chosen],
            self.majority[chosen],
            self.group[chosen],
        )


def load_fer2013(folder: Path) -> dict[str, FaceImages]:
    """Usage ("Training", ...) -> faces, from `fer2013.csv` or `fer2013.csv.gz` and `fer2013new.csv`.

    Raises `DatasetError` when a file is missing, a row is malformed, or a split has not its published count.
    """
    usages, labels, images = _read_images(folder)
    votes = _read_votes(folder / "fer2013new.csv", usages)
    distributions, majority = vote_labels(votes)
    flat = np.ascontiguousarray(images.reshape(len(images), -1))
    _, group = np.unique(flat.view(np.dtype((np.void, flat.shape[1]))).ravel(), return_inverse=True)
    everything = FaceImages(images, labels, distributions, majority, group.astype(np.int64))
    names = np.array(usages)
    splits = {usage: everything.rows(names == usage) for usage in dict.fromkeys(usages)}
    for usage in {*REQUIRED_SPLITS, *splits}:
        found, published = len(splits.get(usage, ())), PUBLISHED_COUNTS.get(usage)
        if found != published:
            raise DatasetError(f"{usage} has {found} rows; published: {published}")
    return splits


def vote_labels(votes: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """FER+ votes [N,10] (eight emotions, unknown, not a face) -> (distributions [N,8], majority [N]).

    As in the published recipe an emotion that only one of the ten annotators saw is dropped as an outlier,
    and a majority needs more than half of the remaining votes. A row where unknown and not-a-face hold at
    least half of them has no distribution.
    """
    kept = np.where(votes > 1, votes, 0)
    total = kept.sum(axis=1, keepdims=True)
    emotions = kept[:, : len(EMOTIONS)]
    usable = 2 * emotions.sum(axis=1) > total[:, 0]
    share = emotions / np.maximum(emotions.sum(axis=1, keepdims=True), 1)
    distributions = np.where(usable[:, None], share, 0).astype(np.float32)
    first = kept.argmax(axis=1)
    clear = (2 * kept.max(axis=1) > total[:, 0]) & (first < len(EMOTIONS))
    return distributions, np.where(clear, first, -1).astype(np.int64)


def carve_validation(rows: FaceImages, share: float, seed: int) -> tuple[FaceImages, FaceImages]:
    """Split into (training, validation) with all exact copies of an image on one side."""
    groups = np.unique(rows.group)
    held_out = np.random.default_rng(seed).permutation(groups)[: round(share * len(groups))]
    validation = np.isin(rows.group, held_out)
    return rows.rows(~validation), rows.rows(validation)


def without_copies_of(rows: FaceImages, others: FaceImages, *, correlation: float = 0.99) -> FaceImages:
    """Drop every row that is, exactly or nearly, an image of `others` (Pearson correlation of pixels)."""
    references = _standardised(others.images)
    copied = np.isin(rows.group, others.group)
    for start in range(0, len(rows), 1024):
        block = _standardised(rows.images[start : start + 1024])
        copied[start : start + 1024] |= (block @ references.T).max(axis=1) > correlation
    return rows.rows(~copied)


def _standardised(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return flat


def _read_images(folder: Path) -> tuple[list[str], NDArray[np.int64], NDArray[np.uint8]]:
    path = next((p for p in (folder / "fer2013.csv", folder / "fer2013.csv.gz") if p.is_file()), None)
    if path is None:
        raise DatasetError(
            f"no fer2013.csv or fer2013.csv.gz in {folder}; it is part of the 2013 ICML challenge "
            "'Challenges in Representation Learning: Facial Expression Recognition' on Kaggle"
        )
    usages: list[str] = []
    labels: list[int] = []
    pixels = io.BytesIO()
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                usage, label, image = _parse_row(f"{path.name} line {number}", row)
                usages.append(usage)
                labels.append(label)
                pixels.write(image)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetError(f"{path.name} is cut short or damaged") from error
    images = np.frombuffer(pixels.getvalue(), np.uint8).reshape(-1, SIDE_PX, SIDE_PX)
    return usages, np.array(labels, np.int64), images


def _parse_row(where: str, row: dict[str, str]) -> tuple[str, int, bytes]:
    """One row of `fer2013.csv` as (usage, label, pixels)."""
    try:
        image = np.fromstring(row["pixels"], np.int64, sep=" ")
        label = int(row["emotion"])
        usage = row["Usage"].strip()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(f"{where}: {error!r}") from error
    if len(image) != SIDE_PX * SIDE_PX or image.min() < 0 or image.max() > 255:
        raise DatasetError(f"{where}: not {SIDE_PX}x{SIDE_PX} grey values from 0 to 255")
    if not 0 <= label < len(FER2013_LABELS):
        raise DatasetError(f"{where}: emotion {label} is not from 0 to 6")
    return usage, label, image.astype(np.uint8).tobytes()


def _read_votes(path: Path, usages: list[str]) -> NDArray[np.int64]:
    if not path.is_file():
        raise DatasetError(f"no {path.name} in {path.parent}; it is in Microsoft's FERPlus repository")
    found: list[str] = []
    votes: list[list[int]] = []
    with path.open() as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            try:
                votes.append([int(row[name]) for name in (*FERPLUS_COLUMNS, "unknown", "NF")])
                found.append(row["Usage"])
            except (KeyError, TypeError, ValueError) as error:
                raise DatasetError(f"{path.name} line {number}: {error!r}") from error
    # Rows pair by position: the image names skip those that FER+ found faceless.
    if found != usages:
        raise DatasetError(f"{path.name} is not row-aligned with the images")
    return np.array(votes)
