"""The messages of a stream: docs/reference/stream.md has an example of each."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from service.api.schemas import (
    FACES_FOUND,
    INPUT_HIDDEN,
    DetectionQuery,
    Emotion,
    Face,
    Group,
    ImageSize,
    Include,
    ModelName,
    Participant,
    Probabilities,
    Problem,
    Sparse,
)
from service.core.query import Query
from service.core.seen import Verdict
from service.tracking.smoothing import TIME_CONSTANT_S


def _without_heatmap(schema: dict[str, Any]) -> None:
    include = schema["properties"]["include"]
    include["description"] += " `heatmap` is not available in a stream."
    include["items"]["not"] = {"pattern": Include.heatmap}


class StreamQuery(DetectionQuery):
    """The query of `WS /v1/stream`. Group mode takes the parameters of `IN_GROUP_MODE` only."""

    IN_GROUP_MODE: ClassVar = frozenset({"time_constant_s", "clock", "session", "participant"})

    model_config = ConfigDict(json_schema_extra=_without_heatmap)

    time_constant_s: Annotated[float, Field(ge=0, le=60)] = Field(
        TIME_CONSTANT_S,
        description="Time after which `smoothed` shows 63 % of a change. 0 turns smoothing off.",
    )
    clock: Literal["arrival", "sent"] = Field(
        "arrival",
        description="Source of `time_s`. `sent`: each frame begins with its time of 8 bytes. "
        "`arrival`: the time of arrival.",
    )

    max_unseen_s: Annotated[float, Field(gt=0, le=3600)] | None = Field(
        None,
        description="How long a face that is not seen keeps its number. The default follows the frames: five "
        "times the usual time between two frames, and at least 2 s.",
    )
    session: str | None = Field(
        None, description="Id of a session. The frames count there for `participant`, which is needed."
    )
    participant: Participant | None = Field(
        None,
        description="Your name for the one person of this stream: letters, digits and `._@-`, at most 64. "
        "The largest face of each frame is this person, and has the number 1 after any absence.",
    )

    def to_pipeline(self) -> Query:
        """Cameras know which way is up, and a frame without a face must not take longer than others."""
        query = replace(super().to_pipeline(), turned=False)
        return query if self.participant is None else replace(query, max_faces=1)

    @model_validator(mode="after")
    def _one_person(self) -> Self:
        if self.participant is None:
            if self.session is not None:
                raise ValueError("session needs participant")
        else:
            for name in ("max_faces", "max_unseen_s"):
                if name in self.model_fields_set:
                    raise ValueError(f"the stream of a participant has one person and no {name}")
        return self

    @field_validator("include")
    @classmethod
    def _no_heatmap(cls, value: tuple[Include, ...]) -> tuple[Include, ...]:
        if Include.heatmap in value:
            raise ValueError("heatmap is for photos: it costs more time than a frame has")
        return value


class StreamEnd(BaseModel):
    """The only text message to the service. The service answers the waiting frame, then sends the summary."""

    type: Literal["end"] = Field(description="Kind of the message.")


class Smoothed(BaseModel):
    """The face over time."""

    emotion: Emotion | str = Field(description="Emotion with the highest smoothed probability.")
    confidence: float = Field(description="Smoothed probability of `emotion`.")
    verdict: Verdict = Field(
        description="`certain` if `confidence` reaches the threshold of the model and, after the same "
        "smoothing, more than half of the frames are `certain`."
    )
    probabilities: Probabilities


class TrackedFace(Face):
    """A face of one frame, as in the answer of `POST /v1/emotions`, and the same face over time."""

    track: int = Field(description="Number of the face in this stream, from 1. It is never used again.")
    smoothed: Smoothed = Field(description="The face over time.")


_KIND = "Kind of the message."
_DROPPED = "Number of frames just before this one that a newer frame replaced."


class _Frame(Sparse):
    type: Literal["frame"] = Field("frame", description=_KIND)
    frame: int = Field(description="Number of the frame among all frames sent, from 0.")
    time_s: float = Field(description="Time of the frame, in seconds.")
    dropped: int = Field(description=_DROPPED)
    image: ImageSize = Field(description="Size of the frame.")


class FrameAnswer(_Frame):
    """The answer to one frame."""

    faces_found: int = FACES_FOUND
    faces: list[TrackedFace] = Field(description="The faces, largest first.")


class GroupFrameAnswer(_Frame):
    """The answer to one frame in group mode."""

    model_config = INPUT_HIDDEN

    group: Group = Field(description="All faces before the camera together.")


class FrameProblem(Sparse):
    """Why a frame or a text message has no answer. The stream continues."""

    type: Literal["problem"] = Field("problem", description=_KIND)
    frame: int | None = Field(None, description="Number of the frame. Absent for a text message.")
    time_s: float | None = Field(
        None, description="Time of the frame, in seconds. Absent if the frame was refused before it had one."
    )
    dropped: int = Field(0, description=_DROPPED)
    problem: Problem = Field(description="What is wrong, with the request id of the stream.")
    retry_after_s: int | None = Field(
        None,
        description="Wait this many seconds before the next frame. Absent if waiting does not help.",
    )


class TrackSummary(BaseModel):
    """One face of a stream."""

    track: int = Field(description="Number of the face.")
    first_seen_s: float = Field(description="Time of its first frame.")
    last_seen_s: float = Field(description="Time of its last frame.")
    frames: int = Field(description="Number of frames with the face.")
    probabilities: Probabilities = Field(description="Mean of the probabilities in these frames.")
    time_share: Probabilities = Field(
        description="Share of the time by smoothed emotion. The time between two frames counts for the first."
    )
    certain: float = Field(description="Share of the time with the smoothed verdict `certain`.")


class GroupStreamSummary(Sparse):
    """The last message of a stream in group mode."""

    type: Literal["summary"] = Field("summary", description=_KIND)
    request_id: str = Field(description="The id of the stream, as in `X-Request-ID`.")
    model: ModelName = Field(description="The classifier that answered.")
    frames: int = Field(description="Number of frames sent.")
    answered: int = Field(description="Number of frames with an answer.")
    dropped: int = Field(description="Number of frames that a newer frame replaced.")
    failed: int = Field(description="Number of frames with a problem.")


class StreamSummary(GroupStreamSummary):
    """The last message of a stream."""

    tracks: list[TrackSummary] = Field(description="The faces, in the order in which they appeared.")
    tracks_omitted: int = Field(
        0, description="Number of faces that are not in `tracks`, which holds the last 1000."
    )
