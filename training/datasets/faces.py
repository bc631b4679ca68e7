"""Labelled faces, as every loader returns them. Pictures are read on request."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

DECODING_THREADS = min(16, os.cpu_count() or 1)
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow raises


class DatasetError(ValueError):
    """A data set's file is missing, incomplete or not in its published format. The message names the file."""


class Pictures(Protocol):
    """N pictures of faces, each cropped to the face."""

    def __len__(self) -> int: ...

    def read(self, rows: Ints, *, size: int, channels: int) -> Bytes:
        """uint8 [n, channels, size, size] of the given rows; 1 channel is grey (BT.601), 3 are RGB."""

    def original(self, row: int) -> tuple[bytes | Bytes, Ints | None]:
        """One picture as it is, an encoded file or pixels [H,W,3], with the box of its face, if any."""

    def choose(self, rows: Bools | Ints) -> Self:
        """Only the pictures of the given rows, in their order."""


@dataclass(frozen=True)
class PixelPictures:
    """Pictures held in memory: uint8 [N,H,W] grey or [N,H,W,3] RGB."""

    pixels: Bytes

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, rows: Ints, *, size: int, channels: int) -> Bytes:
        if self.pixels.shape[1:] == (size, size):
            return np.repeat(self.pixels[rows][:, None], channels, axis=1)
        pictures = np.empty((len(rows), channels, size, size), np.uint8)

        def read_one(picture: Bytes, row: int) -> None:
            image = Image.fromarray(self.pixels[row])
            if channels == 1 or image.mode != "L":  # a grey image is resized once, for all channels
                image = image.convert("L" if channels == 1 else "RGB")
            picture[:] = np.moveaxis(np.atleast_3d(np.asarray(_fitted(image, size))), 2, 0)

        with ThreadPoolExecutor(DECODING_THREADS) as pool:
            list(pool.map(read_one, pictures, rows.tolist()))
        return pictures

    def original(self, row: int) -> tuple[bytes | Bytes, Ints | None]:
        return np.asarray(Image.fromarray(self.pixels[row]).convert("RGB")), None

    def choose(self, rows: Bools | Ints) -> PixelPictures:
        return PixelPictures(self.pixels[rows])


@dataclass(frozen=True)
class FilePictures:
    """Pictures on disk, decoded by several threads when they are read.

    boxes: int64 [N,4] xyxy of each face, in pixels of the upright picture. Parts of a box beyond the picture
    are black.
    """

    files: tuple[Path, ...]
    boxes: Ints | None = None

    def __len__(self) -> int:
        return len(self.files)

    def read(self, rows: Ints, *, size: int, channels: int) -> Bytes:
        """As `Pictures.read`. Raises `DatasetError`, which names a file that cannot be decoded."""

        images = np.empty((len(rows), size, size, channels), np.uint8)

        def read_one(image: Bytes, row: int) -> None:
            box = None if self.boxes is None else self.boxes[row]
            picture = decoded(self.files[row], "RGB" if channels == 3 else "L", box)
            image[:] = np.asarray(_fitted(picture, size)).reshape(image.shape)

        for _ in self._pool.map(read_one, images, rows.tolist()):
            pass
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))

    def original(self, row: int) -> tuple[bytes | Bytes, Ints | None]:
        return self.files[row].read_bytes(), None if self.boxes is None else self.boxes[row]

    def choose(self, rows: Bools | Ints) -> FilePictures:
        chosen = np.arange(len(self))[rows]
        return FilePictures(
            tuple(self.files[row] for row in chosen), None if self.boxes is None else self.boxes[chosen]
        )

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(DECODING_THREADS, thread_name_prefix="decode")


@dataclass(frozen=True)
class LabelledFaces:
    """Row-aligned faces and labels. Labels are indices into the manifest's `EMOTIONS`.

    names: the source of each face, for messages and galleries: a file, or a line of a file.
    labels: int64 [N], the data set's own label, -1 if missing.
    distributions: float32 [N,8] over `EMOTIONS`, the target of the main head: the annotators' votes or one
    label, all zero if missing.
    majority: int64 [N], the label that the main head is measured against, -1 if missing.
    group: int64 [N], equal for exact copies of a picture.
    votes: int64 [N,10], for `EMOTIONS`, unknown and not a face; None: the label is the only vote.
    weights: float32 [N], how often training draws a face, relative to others; None: all faces alike.
    near: int64 [P,2], the groups of near copies, each pair in both orders; None: pictures are compared.
    """

    pictures: Pictures
    names: NDArray[np.str_]
    labels: Ints
    distributions: NDArray[np.float32]
    majority: Ints
    group: Ints
    votes: Ints | None = None
    weights: NDArray[np.float32] | None = None
    near: Ints | None = None

    @classmethod
    def singly_labelled(
        cls, pictures: Pictures, *, names: NDArray[np.str_], labels: Ints, group: Ints
    ) -> LabelledFaces:
        """Faces of a data set with one label per picture: int64 [N] into `EMOTIONS`."""
        return cls(pictures, names, labels, one_hot(labels), labels, group)

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def all_votes(self) -> Ints:
        """int64 [N,10] as `votes`; zero for a face without a label."""
        return one_hot(self.majority, VOTE_COLUMNS).astype(np.int64) if self.votes is None else self.votes

    def rows(self, chosen: Bools | Ints) -> LabelledFaces:
        return replace(
            self,
            pictures=self.pictures.choose(chosen),
            votes=None if self.votes is None else self.votes[chosen],
            weights=None if self.weights is None else self.weights[chosen],
            **{name: getattr(self, name)[chosen] for name in ROW_ALIGNED},
        )


VOTE_COLUMNS = 10
ROW_ALIGNED = ("names", "labels", "distributions", "majority", "group")


@dataclass(frozen=True)
class Dataset:
    """A data set as its authors split it.

    emotions: of the main head, a prefix of `EMOTIONS`. label_emotions: of the data set's
    own labels, also a prefix; empty if the main head learns these labels. tests: test splits by the
    authors' names, in their order; no test split chooses anything. problems: one sentence with a count for
    each kind of skipped rows, and other notes. parts: the data sets that this one joins, if any.
    """

    name: str
    emotions: tuple[str, ...]
    label_emotions: tuple[str, ...]
    training: LabelledFaces
    tests: dict[str, LabelledFaces]
    licences: tuple[str, ...]
    problems: tuple[str, ...] = ()
    parts: tuple[Dataset, ...] = ()


def decoded(file: Path, mode: str, box: Ints | None = None) -> Image.Image:
    """One upright picture. Raises `DatasetError`, which names a file that cannot be decoded."""
    try:
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image).convert(mode)
    except UNREADABLE as error:
        raise DatasetError(f"{file} cannot be read as an image: {error}") from error
    return upright if box is None else upright.crop((box[0], box[1], box[2], box[3]))


def _fitted(image: Image.Image, size: int) -> Image.Image:
    return image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BILINEAR)


def one_hot(labels: Sequence[int] | Ints, classes: int = 8) -> NDArray[np.float32]:
    """[N], -1 if missing -> float32 [N, classes], zero if missing."""
    matches: Bools = np.asarray(labels)[:, None] == np.arange(classes)
    return matches.astype(np.float32)
