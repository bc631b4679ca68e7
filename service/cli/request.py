"""What a run of `expressnet predict` does: the files of its paths, the formats, and what is refused."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from service.api.schemas import EmotionQuery
from service.cli.video import Clip, clips_of, occupied
from service.predict.forms import Form


class RefusedError(Exception):
    """The command cannot be run as it was given. The message is one sentence."""


@dataclass(frozen=True, slots=True)
class Options:
    """The command as it was given."""

    paths: tuple[str, ...]
    form: Form | None
    output: Path | None
    copies: Path | None
    query: EmotionQuery
    fps: float | None
    thumbnails: bool
    bom: bool


@dataclass(frozen=True, slots=True)
class Request:
    """What a run does. form: of images, and of `output`. clips: the videos, and where their timelines go."""

    options: Options
    form: Form
    clip_form: Form
    fps: float
    has_images: bool
    clips: list[Clip]
    skipped: list[str]


def request_of(options: Options, default_fps: float) -> Request:
    """Look at all paths. Raises `RefusedError` for what does not fit together."""
    from service.predict.pictures import would_overwrite
    from service.predict.sources import OUTPUT_SUFFIXES, STANDARD_INPUT, files, is_video, missing

    paths, output = options.paths, options.output
    if (absent := missing(paths)) is not None:
        raise RefusedError(f"{absent} was not found")
    if STANDARD_INPUT in paths and (len(paths) > 1 or output is not None):
        raise RefusedError("- must be the only path, and without --output")
    if options.copies is not None and would_overwrite(options.copies):
        raise RefusedError("--annotate needs a folder of its own: pictures would overwrite their photos")
    form = _form(options.form, output)
    clip_form = form if output is not None else Form.jsonl if options.form is Form.jsonl else Form.csv
    skipped: list[str] = []
    videos, has_images = [], False
    for path in files(paths, options.copies, skipped.append):
        if is_video(path):
            videos.append(path)
        else:
            has_images = True
    if not videos and (options.fps is not None or options.thumbnails):
        raise RefusedError(f"{'--fps' if options.fps is not None else '--thumbnails'} is only for videos")
    if videos and has_images and output is not None and form is Form.csv:
        raise RefusedError("images and videos do not fit into one CSV file; use JSON lines, or two runs")
    has_images = has_images or not videos
    if options.bom and Form.csv not in ([form] if has_images else []) + ([clip_form] if videos else []):
        raise RefusedError("--bom is only for CSV")
    clips = clips_of(videos, output, clip_form)
    if (file := occupied(clips, clip_form)) is not None:
        hint = "" if clip_form is Form.jsonl else "; CSV cannot resume, --format jsonl can"
        raise RefusedError(f"{file} is not empty; name another file, or delete it{hint}")
    # What a run writes is not worth a word.
    own = None if output is None else os.path.abspath(output)
    taken = {own, *map(os.path.abspath, videos)}
    skipped = [
        path for path in skipped if not path.endswith(OUTPUT_SUFFIXES) and os.path.abspath(path) not in taken
    ]
    return Request(options, form, clip_form, options.fps or default_fps, has_images, clips, skipped)


def check_writable(file: Path) -> None:
    """Find a folder that cannot be written to before the work begins, not after it."""
    from service.core.errors import reason_of

    try:
        file.open("ab").close()
    except OSError as error:
        raise RefusedError(f"{file} cannot be written to: {reason_of(error)}") from None


def _form(form: Form | None, output: Path | None) -> Form:
    if output is None:
        return form or (Form.table if sys.stdout.isatty() else Form.jsonl)
    if form is Form.table:
        raise RefusedError("--output takes JSON lines or CSV, not a table")
    return form or (Form.csv if output.suffix.lower() == ".csv" else Form.jsonl)
