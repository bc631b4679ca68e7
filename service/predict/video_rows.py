"""One frame of a video as JSON and as rows of CSV, and the last row of a video."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic_core import to_json

from service.api.schemas import Include
from service.api.shaping import shape_faces, shape_size, shape_track, shape_tracked
from service.core.arrays import corner_and_size
from service.core.seen import Seen
from service.pipeline.timeline import Moment
from service.predict.forms import Form
from service.predict.rows import TAIL, RowProblem, RunInfo, csv_header, face_columns, flat, json_head
from service.predict.sources import Source
from service.tracking.record import Record

TIME_DIGITS = 3
_PLACE = ("x", "y", "width", "height")
_ANSWER = ("emotion", "verdict", "confidence")


def header(run: RunInfo) -> bytes:
    return csv_header(run, _columns(run))


def frame_rows(form: Form, source: Source, moment: Moment, run: RunInfo) -> bytes:
    """One line of JSON; or one line of CSV for each face, and one line for a frame without a face."""
    if form is Form.csv:
        return _csv_rows(source, moment, run)
    seen = moment.seen
    return _json(
        source,
        run,
        time_s=round(moment.time_s, TIME_DIGITS),
        image=shape_size(seen),
        faces_found=seen.faces_found,
        faces=[
            face.model_dump(exclude_none=True) for face in shape_tracked(seen, moment.followed, run.query)
        ],
    )


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


def _columns(run: RunInfo) -> list[str]:
    frame = [f"frame_{name}" for name in _ANSWER]
    return ["path", "time_s", "track", *_PLACE, *_ANSWER, *run.labels, *frame, *_included(run), *TAIL]


def _included(run: RunInfo) -> list[str]:
    """The columns of the parts that the query includes."""
    return [name for name in face_columns(run) if name.split(".")[0] in set(Include)]


def _csv_rows(source: Source, moment: Moment, run: RunInfo) -> bytes:
    seen = moment.seen
    head = {"path": source.shown, "time_s": round(moment.time_s, TIME_DIGITS)}
    rows: list[dict[str, Any]] = []
    faces = zip(
        moment.followed,
        corner_and_size(seen.boxes).tolist(),
        shape_faces(seen, run.query),
        strict=True,
    )
    for track, box, face in faces:
        smoothed = [round(value, 6) for value in track.probabilities.tolist()]
        answer = run.labels[track.best], track.verdict, smoothed[track.best]
        parts = dict(flat(face))
        rows.append(
            head
            | {"track": track.number}
            | dict(zip(_PLACE, (round(value, 2) for value in box), strict=True))
            | dict(zip(_ANSWER, answer, strict=True))
            | dict(zip(run.labels, smoothed, strict=True))
            | {f"frame_{name}": parts[name] for name in _ANSWER}
            | {name: parts.get(name, "") for name in _included(run)}
        )
    return _csv(rows or [head], run)


def _csv(rows: Sequence[dict[str, Any]], run: RunInfo) -> bytes:
    text = io.StringIO()
    csv.DictWriter(text, _columns(run), restval="", lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
