"""One recording that is received, waits or is at work in this process."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from service.api.recordings import GroupRecordingQuery, RecordingJob, RecordingQuery
from service.api.recordings import RecordingState as State
from service.api.schemas import Problem
from service.recordings.results import Results
from service.recordings.upload import Upload


@dataclass(frozen=True, slots=True)
class Request:
    """Whose recording it is, and how it is analysed.

    owner: the name of the caller's key, or empty. before_frame: raises a `ServiceError` if the caller may
    have no more frames.
    """

    owner: str
    request_id: str
    query: RecordingQuery | GroupRecordingQuery
    before_frame: Callable[[], Awaitable[None]]


@dataclass(slots=True, eq=False)
class Job:
    """The state of a recording."""

    request: Request
    upload: Upload
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    state: State = State.queued
    problem: Problem | None = None
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    duration_s: float | None = None
    frames: int = 0
    time_s: float = 0.0
    accepted_at: float | None = None
    """When the upload was complete and a video, by `time.monotonic` as the times below."""
    began_at: float | None = None
    reading_since: float | None = None
    """Since when the decoder works on the next frame."""
    ended_at: float | None = None
    error: Exception | None = None
    """Why the work stopped early. The job fails once it is accepted."""
    results: Results | None = None
    accepted: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def settle(self, state: State, problem: Problem | None = None) -> None:
        """Change to a final state, unless there is one already."""
        if not self.state.final:
            self.state, self.problem, self.ended_at = state, problem, time.monotonic()

    def stop(self, state: State, problem: Problem | None = None) -> None:
        """Settle, and end the work."""
        if not self.state.final:
            self.settle(state, problem)
            self.upload.close()
            if self.task is not None:
                self.task.cancel()

    @property
    def decoding_s(self) -> float:
        """For how long the decoder has worked on the next frame, without waiting for the upload."""
        if self.reading_since is None or self.accepted_at is None:
            return 0.0
        return time.monotonic() - max(self.reading_since, self.accepted_at)

    def view(self) -> RecordingJob:
        progress = left_s = None
        if self.state is State.done:
            progress = 1.0
        elif self.duration_s:
            progress = round(min(self.time_s / self.duration_s, 1.0), 4)
        if self.state is State.working and self.began_at is not None and progress:
            elapsed_s = time.monotonic() - self.began_at
            left_s = round(elapsed_s * (1 - progress) / progress, 1)
        return RecordingJob(
            id=self.id,
            state=self.state,
            created_at=self.created_at,
            frames=self.frames,
            time_s=round(self.time_s, 3),
            duration_s=None if self.duration_s is None else round(self.duration_s, 3),
            progress=progress,
            left_s=left_s,
            problem=self.problem,
        )
