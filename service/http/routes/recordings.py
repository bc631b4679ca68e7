"""`/v1/recordings`: videos that are analysed in the background."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.responses import StreamingResponse

from service.api.recordings import (
    GroupRecordingQuery,
    GroupRecordingReport,
    RecordingForm,
    RecordingJob,
    RecordingQuery,
    RecordingReport,
    Timeline,
)
from service.core.errors import (
    InsufficientStorage,
    InvalidRequest,
    InvalidVideo,
    NotAvailableInGroupMode,
    NotFound,
    RecordingNotDone,
    RequestTimeout,
    StoreUnavailable,
    UnsupportedMediaType,
    VideoTooLong,
    reason_of,
)
from service.http import examples
from service.http.bodies import MULTIPART, OCTETS, read_video
from service.http.disconnect import ClientDisconnected
from service.http.examples import as_json, example_of, text_examples
from service.http.layers.admission import too_large
from service.http.layers.observation import CLIENT_LEFT
from service.http.parameters import body_of, parameters_of, query_of
from service.http.problems import documented
from service.http.readiness import Readiness
from service.http.request_state import RequestState, state_of
from service.http.route_table import RECORDING, RECORDINGS
from service.recordings.archive import Archive
from service.recordings.chart import Form
from service.recordings.job import Job
from service.recordings.job import Request as JobRequest
from service.recordings.jobs import Jobs, problem_of
from service.recordings.results import Results, as_csv, as_json_lines
from service.recordings.results import as_json as timeline_as_json

EVENT_INTERVAL_S = 0.5
PICTURES: dict[Form, str] = {"png": "image/png", "svg": "image/svg+xml"}

_PROBLEMS = documented(
    InvalidVideo,
    VideoTooLong,
    UnsupportedMediaType,
    InvalidRequest,
    RequestTimeout,
    StoreUnavailable,
    InsufficientStorage,
)
_FOUND = documented(NotFound, StoreUnavailable)
_RESULTS = documented(NotFound, RecordingNotDone, InvalidRequest, StoreUnavailable)
_FACES_ONLY = documented(
    NotFound, RecordingNotDone, InvalidRequest, StoreUnavailable, NotAvailableInGroupMode
)

_LINE = json.dumps(as_json(examples.TIMELINE)["frames"][0])
_EVENT = f"event: state\ndata: {json.dumps(as_json(examples.JOB))}\n\n"
_TIMELINES: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            **example_of(examples.TIMELINE)[200]["content"],
            **text_examples(
                **{
                    "application/jsonl": f"{_LINE}\n",
                    "text/csv": "time_s,track,x,y\n0.0,1,180.85,70.36\n",
                }
            )[200]["content"],
        }
    }
}

Id = Annotated[str, Path(description="The id of the recording.", examples=[examples.JOB.id])]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="A name of yours for this upload. A repeated request with the same key answers the same "
        "recording.",
    ),
]


def recordings_router(
    jobs: Jobs,
    archive: Archive,
    readiness: Readiness,
    *,
    groups_only: bool,
    limit_bytes: int,
    idle_s: float,
) -> APIRouter:
    router = APIRouter(tags=["recordings"])
    model_of_query: type[GroupRecordingQuery] | type[RecordingQuery] = (
        GroupRecordingQuery if groups_only else RecordingQuery
    )

    @router.post(
        RECORDINGS,
        operation_id="create_recording",
        summary="Analyse a video in the background",
        status_code=202,
        response_model=RecordingJob,
        responses=example_of(examples.JOB, status=202) | _PROBLEMS,
        openapi_extra=parameters_of(model_of_query)
        | body_of(
            "The video file, as `application/octet-stream` or any video type, or a form with the file.",
            {OCTETS: None, MULTIPART: RecordingForm},
        ),
    )
    async def create(request: Request, idempotency_key: IdempotencyKey = None) -> Response:
        state = state_of(request.scope)
        query = query_of(request, model_of_query)
        owner = _owner(state)
        fingerprint = f"{request.url.query} {request.headers.get('content-length')}"
        if idempotency_key is not None and (id := await repeated(owner, idempotency_key, fingerprint)):
            return _accepted(request, await jobs.find(owner, id))
        job = jobs.begin(JobRequest(owner, state.request_id, query, _before_frame(state)))
        try:
            await read_video(request, lambda data: _write(job, data, limit_bytes), idle_s)
            found = await jobs.accept(job)
        except ClientDisconnected:
            jobs.discard(job)
            return Response(status_code=CLIENT_LEFT)
        except BaseException:
            jobs.discard(job)
            raise
        if idempotency_key is not None:
            await archive.remember(owner, idempotency_key, job.id, fingerprint)
        return _accepted(request, found)

    async def repeated(owner: str, key: str, fingerprint: str) -> str | None:
        known = await archive.repeated(owner, key)
        if known is None:
            return None
        id, before = known
        if before != fingerprint:
            raise InvalidRequest("Idempotency-Key: it was sent with another recording or other options")
        return id

    @router.get(
        RECORDING,
        operation_id="get_recording",
        summary="The state of a recording",
        responses=example_of(examples.JOB) | _FOUND,
        response_model_exclude_none=True,
    )
    async def recording(request: Request, id: Id) -> RecordingJob:
        return await jobs.find(_owner(state_of(request.scope)), id)

    @router.delete(
        RECORDING,
        operation_id="delete_recording",
        summary="Cancel a recording, or remove its results",
        status_code=204,
        response_class=Response,
        responses=_FOUND,
    )
    async def delete(request: Request, id: Id) -> None:
        await jobs.cancel(_owner(state_of(request.scope)), id)

    @router.get(
        f"{RECORDING}/events",
        operation_id="watch_recording",
        summary="The state of a recording at each change, until its end",
        response_class=EventSourceResponse,
        responses=text_examples(**{"text/event-stream": _EVENT}) | _FOUND,
    )
    async def events(request: Request, id: Id) -> EventSourceResponse:
        owner = _owner(state_of(request.scope))
        first = await jobs.find(owner, id)
        return EventSourceResponse(states(owner, first))

    async def states(owner: str, job: RecordingJob) -> AsyncIterator[ServerSentEvent]:
        sent = ""
        while True:
            text = job.model_dump_json(exclude_none=True)
            if text != sent:
                yield ServerSentEvent(text, event="state")
                sent = text
            if job.state.final or readiness.draining:
                return
            await asyncio.sleep(EVENT_INTERVAL_S)
            try:
                job = await jobs.find(owner, job.id)
            except (NotFound, StoreUnavailable):
                return

    @router.get(
        f"{RECORDING}/report",
        operation_id="get_recording_report",
        summary="Each minute of a recording, and the whole",
        response_model=GroupRecordingReport if groups_only else RecordingReport,
        responses=example_of(examples.GROUP_REPORT if groups_only else examples.REPORT) | _RESULTS,
    )
    async def report(request: Request, id: Id) -> Response:
        found = await jobs.results(_owner(state_of(request.scope)), id)
        return Response(found.report, media_type="application/json")

    if groups_only:
        for name in ("timeline", "plot"):
            router.add_api_route(f"{RECORDING}/{name}", _no_faces, include_in_schema=False)
        return router

    @router.get(
        f"{RECORDING}/timeline",
        operation_id="get_recording_timeline",
        summary="Every frame of a recording with its faces",
        response_model=Timeline,
        responses=_TIMELINES | _FACES_ONLY,
    )
    async def timeline(
        request: Request,
        id: Id,
        format: Annotated[
            Literal["json", "jsonl", "csv"],
            Query(description="`jsonl` has one line of JSON for each frame, `csv` one row for each face."),
        ] = "json",
    ) -> Response:
        found = await jobs.results(_owner(state_of(request.scope)), id)
        media_type, parts = _parts(format, found)
        return StreamingResponse(parts, media_type=media_type)

    @router.get(
        f"{RECORDING}/plot",
        operation_id="get_recording_plot",
        summary="A picture of the timeline",
        response_class=Response,
        responses=text_examples(**{"image/png": "a PNG", "image/svg+xml": "<svg>"}) | _FACES_ONLY,
    )
    async def plot(
        request: Request,
        id: Id,
        format: Annotated[Form, Query(description="`svg` stays sharp at any size.")] = "png",
    ) -> Response:
        found = await jobs.results(_owner(state_of(request.scope)), id)
        return Response(found.pictures[format], media_type=PICTURES[format])

    return router


async def _no_faces() -> None:
    raise NotAvailableInGroupMode("in group mode a recording has a report, and neither timeline nor picture")


async def _write(job: Job, data: bytes, limit_bytes: int) -> None:
    """Raises `BodyTooLarge`, `InsufficientStorage`, and the error of a recording that has failed already."""
    if job.error is not None:
        raise problem_of(job.error)
    if job.upload.size + len(data) > limit_bytes:
        raise too_large(limit_bytes)
    try:
        if job.upload.on_disk:
            await asyncio.to_thread(job.upload.write, data)
        else:
            job.upload.write(data)
    except OSError as error:
        raise InsufficientStorage(f"the recording cannot be kept: {reason_of(error)}") from error


def _owner(state: RequestState) -> str:
    return "" if state.key is None else state.key.name


def _before_frame(state: RequestState) -> Callable[[], Awaitable[None]]:
    async def check() -> None:
        state.check_key()
        if state.quota is not None:
            await state.quota.spend(1)

    return check


def _accepted(request: Request, job: RecordingJob) -> Response:
    place = f"{request.scope['root_path']}{RECORDINGS}/{job.id}"
    body = job.model_dump_json(exclude_none=True)
    return Response(body, 202, {"Location": place}, media_type="application/json")


def _parts(format: str, results: Results) -> tuple[str, Iterator[bytes]]:
    """The media type and the content of a timeline."""
    head = results.head
    assert head is not None  # group mode has no such route
    if format == "csv":
        return "text/csv; charset=utf-8", as_csv(results.timeline, head.labels, head.query)
    if format == "jsonl":
        return "application/jsonl", as_json_lines(results.timeline)
    return "application/json", timeline_as_json(results.timeline, head.model)
