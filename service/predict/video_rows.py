"""The rows of a video for each output: those of its frames, and the last row."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic_core import to_json

from service.api.shaping import shape_track
from service.core.seen import Seen
from service.pipeline.timeline import Moment
from service.predict.forms import Form
from service.predict.rows import TAIL, RowProblem, RunInfo, csv_header, json_head
from service.predict.sources import Source
from service.recordings.rows import csv_columns, csv_rows, frame_of
from service.tracking.record import Record


def header(run: RunInfo) -> bytes:
    return csv_header(run, _columns(run))


def _columns(run: RunInfo) -> list[str]:
    return ["path", *csv_columns(run.labels, run.query), *TAIL]


def frame_rows(form: Form, source: Source, moment: Moment, run: RunInfo) -> bytes:
    """One line of JSON; or one line of CSV for each face, and one line for a frame without a face."""
    frame = frame_of(moment, run.query)
    if form is Form.csv:
        rows = csv_rows(frame, run.labels, run.query)
        return _csv([{"path": source.shown} | row for row in rows], run)
    return _json(source, run, **frame)


def last_row(form: Form, source: Source, frames: int, record: Record, run: RunInfo) -> bytes:
    """The faces of the whole video, as one line of JSON: the video is complete. CSV has no such line."""
    if form is Form.csv:
        return b""
    tracks = [shape_track(track, run.labels).model_dump() for track in record.totals()]
    return _json(source, run, frames=frames, tracks=tracks, tracks_omitted=record.omitted)


def problem_row(form: Form, source: Source, problem: RowProblem, run: RunInfo) -> bytes:
    """Why the video has no answer, or no further frames."""
    if form is Form.csv:
        return _csv([{"path": source.shown, "problem": problem.code, "detail": problem.detail}], run)
    return _json(source, run, problem=problem)


def seen_of(row: dict[str, Any], labels: Sequence[str]) -> Seen:
    """What `frame_rows` wrote as JSON, as far as tracks need it."""
    faces = row["faces"]
    boxes = [
        (box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"])
        for box in (face["box"] for face in faces)
    ]
    rows = [[face["probabilities"][label] for label in labels] for face in faces]
    return Seen(
        width=row["image"]["width"],
        height=row["image"]["height"],
        faces_found=row["faces_found"],
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        scores=None,
        landmarks=None,
        labels=tuple(labels),
        probabilities=np.array(rows, np.float32).reshape(-1, len(labels)),
        agreement=np.array([face["agreement"] / 10 for face in faces], np.float32),
        gates=np.zeros((len(faces), 2, 4), np.float32),
        quality=[],
        reasons=[face.get("reasons", []) for face in faces],
        drawings=[],
    )


def _json(source: Source, run: RunInfo, **content: Any) -> bytes:
    return to_json(json_head(source, run) | content) + b"\n"


def _csv(rows: Sequence[dict[str, Any]], run: RunInfo) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, _columns(run), restval="", lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
