"""Splits off validation rows, and keeps copies of a picture on one side of a split."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.datasets.faces import Bytes, Dataset, Ints, LabelledFaces
from training.datasets.joined import concatenated

SIDE_PX = 48  # side of the grey pictures that are compared
CELL_PX = 4
CORRELATION = 0.99  # of the grey pixels of two near copies (Pearson)
BLOCK = 1024
# Equal for all seeds of runs: a teacher must not learn from the rows on which its student is validated.
SPLIT_SEED = 0

Floats = NDArray[np.float32]


def split_training(dataset: Dataset, share: float, fold: int = 0) -> tuple[LabelledFaces, LabelledFaces]:
    """Split the training rows into (training, validation), both without copies of test rows.

    Each of several joined sets is split as it would be alone, so that its validation rows do not depend on
    the other sets. Then training rows that are near copies of rows of an earlier set are dropped.
    """
    training: list[LabelledFaces] = []
    validation: list[LabelledFaces] = []
    for part in dataset.parts or (dataset,):
        rows, held_out = split_validation(
            without_test_rows(part.training, part), share, SPLIT_SEED, fold=fold
        )
        if dataset.parts:
            rows, held_out = without_test_rows(rows, dataset), without_test_rows(held_out, dataset)
        training.append(drop_near_duplicates(rows, concatenated(training)) if training else rows)
        validation.append(held_out)
    return concatenated(training), concatenated(validation)


def without_test_rows(faces: LabelledFaces, dataset: Dataset) -> LabelledFaces:
    """Drop every row that is an exact or near copy of a row of a test split."""
    for test in dataset.tests.values():
        faces = drop_near_duplicates(faces, test)
    return faces


def split_validation(
    faces: LabelledFaces, share: float, seed: int, *, fold: int = 0
) -> tuple[LabelledFaces, LabelledFaces]:
    """Split into (training, validation) with all exact copies of a picture on one side.

    fold: which of the 1 / `share` parts without common pictures is held out.
    """
    groups = np.unique(faces.group)
    count = round(share * len(groups))
    held_out = np.random.default_rng(seed).permutation(groups)[fold * count : (fold + 1) * count]
    validation = np.isin(faces.group, held_out)
    return faces.rows(~validation), faces.rows(validation)


def drop_near_duplicates(faces: LabelledFaces, others: LabelledFaces) -> LabelledFaces:
    """Drop every row that is an exact or near copy of a picture of `others`.

    Groups of both must come from one data set. Raises `DatasetError`, which names a picture that cannot be
    read.
    """
    copied = np.isin(faces.group, others.group)
    if faces.near is not None:
        one, other = faces.near.T
        return faces.rows(~(copied | np.isin(faces.group, one[np.isin(other, others.group)])))
    references = _References(others)
    for start in range(0, len(faces), BLOCK):
        copies, _ = references.pairs(_pixels(faces, start))
        copied[start + copies] = True
    return faces.rows(~copied)


def near_copies(faces: LabelledFaces) -> Ints:
    """`LabelledFaces.near`: the groups of all near copies, int64 [P,2]."""
    references = _References(faces)
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(faces), BLOCK):
        copies, originals = references.pairs(_pixels(faces, start))
        pairs = faces.group[np.stack([start + copies, originals], axis=1)]
        found += [pairs, pairs[:, ::-1]]
    near = np.unique(np.concatenate(found), axis=0)
    distinct: Ints = near[near[:, 0] != near[:, 1]]
    return distinct


class _References:
    """Pictures whose copies are searched. Stored as bytes: floats of a large set do not fit into memory."""

    def __init__(self, faces: LabelledFaces) -> None:
        blocks = [_pixels(faces, start) for start in range(0, len(faces), BLOCK)]
        self._pixels = np.concatenate([np.empty((0, SIDE_PX**2), np.uint8), *blocks])
        coarse = [_coarse(_standardised(block)) for block in blocks]
        self._coarse = np.concatenate([np.empty((0, (SIDE_PX // CELL_PX) ** 2 + 1), np.float32), *coarse])

    def pairs(self, pixels: Bytes) -> tuple[Ints, Ints]:
        """The near copies among uint8 [n, px], and the reference of each: int64 [P] twice."""
        block = _standardised(pixels)
        # An upper bound of each correlation, at a sixteenth of the work. 1e-3 exceeds its rounding error.
        rows, candidates = map(np.unique, np.nonzero(_coarse(block) @ self._coarse.T > CORRELATION - 1e-3))
        copies, originals = np.nonzero(block[rows] @ _standardised(self._pixels[candidates]).T > CORRELATION)
        return rows[copies], candidates[originals]


def _pixels(faces: LabelledFaces, start: int) -> Bytes:
    rows = np.arange(start, min(start + BLOCK, len(faces)))
    return faces.pictures.read(rows, size=SIDE_PX, channels=1).reshape(len(rows), -1)


def _standardised(pixels: Bytes) -> Floats:
    """[n, px] of mean 0 and length 1: the product of two rows is their correlation; 0 for flat pictures."""
    flat = pixels.astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return flat


def _coarse(standardised: Floats) -> Floats:
    """[n, px] -> [n, cells + 1], whose products are never below the correlations of the full pictures.

    The scaled means of cells are an orthonormal projection P. With the remainder r of a picture,
    <x, y> = <Px, Py> + <rx, ry> <= <Px, Py> + |rx| |ry| (Cauchy and Schwarz).
    """
    cells = SIDE_PX // CELL_PX
    grid = standardised.reshape(-1, cells, CELL_PX, cells, CELL_PX).sum(axis=(2, 4)) / CELL_PX
    projected = grid.reshape(len(standardised), -1)
    left = np.square(standardised).sum(axis=1) - np.square(projected).sum(axis=1)
    return np.concatenate([projected, np.sqrt(np.maximum(left, 0))[:, None]], axis=1)
