"""`WS /v1/stream`: frames in, tracked faces out. Its protocol: docs/reference/stream.md."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple, Protocol

from fastapi import APIRouter, Query, Request, WebSocket
from pydantic import BaseModel
from starlette.websockets import WebSocketDisconnect

from service.api.schemas import ModelName
from service.api.shaping import shape_group, shape_size, shape_track, shape_tracked, to_problem
from service.api.stream import (
    FrameAnswer,
    FrameProblem,
    GroupFrameAnswer,
    GroupStreamSummary,
    StreamQuery,
    StreamSummary,
)
from service.core.deadline import Deadline
from service.core.errors import (
    BodyTooLarge,
    Forbidden,
    Internal,
    InvalidRequest,
    NotAvailableInGroupMode,
    Overloaded,
    ServiceError,
    Unauthorized,
    UpgradeRequired,
)
from service.core.manifest import ClassifierManifest
from service.core.seen import VERDICTS
from service.core.timings import Timings
from service.http.in_flight import InFlight
from service.http.readiness import Readiness
from service.http.request_state import state_of
from service.http.route_table import STREAM
from service.http.routes.frames import Frame, Inbox, split_time
from service.http.routes.sessions import Seat, take_seat
from service.pipeline.groups import GroupPipeline
from service.pipeline.pipeline import Pipeline
from service.sessions.sessions import Sessions
from service.telemetry.audit import AuditTotals
from service.telemetry.logs import log
from service.telemetry.metrics import FRAME_OUTCOMES, Metrics
from service.tracking.record import Record

# A browser closes a connection if the answer names none of the offered subprotocols.
SUBPROTOCOL = "expressnet.v1"

# Close codes of RFC 6455, 7.4.1. IDLE is from its private range and resembles HTTP's 408.
ENDED, GOING_AWAY, POLICY, IDLE = 1000, 1001, 1008, 4408


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """timeout_s: the deadline of one frame."""

    max_streams: int
    idle_s: float
    frame_bytes: int
    timeout_s: float


class Streams:
    """Limits the number of open streams."""

    def __init__(self, limit: int, metrics: Metrics, *, groups_only: bool) -> None:
        self._limit = limit
        self._metrics = metrics
        self._groups_only = groups_only
        self._open = 0

    def check(self, query: StreamQuery) -> None:
        """Raises `Overloaded` if the limit is reached, `NotAvailableInGroupMode` if group mode forbids it."""
        if self._groups_only and (forbidden := query.model_fields_set - query.IN_GROUP_MODE):
            raise NotAvailableInGroupMode(
                f"{min(forbidden)} is not available in group mode: callers do not choose the faces of a group"
            )
        if self._open >= self._limit:
            raise Overloaded(f"the limit of {self._limit} streams is reached")

    @contextmanager
    def place(self, query: StreamQuery) -> Iterator[None]:
        self.check(query)
        self._changed(1)
        try:
            yield
        finally:
            self._changed(-1)

    def _changed(self, change: int) -> None:
        self._open += change
        self._metrics.streams.set(self._open)


def stream_router(
    pipeline: Pipeline | GroupPipeline,
    classifier: ClassifierManifest,
    limits: StreamLimits,
    in_flight: InFlight,
    readiness: Readiness,
    metrics: Metrics,
    sessions: Sessions,
) -> APIRouter:
    router = APIRouter()
    streams = Streams(limits.max_streams, metrics, groups_only=isinstance(pipeline, GroupPipeline))

    @router.websocket(STREAM)
    async def stream(socket: WebSocket, query: Annotated[StreamQuery, Query()]) -> None:
        with streams.place(query):
            seat = await take_seat(sessions, state_of(socket.scope), query.session, query.participant)
            if isinstance(pipeline, GroupPipeline):
                see: See = GroupsSeen(pipeline, query, seat)
            else:
                see = FacesSeen(pipeline, query, classifier, metrics, seat)
            model = ModelName.of(classifier, query.prior or pipeline.prior)
            await Stream(socket, query, see, model, limits, in_flight, readiness, metrics).run()

    @router.get(STREAM, include_in_schema=False)
    async def no_stream(request: Request, query: Annotated[StreamQuery, Query()]) -> None:
        """A page cannot read why its WebSocket was refused. A plain GET gets the same error."""
        streams.check(query)
        await take_seat(sessions, state_of(request.scope), query.session, query.participant)
        raise UpgradeRequired("open a WebSocket at this path; see docs/guides/streams.md")

    return router


class See(Protocol):
    """What a stream sees, frame by frame."""

    async def frame(self, frame: Frame, dropped: int, timings: Timings) -> FrameAnswer | GroupFrameAnswer:
        """Raises what `Pipeline.run` and `Seat.count` raise."""
        ...

    def summary(self, totals: GroupStreamSummary) -> GroupStreamSummary:
        """The totals, with what was seen."""
        ...

    face_count: int
    """Faces of all frames so far."""
    verdicts: Counter[str]


class FacesSeen:
    """Single faces, with their tracks."""

    def __init__(
        self,
        pipeline: Pipeline,
        query: StreamQuery,
        classifier: ClassifierManifest,
        metrics: Metrics,
        seat: Seat | None,
    ) -> None:
        self._pipeline = pipeline
        self._seat = seat
        self._query = query
        self._labels = classifier.labels
        self._metrics = metrics
        self._record = Record(
            query.time_constant_s,
            classifier.verdict.threshold,
            max_unseen_s=query.max_unseen_s,
            one_person=query.participant is not None,
        )
        self.face_count = 0
        self.verdicts: Counter[str] = Counter(dict.fromkeys(VERDICTS, 0))

    async def frame(self, frame: Frame, dropped: int, timings: Timings) -> FrameAnswer:
        seen = await self._pipeline.run(frame.data, self._query.to_pipeline(), frame.deadline, timings)
        followed = self._record.update(seen, frame.time_s)
        if self._seat is not None:
            await self._seat.count(seen.outcome)
        self.face_count += seen.face_count
        self.verdicts.update(seen.verdicts)
        for face, track in enumerate(followed):
            # Each track counts once: otherwise one face before a camera would dominate the metrics.
            if track.new:
                self._metrics.face(seen, face)
        return FrameAnswer(
            frame=frame.number,
            time_s=round(frame.time_s, 6),
            dropped=dropped,
            image=shape_size(seen),
            faces_found=seen.faces_found,
            faces=shape_tracked(seen, followed, self._query),
        )

    def summary(self, totals: GroupStreamSummary) -> StreamSummary:
        tracks = [shape_track(track, self._labels) for track in self._record.totals()]
        return StreamSummary(**dict(totals), tracks=tracks, tracks_omitted=self._record.omitted)


class GroupsSeen:
    """The group before the camera."""

    def __init__(self, pipeline: GroupPipeline, query: StreamQuery, seat: Seat | None) -> None:
        self._seat = seat
        self._stream = pipeline.stream(query.time_constant_s)
        self.face_count = 0
        self.verdicts: Counter[str] = Counter()

    async def frame(self, frame: Frame, dropped: int, timings: Timings) -> GroupFrameAnswer:
        seen = await self._stream.run(frame.data, frame.time_s, frame.deadline, timings)
        if self._seat is not None:
            await self._seat.count(seen.outcome)
        self.face_count += seen.face_count
        return GroupFrameAnswer(
            frame=frame.number,
            time_s=round(frame.time_s, 6),
            dropped=dropped,
            **dict(shape_group(seen)),
        )

    def summary(self, totals: GroupStreamSummary) -> GroupStreamSummary:
        return totals


class Ending(NamedTuple):
    """The close code and the reason that the client gets."""

    code: int
    reason: str


class Stream:
    """One open stream. Its state is discarded at the end."""

    def __init__(
        self,
        socket: WebSocket,
        query: StreamQuery,
        see: See,
        model: ModelName,
        limits: StreamLimits,
        in_flight: InFlight,
        readiness: Readiness,
        metrics: Metrics,
    ) -> None:
        self._socket = socket
        self._query = query
        self._see = see
        self._model = model
        self._limits = limits
        self._in_flight = in_flight
        self._readiness = readiness
        self._metrics = metrics
        self._state = state_of(socket.scope)
        self._inbox = Inbox(self._drop)
        self._started_at = time.monotonic()
        self._last_s = -math.inf
        self._timings = Timings()
        self._frames = {"frames": 0, **dict.fromkeys(FRAME_OUTCOMES, 0)}
        self._dropped = 0

    async def run(self) -> None:
        """Run until the client ends the stream or leaves, or the service ends it."""
        offered: list[str] = self._socket.scope["subprotocols"]
        await self._socket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
        self._state.logged = self._frames
        reading, working = asyncio.create_task(self._read()), asyncio.create_task(self._work())
        try:
            await asyncio.wait({reading, working}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                ending = working.result() or reading.result()
            else:
                ending = reading.result()
                self._inbox.close()
                ending = await working or ending
            await self._send(self._summary())
            await self._socket.close(ending.code, ending.reason)
        except WebSocketDisconnect:
            pass
        finally:
            for task in (reading, working):
                task.cancel()
            # A frame in work must release its places before the stream counts as closed.
            await asyncio.gather(reading, working, return_exceptions=True)
            self._inbox.clear()
            self._state.totals = partial(
                AuditTotals,
                self._frames["answered"],
                self._frames["failed"],
                self._see.face_count,
                self._see.verdicts,
                self._timings.seconds,
            )

    async def _read(self) -> Ending:
        """Read messages until the stream ends. Raises `WebSocketDisconnect` when the client has left."""
        while True:
            try:
                async with asyncio.timeout(self._limits.idle_s):
                    message = await self._socket.receive()
            except TimeoutError:
                return Ending(IDLE, f"nothing was sent for {self._limits.idle_s:g} s")
            if message["type"] == "websocket.disconnect":
                if self._readiness.draining:
                    return Ending(GOING_AWAY, "the service is shutting down")
                raise WebSocketDisconnect(message["code"])
            if message.get("bytes") is not None:
                await self._take(message["bytes"])
            elif _is_end(message["text"]):
                return Ending(ENDED, "")
            else:
                await self._send(self._problem(InvalidRequest('a text message must be {"type": "end"}')))

    async def _take(self, data: bytes) -> None:
        number, time_s = self._frames["frames"], time.monotonic() - self._started_at
        self._frames["frames"] += 1
        try:
            if self._query.clock == "sent":
                time_s, data = split_time(data)
            if time_s < self._last_s:
                raise InvalidRequest("the time of a frame must not be before the time of the last frame")
            if len(data) > self._limits.frame_bytes:
                raise BodyTooLarge(f"a frame must not exceed {self._limits.frame_bytes} bytes")
            self._last_s = time_s
            frame = Frame(number, time_s, data, Deadline.after(self._limits.timeout_s))
            # A waiting frame is dropped first, because its bytes count against the limit.
            self._inbox.clear()
            try:
                self._in_flight.hold(0, len(data))
            except Overloaded:
                self._in_flight.hold(0, -len(data))
                raise
            self._inbox.put(frame)
        except ServiceError as error:
            self._count("failed")
            await self._send(self._problem(error, number))

    def _drop(self, frame: Frame) -> None:
        self._in_flight.hold(0, -len(frame.data))
        self._dropped += 1
        self._count("dropped")

    async def _work(self) -> Ending | None:
        """Answer frames until there are no more, or the key is no longer valid."""
        while (frame := await self._inbox.get()) is not None:
            message: FrameAnswer | GroupFrameAnswer | FrameProblem
            ending = None
            dropped = self._take_dropped()  # taken now: frames dropped meanwhile come after this frame
            try:
                message = await self._answer(frame, dropped)
                self._count("answered")
            except ServiceError as error:
                if isinstance(error, Unauthorized | Forbidden):
                    ending = Ending(POLICY, error.detail)
                elif isinstance(error, Internal):
                    log.error(
                        "internal error", error=type(error).__name__, detail=error.detail, exc_info=error
                    )
                self._count("failed")
                message = self._problem(error, frame, dropped)
            except asyncio.CancelledError:  # the client has left
                self._count("dropped")
                raise
            except Exception as error:
                # An unexpected error of one frame must not end the stream.
                log.exception("frame of a stream failed", frame=frame.number, error=type(error).__name__)
                self._count("failed")
                message = self._problem(Internal(""), frame, dropped)
            finally:
                self._in_flight.hold(0, -len(frame.data))
            await self._send(message)
            if ending:
                return ending
        return None

    async def _answer(self, frame: Frame, dropped: int) -> FrameAnswer | GroupFrameAnswer:
        self._state.check_key()
        if self._state.quota is not None:
            await self._state.quota.spend(1)
        async with frame.deadline.within(lambda: "queue"):
            await self._in_flight.wait()
        self._in_flight.hold(1, 0)
        try:
            return await self._see.frame(frame, dropped, self._timings)
        finally:
            self._in_flight.hold(-1, 0)

    def _count(self, outcome: str) -> None:
        self._frames[outcome] += 1
        self._metrics.stream_frames.labels(outcome).inc()

    def _take_dropped(self) -> int:
        dropped, self._dropped = self._dropped, 0
        return dropped

    def _problem(
        self, error: ServiceError, frame: Frame | int | None = None, dropped: int = 0
    ) -> FrameProblem:
        """frame: only the number, if the frame was refused before its time was known."""
        self._metrics.count_rejection(error)
        return FrameProblem(
            frame=frame.number if isinstance(frame, Frame) else frame,
            time_s=round(frame.time_s, 6) if isinstance(frame, Frame) else None,
            dropped=dropped,
            problem=to_problem(error, self._state.request_id),
            retry_after_s=error.retry_after_s,
        )

    def _summary(self) -> GroupStreamSummary:
        totals = GroupStreamSummary(request_id=self._state.request_id, model=self._model, **self._frames)
        return self._see.summary(totals)

    async def _send(self, message: BaseModel) -> None:
        """Wait while the client does not read. Raises `WebSocketDisconnect` when the client has left."""
        await self._socket.send_text(message.model_dump_json(exclude_none=True))


def _is_end(text: str) -> bool:
    try:
        # The end message is shorter, and deeply nested JSON could exhaust the parser.
        return len(text) < 64 and bool(json.loads(text) == {"type": "end"})
    except ValueError:
        return False
