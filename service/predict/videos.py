"""Answers videos, one after the other: each frame to the ledger, and a picture and a report of the whole."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from PIL import Image as Pictures
from pydantic_core import to_json

from service.core.errors import Internal, ServiceError, reason_of
from service.pipeline.timeline import Moment, follow
from service.predict.annotated_video import AnnotatedVideo, copy_of
from service.predict.forms import Form
from service.predict.ledger import Ledger, LedgerError
from service.predict.pictures import inner_path
from service.predict.rows import RowProblem, RunInfo
from service.predict.run import Predictor, RunStoppedError
from service.predict.sources import Source, source
from service.predict.video_rows import frame_rows, last_row, problem_row, seen_of
from service.recordings.chart import thumbnail
from service.recordings.recording import Recording
from service.recordings.rows import TIME_DIGITS
from service.telemetry.logs import log
from service.tracking.record import MAX_TRACKS
from service.vision.video import VideoError, read_frames


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """How each video is answered. copies: folder for copies with boxes and labels."""

    form: Form
    run: RunInfo
    threshold: float
    pixel_limit: int
    copies: Path | None = None
    thumbnails: bool = False


@dataclass(slots=True)
class Watched:
    """What was seen of one video so far. thumbnails: for each track its best picture, and how good it is."""

    source: Source
    recording: Recording
    problem: RowProblem | None = None
    thumbnails: dict[int, tuple[tuple[bool, float], Pictures.Image]] = field(default_factory=dict)

    def add_thumbnails(self, moment: Moment) -> None:
        seen = moment.seen
        for face, track in enumerate(moment.followed):
            worth = seen.verdict(face) == "certain", seen.confidences[face]
            best = self.thumbnails.get(track.number)
            if (best is None and len(self.thumbnails) < MAX_TRACKS) or (best is not None and worth > best[0]):
                self.thumbnails[track.number] = worth, thumbnail(moment.pixels, seen.boxes[face])


async def answer_video(
    predictor: Predictor, options: VideoOptions, path: str, ledger: Ledger, picture: Path, report: Path
) -> Watched:
    """Append the frames of a video to the ledger, then write its `picture` and its `report`.

    A video that cannot be read gets a row with its problem. After `predictor.stop`, the frames so far are
    kept. Raises `LedgerError` and `RunStoppedError`.
    """
    run = options.run
    recording = Recording(run.labels, options.threshold, run.fps)
    watched = Watched(source(path), recording)
    try:
        await _watch(predictor, options, watched, ledger)
    except (LedgerError, RunStoppedError):
        raise
    except Exception as error:
        # No video may end the run, whatever its error.
        watched.problem = _problem(watched.source, error)
        ledger.append(problem_row(options.form, watched.source, watched.problem, run))
    else:
        if not predictor.stop.is_set():
            ledger.append(last_row(options.form, watched.source, recording.frames, recording.record, run))
    if recording.frames:
        await asyncio.to_thread(_summarise, watched, run, picture, report)
    return watched


def _summarise(watched: Watched, run: RunInfo, picture: Path, report: Path) -> None:
    thumbnails = {number: best for number, (_, best) in watched.thumbnails.items()}
    content = {"path": watched.source.shown} | watched.recording.report(run.model).model_dump(
        exclude_none=True
    )
    file = picture
    try:
        picture.write_bytes(watched.recording.picture("png", thumbnails))
        file = report
        report.write_bytes(to_json(content, indent=2) + b"\n")
    except OSError as error:
        raise RunStoppedError(f"{file} cannot be written: {reason_of(error)}") from error


async def _watch(predictor: Predictor, options: VideoOptions, watched: Watched, ledger: Ledger) -> None:
    run, recording = options.run, watched.recording
    record = recording.record
    needs_pixels = options.copies is not None or options.thumbnails
    known_s = -1.0
    for row in ledger.unfinished(watched.source.key):
        known_s = row["time_s"]
        # Copies and thumbnails need the pixels: these frames are answered again, but not written again.
        if not needs_pixels:
            recording.add(known_s, record.update(seen_of(row, run.labels), known_s))
    with ExitStack() as stack:
        file = stack.enter_context(_opened(watched.source))
        copy = None
        if options.copies is not None:
            target = copy_of(watched.source.path, options.copies)
            copy = stack.enter_context(AnnotatedVideo(target, run.labels))
        # Half a millisecond allows for the rounded times of the rows.
        from_s = -1.0 if needs_pixels else known_s + 5e-4
        frames = read_frames(file, run.fps, options.pixel_limit, from_s)
        moments = follow(frames, predictor.see, record, predictor.stop.is_set)
        async with aclosing(moments):
            async for moment in moments:
                if round(moment.time_s, TIME_DIGITS) > known_s:
                    ledger.append(frame_rows(options.form, watched.source, moment, run))
                recording.add(moment.time_s, moment.followed)
                if options.thumbnails:
                    watched.add_thumbnails(moment)
                if copy is not None:
                    await asyncio.to_thread(partial(_write, copy, moment, options.copies))


def _opened(found: Source) -> BinaryIO:
    if found.bytes is None and os.path.exists(found.path):
        raise VideoError("this is not a regular file")  # opening it could block forever
    return open(found.path, "rb")


def _write(copy: AnnotatedVideo, moment: Moment, folder: Path | None) -> None:
    try:
        copy.write(moment)
    except OSError as error:
        raise RunStoppedError(f"videos cannot be written to {folder}: {reason_of(error)}") from error


def _problem(found: Source, error: Exception) -> RowProblem:
    if isinstance(error, VideoError):
        return RowProblem("invalid_video", "The video cannot be read", str(error))
    if isinstance(error, OSError):
        return RowProblem("file_unreadable", "The file cannot be read", reason_of(error))
    if isinstance(error, ServiceError) and not isinstance(error, Internal):
        return RowProblem.of(error)
    log.error("video failed", path=found.shown, exc_info=error)
    return RowProblem.of(Internal(""))


def names_of(paths: Sequence[str]) -> list[str]:
    """A name for the output of each video: its own, or its whole path where several have the same name."""
    stems = [Path(path).stem for path in paths]
    count = Counter(stems)
    names: list[str] = []
    for path, stem in zip(paths, stems, strict=True):
        name = stem if count[stem] == 1 else str(inner_path(path)).replace(os.sep, "-")
        while name in names:
            name += "-"
        names.append(name)
    return names
