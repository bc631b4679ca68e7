"""Pictures in files. All files are checked before training starts."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image

from service.core.manifest import EMOTIONS
from training.datasets.faces import (
    DECODING_THREADS,
    UNREADABLE,
    Dataset,
    DatasetError,
    FilePictures,
    LabelledFaces,
)
from training.datasets.faults import Faults, wrong_counts

PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
CLUTTER = frozenset({"desktop.ini", "thumbs.db"})  # of file managers; hidden files are skipped too
BLOCK = 4096

Box = tuple[int, int, int, int]


class ImageEntry(NamedTuple):
    """A picture as a data set lists it. emotion: index into `EMOTIONS`; box: xyxy of the face in px."""

    split: str
    file: Path
    emotion: int
    box: Box | None = None


def make_dataset(
    name: str,
    root: Path,
    entries: Iterable[ImageEntry],
    faults: Faults,
    *,
    training: str = "training",
    emotions: tuple[str, ...] | None = None,
    licence: str = "the pictures' own: not known to this program",
    published: Mapping[str, int] | None = None,
) -> Dataset:
    """The data set of pictures with one label each. Splits other than `training` are test splits.

    emotions: by default the shortest prefix of `EMOTIONS` that has every label. published: number
    of images of each split; others are only reported, because subsets are common.
    Raises `DatasetError` for bad files, and when no training picture remains.
    """
    entries = list(entries)
    splits = load_entries(entries, root, faults)
    problems = faults.raise_or_report()
    if published is not None:
        problems += wrong_counts({split: len(rows) for split, rows in splits.items()}, published)
    if training not in splits:
        raise DatasetError(f"{root} has no training pictures of {', '.join(emotions or EMOTIONS)}")
    return Dataset(
        name=name,
        emotions=emotions or EMOTIONS[: 1 + max(entry.emotion for entry in entries)],
        label_emotions=(),
        training=splits.pop(training),
        tests=splits,
        licences=(licence,),
        problems=problems,
    )


def load_entries(entries: Sequence[ImageEntry], root: Path, faults: Faults) -> dict[str, LabelledFaces]:
    """Split -> faces, in their order. Unreadable files are skipped and added to `faults`.

    Copies are files with the same bytes, in any split. A JPEG with damage in its middle passes this check and
    fails when it is decoded. Either all of `entries` have boxes, or none.
    """
    readable, digests = [], []
    with ThreadPoolExecutor(DECODING_THREADS) as pool:
        for start in range(0, len(entries), BLOCK):
            block = entries[start : start + BLOCK]
            for row, checked in zip(block, pool.map(_digest_or_fault, block), strict=True):
                if isinstance(checked, bytes):
                    readable.append(row)
                    digests.append(checked)
                else:
                    kind, detail = checked
                    faults.add(kind, _name(row.file, root) + detail)
    _, group = np.unique(np.array(digests, "V16"), return_inverse=True)
    boxes = [row.box for row in readable if row.box is not None]
    everything = LabelledFaces.singly_labelled(
        FilePictures(tuple(row.file for row in readable), np.array(boxes, np.int64) if boxes else None),
        names=np.array([_name(row.file, root) for row in readable], np.str_),
        labels=np.array([row.emotion for row in readable], np.int64),
        group=group.astype(np.int64),
    )
    splits = np.array([row.split for row in readable], np.str_)
    return {split: everything.rows(splits == split) for split in dict.fromkeys(splits.tolist())}


def pictures_below(folder: Path, faults: Faults) -> Iterator[Path]:
    """Every picture at any depth, sorted. Other files, except clutter, are added to `faults`."""
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.name.lower() in CLUTTER or path.is_dir():
            continue
        if path.suffix.lower() in PICTURE_SUFFIXES:
            yield path
        else:
            faults.add("files that are no pictures", _name(path, folder))


def _digest_or_fault(row: ImageEntry) -> bytes | tuple[str, str]:
    """The digest of one file's bytes, or the kind and the details of its fault."""
    try:
        content = row.file.read_bytes()
    except FileNotFoundError:
        return "missing files", ""
    except OSError as error:
        return "files that cannot be opened", f" ({error.strerror})"
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.format == "PNG":
                image.verify()
            # A complete JPEG ends with these bytes. Only others are decoded, to find their fault.
            elif not (image.format == "JPEG" and content.endswith(b"\xff\xd9")):
                image.load()
        overlaps = row.box is None or _box_overlaps(row.box, content)
    except UNREADABLE as error:
        return "unreadable images", f" ({error})"
    if not overlaps:
        return "face boxes outside of their image", ""
    return hashlib.sha256(content).digest()[:16]


def _box_overlaps(box: Box, content: bytes) -> bool:
    left, top, right, bottom = box
    with Image.open(io.BytesIO(content)) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation, 1) > 4:  # rotated by 90 degrees
            width, height = height, width
    return max(left, 0) < min(right, width) and max(top, 0) < min(bottom, height)


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix()
