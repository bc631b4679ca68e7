"""The recordings of this process: a bounded number, of which a few are at work at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from service.api.recordings import RecordingJob
from service.api.recordings import RecordingState as State
from service.api.shaping import to_problem
from service.core.arrays import Image
from service.core.deadline import Deadline
from service.core.errors import (
    DeadlineExceeded,
    EngineUnavailable,
    HostBusy,
    Internal,
    InvalidVideo,
    Overloaded,
    RateLimited,
    RecordingNotDone,
    ServiceError,
    StoreUnavailable,
    VideoTooComplex,
    VideoTooLong,
)
from service.core.manifest import ClassifierManifest
from service.pipeline.groups import GroupPipeline
from service.pipeline.pipeline import Pipeline
from service.pipeline.spare_time import SpareTime
from service.pipeline.timeline import in_order
from service.recordings.analysis import Analysis, analysis_of
from service.recordings.archive import Archive, unknown
from service.recordings.job import Job, Request
from service.recordings.results import Results
from service.recordings.upload import Upload
from service.recordings.webhooks import Webhooks
from service.telemetry.audit import Audit, AuditTotals
from service.telemetry.logs import log
from service.telemetry.metrics import Metrics
from service.vision.video import VideoError, check_video, read_frames

AT_WORK = 2
BEAT_S = 0.5
# Between two frames. A decoder that needs longer will hardly end.
DECODE_LIMIT_S = 60.0
# The engine may be away, or the machine busy, for so long.
PATIENCE_S = 60.0
RETRY_S = 0.5
# A video may end before its sound.
MISSING_S, MISSING_SHARE = 2.0, 0.05
CLIENT_LEFT = 499


@dataclass(frozen=True, slots=True)
class RecordingLimits:
    """timeout_s: the deadline of one frame. ttl_s: how long results are kept."""

    recordings: int
    memory_bytes: int
    minutes: float
    pixels: int
    timeout_s: float
    ttl_s: float


class Jobs:
    """Recordings from their upload to their results, which go to the archive."""

    def __init__(
        self,
        pipeline: Pipeline | GroupPipeline,
        card: ClassifierManifest,
        limits: RecordingLimits,
        archive: Archive,
        spare_time: SpareTime,
        metrics: Metrics,
        audit: Audit | None,
        webhooks: Webhooks,
    ) -> None:
        self._pipeline = pipeline
        self._card = card
        self._limits = limits
        self._archive = archive
        self._spare_time = spare_time
        self._metrics = metrics
        self._audit = audit
        self._webhooks = webhooks
        self._turns = asyncio.Semaphore(AT_WORK)
        self._jobs: dict[str, Job] = {}

    def begin(self, request: Request) -> Job:
        """A new recording, which is analysed while it arrives. Raises `Overloaded` or `InvalidRequest`.

        `accept` or `discard` must follow.
        """
        if request.query.webhook is not None:
            self._webhooks.check(request.query.webhook)
        active = sum(job.task is not None and not job.task.done() for job in self._jobs.values())
        if active >= self._limits.recordings:
            raise Overloaded(f"the limit of {self._limits.recordings} recordings is reached")
        job = Job(request, Upload(self._limits.memory_bytes))
        self._jobs[job.id] = job
        job.task = asyncio.create_task(self._run(job))
        self._metrics.recordings.inc()
        # A task that is cancelled before its first step runs no `finally`.
        job.task.add_done_callback(lambda _: self._leave(job))
        return job

    async def accept(self, job: Job) -> RecordingJob:
        """The upload is complete. Raises `InvalidVideo`, `VideoTooLong` or `StoreUnavailable`."""
        job.upload.complete()
        try:
            duration_s = await asyncio.to_thread(check_video, job.upload.open(), self._limits.pixels)
        except VideoError as error:
            raise InvalidVideo(str(error)) from error
        if duration_s is not None and duration_s > 60 * self._limits.minutes:
            raise self._too_long(duration_s)
        job.duration_s = duration_s
        await self._archive.beat(job)
        job.accepted_at = time.monotonic()
        job.accepted.set()
        return job.view()

    def discard(self, job: Job) -> None:
        """The upload failed: forget it."""
        job.stop(State.cancelled)

    async def find(self, owner: str, id: str) -> RecordingJob:
        """Raises `NotFound` or `StoreUnavailable`."""
        job = self._own(owner, id)
        return await self._archive.find(owner, id) if job is None else job.view()

    async def results(self, owner: str, id: str) -> Results:
        """Raises `NotFound`, `RecordingNotDone` or `StoreUnavailable`."""
        job = self._own(owner, id)
        found = await self.find(owner, id)
        results = await self._archive.results(id) if job is None else job.results
        if results is None or not found.state.final:
            raise RecordingNotDone(f"the recording is {found.state}")
        return results

    async def cancel(self, owner: str, id: str) -> None:
        """End the work; remove the results of a recording that has ended.

        Raises `NotFound` or `StoreUnavailable`.
        """
        job = self._own(owner, id)
        if job is not None and not job.state.final:
            job.stop(State.cancelled)
            return
        found = await self.find(owner, id)
        if found.state.final:
            self._jobs.pop(id, None)
            await self._archive.delete(id)
        else:
            await self._archive.cancel(id)

    async def run(self) -> None:
        """Write the states of all recordings, and end those that cannot go on. Runs for ever."""
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                for job in [job for job in self._jobs.values() if job.accepted.is_set()]:
                    await self._beat(job)
            except StoreUnavailable:
                continue  # logged by the store

    async def close(self) -> None:
        """Interrupt what is at work, and wait for its end."""
        jobs = list(self._jobs.values())
        for job in jobs:
            job.stop(State.interrupted)
        await asyncio.gather(*(job.task for job in jobs if job.task is not None), return_exceptions=True)
        await self._webhooks.close()

    def _own(self, owner: str, id: str) -> Job | None:
        """The recording if it is in this process. Raises `NotFound` if it is another caller's."""
        job = self._jobs.get(id)
        if job is None or not job.accepted.is_set():
            return None
        if job.request.owner != owner:
            raise unknown()
        return job

    async def _beat(self, job: Job) -> None:
        if job.state.final:
            await self._keep(job)
        elif await self._archive.beat(job):
            job.stop(State.cancelled)
        elif job.decoding_s > DECODE_LIMIT_S:
            error = VideoTooComplex(f"the next frame takes more than {DECODE_LIMIT_S:g} s to decode")
            job.stop(State.failed, to_problem(error, job.request.request_id))

    async def _keep(self, job: Job) -> None:
        """Write the end of a recording to the archive, and forget it here. Raises `StoreUnavailable`."""
        if time.monotonic() - (job.ended_at or 0) < self._limits.ttl_s:
            await self._archive.keep(job)
        # A thread may still work on a recording that was stopped: it keeps its place.
        if job.task is None or job.task.done() or job.task is asyncio.current_task():
            self._jobs.pop(job.id, None)

    async def _run(self, job: Job) -> None:
        executor = ThreadPoolExecutor(1, "recording")
        analysis = analysis_of(self._pipeline, self._card, job.request.query, self._metrics)
        try:
            async with self._turns:
                job.state, job.began_at = State.working, time.monotonic()
                try:
                    await self._watch(job, analysis, executor)
                except Exception as error:
                    job.error = error
                await job.accepted.wait()
                if job.frames:
                    job.results = await asyncio.to_thread(analysis.results)
        except asyncio.CancelledError:
            job.settle(State.interrupted)  # unless `Job.stop` has said why
        except Exception as error:
            job.error = job.error or error
        finally:
            executor.shutdown(wait=False)
            job.upload.close()
            self._settle(job)
        if job.accepted.is_set():
            with suppress(StoreUnavailable):  # the next beat tries again
                await self._keep(job)
            self._report(job, analysis.totals())

    def _leave(self, job: Job) -> None:
        """Free the place of a recording."""
        self._metrics.recordings.dec()
        job.upload.close()
        if not job.accepted.is_set():
            self._jobs.pop(job.id, None)

    def _settle(self, job: Job) -> None:
        if job.error is None:
            job.settle(State.done)
        elif not job.state.final:
            problem = problem_of(job.error)
            if isinstance(problem, Internal):
                name = type(job.error).__name__
                log.error("recording failed", id=job.id, error=name, exc_info=job.error)
            self._metrics.count_rejection(problem)
            job.settle(State.failed, to_problem(problem, job.request.request_id))

    def _report(self, job: Job, totals: AuditTotals) -> None:
        """Count, log, audit and announce the end of a recording."""
        if job.request.query.webhook is not None and job.state in (State.done, State.failed):
            self._webhooks.send(job.request.query.webhook, job.view())
        self._metrics.recordings_ended.labels(job.state).inc()
        seconds = 0.0 if job.began_at is None else time.monotonic() - job.began_at
        log.info("recording", id=job.id, state=job.state, frames=job.frames, seconds=round(seconds, 1))
        if self._audit is not None:
            status = 200 if job.state is State.done else CLIENT_LEFT
            self._audit.write(
                "/v1/recordings",
                job.request.request_id,
                job.request.owner or None,
                status if job.problem is None else job.problem.status,
                seconds,
                totals,
            )

    async def _watch(self, job: Job, analysis: Analysis, executor: ThreadPoolExecutor) -> None:
        see = partial(self._see, job, analysis)
        async with aclosing(in_order(self._frames(job), see, executor=executor)) as found:
            async for time_s, pixels, seen in found:
                analysis.add(time_s, pixels, seen)
                job.frames += 1
                job.time_s = time_s
                self._metrics.recording_frames.inc()
        await job.accepted.wait()
        if job.duration_s is not None:
            missing_s = job.duration_s - job.time_s - 1 / job.request.query.fps
            if missing_s > max(MISSING_S, MISSING_SHARE * job.duration_s):
                raise InvalidVideo(
                    f"it is cut short: it has frames up to {job.time_s:.1f} s of {job.duration_s:.1f} s"
                )

    async def _see(self, job: Job, analysis: Analysis, pixels: Image) -> Any:
        """One frame. Errors that the frame did not cause are tried again."""
        await self._permitted(job)
        began = time.monotonic()
        while True:
            try:
                async with self._spare_time.turn():
                    return await analysis.see(pixels, Deadline.after(self._limits.timeout_s))
            except (DeadlineExceeded, EngineUnavailable, HostBusy, Overloaded):
                if time.monotonic() - began > PATIENCE_S:
                    raise
            await asyncio.sleep(RETRY_S)

    async def _permitted(self, job: Job) -> None:
        """Wait for the rate of the caller."""
        while True:
            try:
                await job.request.before_frame()
                return
            except RateLimited as error:
                await asyncio.sleep(error.retry_after_s or RETRY_S)

    def _frames(self, job: Job) -> Generator[tuple[float, Image], None, None]:
        """Runs on the thread of the job."""
        frames = read_frames(job.upload.open(), job.request.query.fps, self._limits.pixels)
        try:
            while True:
                job.reading_since = time.monotonic()
                found = next(frames, None)
                job.reading_since = None
                if found is None:
                    return
                if found[0] > 60 * self._limits.minutes:
                    raise self._too_long(found[0])
                yield found
        finally:
            frames.close()

    def _too_long(self, seconds: float) -> VideoTooLong:
        return VideoTooLong(
            f"the video has {seconds / 60:.1f} minutes; at most {self._limits.minutes:g} minutes are accepted"
        )


def problem_of(error: Exception) -> ServiceError:
    if isinstance(error, VideoError):
        return InvalidVideo(str(error))
    return error if isinstance(error, ServiceError) else Internal("")
