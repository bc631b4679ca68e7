"""`POST /v1/emotions` and `/v1/emotions/batch`."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from service.api.schemas import (
    MAX_BATCH_IMAGES,
    BatchAnswer,
    BatchForm,
    EmotionQuery,
    EmotionsAnswer,
    GroupAnswer,
    GroupBatchAnswer,
    GroupPhotoQuery,
    GroupQuery,
    ImageForm,
    ImageUpload,
    Include,
    ModelName,
    PhotoQuery,
)
from service.api.shaping import to_problem
from service.core.errors import (
    SERVICE_FAILURES,
    BodyTooLarge,
    EngineUnavailable,
    HostBusy,
    ImageTooComplex,
    ImageTooLarge,
    Internal,
    InvalidImage,
    InvalidRequest,
    NotFound,
    ServiceError,
    StoreUnavailable,
    UnsupportedMediaType,
)
from service.core.manifest import Manifest
from service.core.timings import Timings
from service.http import examples
from service.http.answering import Content, answer_with
from service.http.bodies import JSON, MULTIPART, OCTETS, read_image, read_images
from service.http.disconnect import ClientDisconnected, race_disconnect
from service.http.examples import example_of
from service.http.layers.observation import CLIENT_LEFT
from service.http.parameters import body_of, parameters_of, query_of
from service.http.problems import documented
from service.http.request_state import RequestState, state_of
from service.http.routes.sessions import take_seat
from service.pipeline.groups import GroupPipeline
from service.pipeline.pipeline import HEATMAP_FACES, Pipeline
from service.sessions.sessions import Sessions
from service.telemetry.audit import AuditTotals
from service.telemetry.logs import log
from service.telemetry.metrics import Metrics
from service.vision.formats import CONTENT_TYPES

_DEFAULT = EmotionQuery()

# Errors of the layers are in service/http/document.py.
_PROBLEMS = documented(
    InvalidImage,
    HostBusy,
    ImageTooComplex,
    ImageTooLarge,
    UnsupportedMediaType,
    InvalidRequest,
    EngineUnavailable,
    NotFound,
    StoreUnavailable,
)
# Errors of single images are in their batch items.
_BATCH_PROBLEMS = documented(UnsupportedMediaType, InvalidRequest, EngineUnavailable, HostBusy)


def _to_answer(query: BaseModel) -> EmotionQuery:
    """The part of the parameters that is about the answer."""
    return query if isinstance(query, EmotionQuery) else _DEFAULT


def emotions_router(
    pipeline: Pipeline | GroupPipeline,
    classifier: Manifest,
    metrics: Metrics,
    sessions: Sessions,
    *,
    worker_threads: int,
    image_limit_bytes: int,
) -> APIRouter:
    router = APIRouter(tags=["emotions"])

    def model(query: EmotionQuery) -> ModelName:
        return ModelName.of(classifier, query.prior or pipeline.prior)

    answer_image = answer_with(pipeline, metrics)
    groups_only = isinstance(pipeline, GroupPipeline)
    what = "The mean emotions of all faces" if groups_only else "The emotions of every face"
    photo_query = GroupPhotoQuery if groups_only else PhotoQuery
    batch_query = GroupQuery if groups_only else EmotionQuery

    @router.post(
        "/v1/emotions",
        operation_id="classify_image",
        summary=f"{what} in one image",
        response_model=GroupAnswer if groups_only else EmotionsAnswer,
        responses=example_of(examples.GROUP if groups_only else examples.IMAGE) | _PROBLEMS,
        openapi_extra=parameters_of(photo_query)
        | body_of(
            "The image file itself, a form with the file, or base64 in JSON. The file itself may have any of "
            f"these types: {', '.join(sorted(CONTENT_TYPES))}.",
            {OCTETS: None, MULTIPART: ImageForm, JSON: ImageUpload},
        ),
    )
    async def emotions(request: Request) -> Response:
        started = time.perf_counter()
        asked = query_of(request, photo_query)
        query = _to_answer(asked)
        state = state_of(request.scope)
        deadline = state.deadline
        timings = Timings()
        seat = await take_seat(sessions, state, asked.session, asked.participant)
        try:
            async with deadline.within(lambda: "receive"):
                data = await read_image(request)
                await _spend_more(state, _cost_images(query))
            found = await race_disconnect(state.disconnected, answer_image(data, query, deadline, timings))
        except ClientDisconnected:
            return Response(status_code=CLIENT_LEFT)
        if seat is not None:
            await seat.count(found.seen.outcome)
        state.totals = partial(AuditTotals.of, [found.seen], timings.seconds)
        # Validated: in group mode an answer with single faces must not pass.
        kind = GroupAnswer if groups_only else EmotionsAnswer
        answer = kind.model_validate(
            {"request_id": state.request_id, "model": model(query), **dict(found.model)}
        )
        return _json(answer, timings, started)

    @router.post(
        "/v1/emotions/batch",
        operation_id="classify_batch",
        summary=f"{what} in up to {MAX_BATCH_IMAGES} images",
        response_model=GroupBatchAnswer if groups_only else BatchAnswer,
        responses=example_of(examples.GROUP_BATCH if groups_only else examples.BATCH) | _BATCH_PROBLEMS,
        openapi_extra=parameters_of(batch_query) | body_of("The image files.", {MULTIPART: BatchForm}),
    )
    async def batch(request: Request) -> Response:
        started = time.perf_counter()
        query = _to_answer(query_of(request, batch_query))
        state = state_of(request.scope)
        deadline = state.deadline
        timings = Timings()
        # A batch must not crowd out other requests: it has at most one image per worker at work.
        turns = asyncio.Semaphore(worker_threads)

        async def item(index: int, data: bytes) -> Content | ServiceError:
            try:
                if len(data) > image_limit_bytes:
                    raise BodyTooLarge(f"an image must not exceed {image_limit_bytes} bytes")
                async with deadline.within(lambda: "queue"):
                    await turns.acquire()
                try:
                    return await answer_image(data, query, deadline, timings)
                finally:
                    turns.release()
            except ServiceError as error:
                if isinstance(error, Internal):
                    name = type(error).__name__
                    log.error("image of a batch failed", index=index, error=name, exc_info=error)
                return error
            except Exception as error:
                # An unexpected error of one image must not fail the others.
                log.exception("image of a batch failed", index=index, error=type(error).__name__)
                return Internal("")

        async def all_items(images: list[bytes]) -> list[Content | ServiceError]:
            return await asyncio.gather(*(item(index, data) for index, data in enumerate(images)))

        try:
            async with deadline.within(lambda: "receive"):
                images = await read_images(request, MAX_BATCH_IMAGES)
                await _spend_more(state, len(images) * _cost_images(query))
            results = await race_disconnect(state.disconnected, all_items(images))
        except ClientDisconnected:
            return Response(status_code=CLIENT_LEFT)
        seen = [None if isinstance(result, ServiceError) else result.seen for result in results]
        state.totals = partial(AuditTotals.of, seen, timings.seconds)
        errors = [result for result in results if isinstance(result, ServiceError)]
        worst = None
        if len(errors) == len(results) and all(isinstance(error, SERVICE_FAILURES) for error in errors):
            # An internal error is reported before a limit that was reached.
            worst = max(errors, key=lambda error: (isinstance(error, Internal), error.status))
            errors.remove(worst)  # counted by the layer `Refusals`
        for error in errors:
            metrics.count_rejection(error)
        if worst is not None:
            raise worst
        items = [_item(index, result, state.request_id) for index, result in enumerate(results)]
        kind = GroupBatchAnswer if groups_only else BatchAnswer
        answer = kind.model_validate(
            {"request_id": state.request_id, "model": model(query), "results": items}
        )
        return _json(answer, timings, started)

    return router


def _item(index: int, result: Content | ServiceError, request_id: str) -> dict[str, Any]:
    if not isinstance(result, ServiceError):
        return {"index": index, "result": result.model}
    problem = to_problem(result, request_id)
    return {"index": index, "problem": problem, "retry_after_s": result.retry_after_s}


async def _spend_more(state: RequestState, images: int) -> None:
    """Spend the rest of `images`: the layer `Quotas` has spent one. Raises like `Quota.spend`."""
    if state.quota is not None and images > 1:
        await state.quota.spend(images - 1, before=1)


def _cost_images(query: EmotionQuery) -> int:
    """Images that one image costs of the caller's rate: heatmaps take more time."""
    return 1 + HEATMAP_FACES if query.includes(Include.heatmap) else 1


def _json(answer: BaseModel, timings: Timings, started: float) -> Response:
    spent = {**timings.seconds, "total": time.perf_counter() - started}
    return Response(
        answer.model_dump_json(exclude_none=True),
        media_type="application/json",
        headers={"Server-Timing": ", ".join(f"{name};dur={1e3 * s:.1f}" for name, s in spent.items())},
    )
