"""Expands files, folders and globs to paths of images, one at a time and in a stable order."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".avif", ".heic", ".heif"),
)
"""Endings of images in folders and globs. A file that is named directly may have any ending."""
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Source:
    """An image to answer and the state of its file; bytes and modified: None if it is no regular file."""

    path: str
    bytes: int | None = None
    modified: str | None = None

    @property
    def shown(self) -> str:
        """The path as one printable line, whatever its bytes."""
        text = os.fsencode(self.path).decode("utf-8", "backslashreplace")
        return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)

    @property
    def key(self) -> int:
        return key_of(self.shown, self.bytes, self.modified)


def key_of(shown: str, size: int | None, modified: str | None) -> int:
    """64-bit hash of a path and the state of its file."""
    digest = blake2b(f"{shown}\n{size}\n{modified}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def source(path: str) -> Source:
    """The file in its present state. An error is reported later, when the file is read."""
    try:
        found = os.stat(path)
    except OSError:
        return Source(path)
    if not stat.S_ISREG(found.st_mode):
        return Source(path)
    modified = datetime.fromtimestamp(found.st_mtime_ns // 1000 / 1e6, UTC)
    return Source(path, found.st_size, modified.isoformat(timespec="microseconds"))


def is_video(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES


def missing(places: Sequence[str]) -> str | None:
    """The first place that does not exist and matches no file, or None."""
    for place in places:
        if (
            place != STANDARD_INPUT
            and not os.path.lexists(place)
            and not any(glob.iglob(place, recursive=True))
        ):
            return place
    return None


def images(places: Sequence[str], excluded: Path | None = None) -> Iterator[str]:
    """Paths of the images at all places, each once; nothing below `excluded`."""
    excluded_folder = None if excluded is None else os.path.realpath(excluded)
    # Hashes instead of paths, to save memory: places may overlap in hundreds of thousands of files.
    seen: set[int] | None = set() if len(places) > 1 or any(map(glob.has_magic, places)) else None
    for place in places:
        for path in _at(place, excluded_folder):
            if seen is not None:
                number = hash(os.path.abspath(path))
                if number in seen:
                    continue
                seen.add(number)
            yield path


def _at(place: str, excluded: str | None) -> Iterator[str]:
    if os.path.isdir(place):
        yield from _below(place, excluded)
    elif place == STANDARD_INPUT or os.path.lexists(place):
        yield place
    else:
        for path in sorted(glob.iglob(place, recursive=True)):
            if os.path.isdir(path):
                yield from _below(path, excluded)
            elif _is_image(path):
                yield path


def _below(folder: str, excluded: str | None) -> Iterator[str]:
    if excluded is not None and os.path.realpath(folder) == excluded:
        return
    try:
        with os.scandir(folder) as entries:
            # Hidden files are copies and previews that systems leave, not photos.
            names = sorted(
                entry.name + os.sep * entry.is_dir(follow_symlinks=False)
                for entry in entries
                if not entry.name.startswith(".")
                and (entry.is_dir(follow_symlinks=False) or _is_image(entry.name))
            )
    except OSError:
        yield folder  # reading it reports the error
        return
    for name in names:
        path = os.path.join(folder, name)
        if name.endswith(os.sep):
            yield from _below(path.rstrip(os.sep), excluded)
        else:
            yield path


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
