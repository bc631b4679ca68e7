"""Expands files, folders and globs to paths of images and videos, one at a time and in a stable order."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

from service.vision.video import is_video as holds_video

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".avif", ".heic", ".heif"),
)
"""Endings of images in folders and globs. A file that is named directly may have any ending."""
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".divx"),
    *(".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".m2t"),
    *(".3gp", ".3g2", ".flv", ".f4v", ".wmv", ".asf", ".ogv", ".ogm", ".rm", ".rmvb"),
    *(".mxf", ".dv", ".mjpg", ".mjpeg", ".h264", ".264", ".h265", ".265", ".hevc", ".ivf", ".y4m"),
)
"""Endings of videos in folders and globs."""
# TypeScript has these endings too. A transport stream has this byte at its beginning, or after a time stamp.
TRANSPORT_SUFFIXES = (".ts", ".mts", ".m2ts", ".m2t")
SYNC_BYTE = 0x47
# What earlier runs wrote is no input.
OUTPUT_SUFFIXES = (".timeline.csv", ".timeline.jsonl", ".timeline.png", ".report.json")

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
    """Whether a file is a video: by its ending, or by its content if the ending is unknown."""
    if _has_suffix(path, VIDEO_SUFFIXES):
        return True
    if _has_suffix(path, IMAGE_SUFFIXES) or not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            return holds_video(file)
    except OSError:
        return False


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
    """The images of `files`."""
    return (path for path in files(places, excluded) if not is_video(path))


def files(
    places: Sequence[str], excluded: Path | None = None, skipped: Callable[[str], None] = lambda path: None
) -> Iterator[str]:
    """Paths of the images and videos at all places, each once; nothing below `excluded`.

    skipped: is called with each file of a folder or glob that is neither.
    """
    excluded_folder = None if excluded is None else os.path.realpath(excluded)
    # Hashes instead of paths, to save memory: places may overlap in hundreds of thousands of files.
    seen: set[int] | None = set() if len(places) > 1 or any(map(glob.has_magic, places)) else None
    for place in places:
        for path in _at(place, excluded_folder, skipped):
            if seen is not None:
                number = hash(os.path.abspath(path))
                if number in seen:
                    continue
                seen.add(number)
            yield path


def _at(place: str, excluded: str | None, skipped: Callable[[str], None]) -> Iterator[str]:
    if os.path.isdir(place):
        yield from _below(place, excluded, skipped)
    elif place == STANDARD_INPUT or os.path.lexists(place):
        yield place
    else:
        for path in sorted(glob.iglob(place, recursive=True)):
            if os.path.isdir(path):
                yield from _below(path, excluded, skipped)
            elif _is_taken(path):
                yield path
            else:
                skipped(path)


def _below(folder: str, excluded: str | None, skipped: Callable[[str], None]) -> Iterator[str]:
    if excluded is not None and os.path.realpath(folder) == excluded:
        return
    try:
        with os.scandir(folder) as entries:
            # Hidden files are copies and previews that systems leave, not photos.
            names = sorted(
                entry.name + os.sep * entry.is_dir(follow_symlinks=False)
                for entry in entries
                if not entry.name.startswith(".")
            )
    except OSError:
        yield folder  # reading it reports the error
        return
    for name in names:
        path = os.path.join(folder, name)
        if name.endswith(os.sep):
            yield from _below(path.rstrip(os.sep), excluded, skipped)
        elif _is_taken(path):
            yield path
        else:
            skipped(path)


def _is_taken(path: str) -> bool:
    """Whether a file of a folder or glob is answered."""
    if _has_suffix(path, IMAGE_SUFFIXES):
        return not path.endswith(OUTPUT_SUFFIXES)
    if _has_suffix(path, TRANSPORT_SUFFIXES):
        return _is_transport_stream(path)
    return _has_suffix(path, VIDEO_SUFFIXES)


def _has_suffix(path: str, suffixes: tuple[str, ...]) -> bool:
    return os.path.splitext(path)[1].lower() in suffixes


def _is_transport_stream(path: str) -> bool:
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(5)
    except OSError:
        return True  # reading it reports the error
    return SYNC_BYTE in (head[:1] + head[4:])
