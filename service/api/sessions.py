"""Requests and answers of `/v1/sessions`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from service.api.schemas import Probabilities, Sparse
from service.core.query import MAX_FACES
from service.settings import MIN_GROUP_FACES

DAY_S = 86_400


class SessionOptions(BaseModel):
    """The request of `POST /v1/sessions`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(max_length=200)] = Field(
        "", description="Your name for the session."
    )
    bin_minutes: Annotated[int, Field(ge=1, le=1440)] = Field(
        1, description="Minutes of each bin of the report."
    )
    min_participants: Annotated[int, Field(ge=MIN_GROUP_FACES, le=MAX_FACES)] | None = Field(
        None,
        description="The report has no single participant, only groups of at least this many. In group mode "
        "the default, and the min, is `EXPRESSNET_AGGREGATE_ONLY`.",
    )
    ttl_s: Annotated[int, Field(ge=60, le=30 * DAY_S)] = Field(
        DAY_S, description="Seconds from now until the session and its counts are deleted."
    )


class SessionInfo(Sparse):
    """The answer of `POST /v1/sessions`."""

    id: str = Field(description="The id, for `session=`.")
    name: str = Field(description="The name from the request.")
    started_at: datetime = Field(description="When the session was made. The bins begin here.")
    expires_at: datetime = Field(description="When the session is deleted.")
    bin_minutes: int = Field(description="Minutes of each bin.")
    min_participants: int | None = Field(
        None, description="Min number of participants of a group. Absent if the report has participants."
    )


class SessionShares(Sparse):
    """What was seen. For several participants it is the mean: each participant has the same weight."""

    participants: int | None = Field(
        None,
        description="Number of participants; with `min_participants`, of those with a readable image. Absent "
        "for a single participant.",
    )
    images: int | None = Field(
        None, description="Number of photos and frames. Absent with `min_participants`."
    )
    absent: float = Field(description="Share of the images without a face.")
    unreadable: float = Field(
        description="Share of the images whose face is too poor to read: its `reasons` name more than "
        "`low_confidence`."
    )
    image_share: Probabilities | None = Field(
        None,
        description="Share of the readable images by most probable emotion. Absent without a readable image.",
    )
    certain: float | None = Field(
        None, description="Share of the readable images with the verdict `certain`. Absent as `image_share`."
    )


class ParticipantShares(SessionShares):
    """What was seen of one participant."""

    participant: str = Field(description="Name of the participant.")


class SessionBin(Sparse):
    """One bin of a session."""

    start_s: float = Field(description="Begin of the bin, in seconds since the start of the session.")
    end_s: float = Field(description="End of the bin.")
    group: SessionShares | None = Field(
        None,
        description="All participants. Absent with `min_participants` if fewer than twice as many less one "
        "have a readable image.",
    )
    participants: list[ParticipantShares] | None = Field(
        None, description="Each participant. Absent with `min_participants`."
    )


class SessionReport(SessionInfo):
    """The answer of `GET /v1/sessions/{id}/report`."""

    group: SessionShares | None = Field(
        None,
        description="All participants over all bins. With `min_participants`, the mean of the bins that "
        "have a `group`; absent without them.",
    )
    participants: list[ParticipantShares] | None = Field(
        None, description="Each participant over all bins. Absent with `min_participants`."
    )
    bins: list[SessionBin] = Field(
        description="The bins with images, in order. With `min_participants`, those that are over for 5 s."
    )
