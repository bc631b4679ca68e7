"""What a stream is asked and answers: docs/reference/stream.md has an example of each message."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from service.api.schemas import (
    FACES_FOUND,
    DetectionQuery,
    Emotion,
    Face,
    ImageSize,
    Include,
    ModelName,
    Probabilities,
    Problem,
    Sparse,
)
from service.core.seen import Verdict
from service.tracking.smoothing import TIME_CONSTANT_S


def _without_heatmap(schema: dict[str, Any]) -> None:
    include = schema["properties"]["include"]
    include["description"] += " A stream has no heatmap."
    include["items"]["not"] = {"pattern": Include.heatmap}


class StreamQuery(DetectionQuery):
    """The query of `WS /v1/stream`, where faces are always looked for."""

    model_config = ConfigDict(json_schema_extra=_without_heatmap)

    time_constant_s: Annotated[float, Field(ge=0, le=60)] = Field(
        TIME_CONSTANT_S,
        description="After this time a change has arrived by 63 % in `smoothed`; 0 smooths nothing.",
    )
    clock: Literal["arrival", "sent"] = Field(
        "arrival",
        description="`sent`: each frame begins with its time, 8 bytes. `arrival`: the service takes its own.",
    )

    @field_validator("include")
    @classmethod
    def _no_heatmap(cls, value: tuple[Include, ...]) -> tuple[Include, ...]:
        if Include.heatmap in value:
            raise ValueError("heatmap is for photos: it costs more time than a frame has")
        return value


class StreamEnd(BaseModel):
    """The one text message to the service. The frame that waits is still answered, then comes the summary."""

    type: Literal["end"]


class Smoothed(BaseModel):
    """What the face showed over the last time."""

    emotion: Emotion | str
    confidence: float = Field(description="Smoothed probability of `emotion`.")
    verdict: Verdict
    probabilities: Probabilities


class TrackedFace(Face):
    """A face as `POST /v1/emotions` answers it for this frame alone, and what is known over time."""

    track: int = Field(description="The same number is the same face; none is used twice.")
    smoothed: Smoothed


class FrameAnswer(Sparse):
    """One frame's faces, largest first."""

    type: Literal["frame"] = "frame"
    frame: int = Field(description="Number of the frame among those that were sent, from 0.")
    time_s: float
    dropped: int = Field(description="Frames just before this one that were replaced by a newer one.")
    image: ImageSize
    faces_found: int = FACES_FOUND
    faces: list[TrackedFace]


class FrameProblem(Sparse):
    """Why a frame, or a text message, has no answer. The stream goes on."""

    type: Literal["problem"] = "problem"
    frame: int | None = Field(None, description="Absent where a text message is meant.")
    time_s: float | None = None
    dropped: int = Field(0, description="As in an answer.")
    problem: Problem
    retry_after_s: int | None = Field(None, description="Seconds after which it may be better.")


class TrackSummary(BaseModel):
    """One face of a stream, from when it came to when it left."""

    track: int
    first_seen_s: float
    last_seen_s: float
    frames: int = Field(description="In how many frames it was found.")
    probabilities: Probabilities = Field(description="Mean over these frames.")
    time_share: Probabilities = Field(description="Share of the time that each emotion was the smoothed one.")
    certain: float = Field(description="Share of the time that the smoothed verdict was `certain`.")


class StreamSummary(Sparse):
    """The last message of a stream."""

    type: Literal["summary"] = "summary"
    request_id: str
    model: ModelName
    frames: int = Field(description="Frames that were sent.")
    answered: int
    dropped: int
    failed: int
    tracks: list[TrackSummary]
    tracks_left_out: int = Field(0, description="The first ones of a stream that had more than 1000.")
