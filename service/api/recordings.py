"""The query of a recording, its state and its results."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from service.api.schemas import (
    FACES_FOUND,
    DetectionQuery,
    ImageSize,
    Include,
    ModelName,
    Probabilities,
    Problem,
    Sparse,
)
from service.api.stream import TrackedFace, TrackSummary
from service.core.query import Query
from service.core.region import Region

MINUTE_S = 60.0
DEFAULT_FPS = 5.0
Fps = Annotated[float, Field(ge=0.1, le=30)]
_FPS = "Frames to analyse in each second of the video."
_WEBHOOK = Field(
    None,
    description="Address that gets a message when the recording is done or has failed. "
    "`EXPRESSNET_WEBHOOK_HOSTS` has the allowed hosts.",
    json_schema_extra={"format": "uri"},
)
_NUMBER = r"(0(\.[0-9]+)?|1(\.0+)?|\.[0-9]+)"


def _without_heatmap(schema: dict[str, Any]) -> None:
    include = schema["properties"]["include"]
    include["description"] += " `heatmap` is not available in a recording."
    include["items"]["not"] = {"pattern": Include.heatmap}


class RecordingQuery(DetectionQuery):
    """The query of `POST /v1/recordings`."""

    model_config = ConfigDict(json_schema_extra=_without_heatmap)

    fps: Fps = Field(DEFAULT_FPS, description=_FPS)
    region: str | None = Field(
        None,
        description="Part of each frame to analyse, as `x,y,width,height` in shares of the frame: "
        "`0.5,0,0.5,1` is the right half. The default is the whole frame.",
        json_schema_extra={"pattern": rf"^{_NUMBER}(,{_NUMBER}){{3}}$"},
    )

    webhook: str | None = _WEBHOOK

    @field_validator("region")
    @classmethod
    def _inside(cls, value: str | None) -> str | None:
        return None if value is None else str(Region.parse(value))

    @field_validator("include")
    @classmethod
    def _no_heatmap(cls, value: tuple[Include, ...]) -> tuple[Include, ...]:
        if Include.heatmap in value:
            raise ValueError("heatmap is for photos: it costs more time than a frame has")
        return value

    @property
    def part(self) -> Region | None:
        return None if self.region is None else Region.parse(self.region)

    def to_pipeline(self) -> Query:
        """A video says which way is up."""
        return replace(super().to_pipeline(), turned=False)


class GroupRecordingQuery(BaseModel):
    """The query in group mode. A caller that chooses faces or a region could single one out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fps: Fps = Field(DEFAULT_FPS, description=_FPS)
    webhook: str | None = _WEBHOOK


class RecordingForm(BaseModel):
    """A recording as a multipart form."""

    model_config = ConfigDict(extra="forbid")

    video: bytes = Field(description="The video file.")


class RecordingState(StrEnum):
    """queued and working may change, all others are final."""

    queued = "queued"
    working = "working"
    done = "done"
    failed = "failed"
    interrupted = "interrupted"
    cancelled = "cancelled"

    @property
    def final(self) -> bool:
        return self not in (RecordingState.queued, RecordingState.working)


class RecordingJob(Sparse):
    """A recording and how far its analysis is."""

    id: str = Field(description="The id of the recording.")
    state: RecordingState = Field(
        description="`queued` and `working` may change. `interrupted`: the gateway ended before the work."
    )
    created_at: datetime = Field(description="When the recording had arrived, in UTC.")
    frames: int = Field(description="Number of frames that have an answer.")
    time_s: float = Field(description="Time of the latest of these frames, in seconds.")
    duration_s: float | None = Field(
        None, description="Length of the video in seconds. Absent if the file does not say it."
    )
    progress: float | None = Field(
        None, description="Analysed share of the video, from 0 to 1. Absent if the length is not known."
    )
    left_s: float | None = Field(
        None, description="Estimated time until the end, in seconds. Absent if it is not known."
    )
    problem: Problem | None = Field(None, description="Why the state is `failed`.")


class TimelineFrame(Sparse):
    """One frame of a recording."""

    time_s: float = Field(description="Seconds since the first frame.")
    image: ImageSize = Field(description="Size of the upright frame.")
    faces_found: int = FACES_FOUND
    faces: list[TrackedFace] = Field(description="The faces, largest first.")


class Timeline(BaseModel):
    """Every analysed frame of a recording."""

    model: ModelName = Field(description="The classifier that answered.")
    frames: list[TimelineFrame] = Field(description="The frames, in order.")


class TimeShares(Sparse):
    """All faces over a period. The time between two frames counts for the earlier frame."""

    frames: int = Field(description="Number of frames.")
    absent: float = Field(description="Share of the time without a face.")
    seen_s: float = Field(description="Seconds of all faces together.")
    time_share: Probabilities | None = Field(
        None, description="Share of `seen_s` by smoothed emotion. Absent without a face."
    )
    certain: float | None = Field(
        None, description="Share of `seen_s` with the smoothed verdict `certain`. Absent without a face."
    )


_MODEL = Field(description="The classifier that answered.")
_START = Field(description="Begin of the minute, in seconds since the first frame.")
_END = Field(description="End of the minute, or of the recording.")
_DURATION = Field(description="Length of the analysed part, in seconds.")


class Minute(TimeShares):
    """All faces in one minute of a recording."""

    start_s: float = _START
    end_s: float = _END


class RecordingReport(Sparse):
    """A recording as a whole."""

    model: ModelName = _MODEL
    duration_s: float = _DURATION
    tracks: list[TrackSummary] = Field(description="The faces, in the order in which they appeared.")
    tracks_omitted: int = Field(
        0, description="Number of faces that are not in `tracks`, which holds the last 1000."
    )
    minutes: list[Minute] = Field(description="Every minute with a frame, in order.")
    group: TimeShares = Field(description="All faces over the whole recording.")


class GroupShares(Sparse):
    """The frames of a period that show a group."""

    min_faces: int = Field(
        description="`EXPRESSNET_AGGREGATE_ONLY`. Frames with fewer faces count as no group."
    )
    grouped: float = Field(description="Share of the frames with a group, in steps of 0.05.")
    probabilities: Probabilities | None = Field(
        None,
        description="Mean probability of each emotion over the frames with a group, in steps of 0.05. Absent "
        "without such a frame. The sum can differ from 1.",
    )


class GroupMinute(GroupShares):
    """The group in one minute of a recording."""

    start_s: float = _START
    end_s: float = _END


class GroupRecordingReport(Sparse):
    """A recording as a whole, in group mode."""

    model: ModelName = _MODEL
    duration_s: float = _DURATION
    minutes: list[GroupMinute] = Field(description="Every minute with a frame, in order.")
    group: GroupShares = Field(description="The group over the whole recording.")
