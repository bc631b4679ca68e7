"""The timeline and the report of a recording."""

from __future__ import annotations

from pydantic import Field

from service.api.schemas import FACES_FOUND, ImageSize, ModelName, Probabilities, Sparse
from service.api.stream import TrackedFace, TrackSummary

MINUTE_S = 60.0


class TimelineFrame(Sparse):
    """One frame of a recording."""

    time_s: float = Field(description="Seconds since the first frame.")
    image: ImageSize = Field(description="Size of the upright frame.")
    faces_found: int = FACES_FOUND
    faces: list[TrackedFace] = Field(description="The faces, largest first.")


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


class Minute(TimeShares):
    """All faces in one minute of a recording."""

    start_s: float = Field(description="Begin of the minute, in seconds since the first frame.")
    end_s: float = Field(description="End of the minute, or of the recording.")


class RecordingReport(Sparse):
    """A recording as a whole."""

    model: ModelName = Field(description="The classifier that answered.")
    duration_s: float = Field(description="Length of the analysed part, in seconds.")
    tracks: list[TrackSummary] = Field(description="The faces, in the order in which they appeared.")
    tracks_omitted: int = Field(
        0, description="Number of faces that are not in `tracks`, which holds the last 1000."
    )
    minutes: list[Minute] = Field(description="Every minute, in order.")
    group: TimeShares = Field(description="All faces over the whole recording.")
