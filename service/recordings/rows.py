"""One frame of a video as JSON and as rows of CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.api.columns import INCLUDES, face_columns, flat
from service.api.recordings import TimelineFrame
from service.api.schemas import DetectionQuery
from service.api.shaping import shape_size, shape_tracked
from service.pipeline.timeline import Moment

TIME_DIGITS = 3
_PLACE = ("x", "y", "width", "height")
_ANSWER = ("emotion", "verdict", "confidence")


def frame_of(moment: Moment, query: DetectionQuery) -> dict[str, Any]:
    """The fields of a `TimelineFrame`, for JSON."""
    frame = TimelineFrame(
        time_s=round(moment.time_s, TIME_DIGITS),
        image=shape_size(moment.seen),
        faces_found=moment.seen.faces_found,
        faces=shape_tracked(moment.seen, moment.followed, query),
    )
    return frame.model_dump(exclude_none=True)


def csv_columns(labels: Sequence[str], query: DetectionQuery) -> list[str]:
    """Time, track and place of a face, its smoothed answer, and its answer in this frame."""
    frame = [f"frame_{name}" for name in _ANSWER]
    return ["time_s", "track", *_PLACE, *_ANSWER, *labels, *frame, *_included(labels, query)]


def csv_rows(frame: Mapping[str, Any], labels: Sequence[str], query: DetectionQuery) -> list[dict[str, Any]]:
    """One row for each face of `frame_of`; one row with the time for a frame without a face."""
    included = _included(labels, query)
    rows: list[dict[str, Any]] = []
    for face in frame["faces"]:
        smoothed, parts = face["smoothed"], dict(flat(face))
        rows.append(
            {"time_s": frame["time_s"], "track": face["track"]}
            | {name: face["box"][name] for name in _PLACE}
            | {name: smoothed[name] for name in _ANSWER}
            | {label: smoothed["probabilities"][label] for label in labels}
            | {f"frame_{name}": face[name] for name in _ANSWER}
            | {name: parts.get(name, "") for name in included}
        )
    return rows or [{"time_s": frame["time_s"]}]


def _included(labels: Sequence[str], query: DetectionQuery) -> list[str]:
    """The columns of the parts that the query includes."""
    return [name for name in face_columns(labels, query) if name.split(".")[0] in INCLUDES]
