"""`POST /v1/emotions` and `/v1/emotions/batch`."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from service.deadline import Deadline
from service.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    Draining,
    EngineUnavailable,
    ImageTooLarge,
    Internal,
    InvalidImage,
    InvalidRequest,
    Overloaded,
    ServiceError,
    UnsupportedMediaType,
)
from service.http.bodies import JSON, MULTIPART, read_image, read_images
from service.http.disconnect import ClientDisconnected, race_disconnect
from service.http.observation import CLIENT_LEFT
from service.http.problems import documented, to_problem
from service.logs import log
from service.manifest import Manifest
from service.metrics import Metrics
from service.pipeline import Pipeline, Timings
from service.schemas import (
    BatchAnswer,
    BatchItem,
    EmotionQuery,
    EmotionsAnswer,
    ImageUpload,
    ModelName,
)
from service.settings import Settings
from service.vision.decode import CONTENT_TYPES

MAX_BATCH_IMAGES = 32

_BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_PROBLEMS = documented(
    InvalidImage,
    ImageTooLarge,
    BodyTooLarge,
    UnsupportedMediaType,
    InvalidRequest,
    Overloaded,
    Internal,
    EngineUnavailable,
    Draining,
    DeadlineExceeded,
)


def _form(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"schema": {"type": "object", "required": [field], "properties": {field: schema}}}


def emotions_router(
    pipeline: Pipeline, classifier: Manifest, settings: Settings, metrics: Metrics
) -> APIRouter:
    router = APIRouter(tags=["emotions"])
    model = ModelName(name=classifier.name, version=classifier.version)

    @router.post(
        "/v1/emotions",
        summary="The emotions of every face in one image",
        response_model=EmotionsAnswer,
        responses=_PROBLEMS,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    **dict.fromkeys(sorted(CONTENT_TYPES), _BINARY),
                    MULTIPART: _form("image", _BINARY["schema"]),
                    JSON: {"schema": ImageUpload.model_json_schema()},
                },
            }
        },
    )
    async def emotions(request: Request, query: Annotated[EmotionQuery, Query()]) -> Response:
        started = time.perf_counter()
        deadline: Deadline = request.state.deadline
        timings = Timings()
        try:
            async with deadline.within("receive"):
                data = await read_image(request)
            found = await race_disconnect(request.receive, pipeline.run(data, query, deadline, timings))
        except ClientDisconnected:
            return Response(status_code=CLIENT_LEFT)
        answer = EmotionsAnswer(
            request_id=request.state.request_id, model=model, image=found.image, faces=found.faces
        )
        return _json(answer, timings, started)

    @router.post(
        "/v1/emotions/batch",
        summary=f"The emotions of every face in up to {MAX_BATCH_IMAGES} images",
        response_model=BatchAnswer,
        responses=_PROBLEMS,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {MULTIPART: _form("images", {"type": "array", "items": _BINARY["schema"]})},
            }
        },
    )
    async def batch(request: Request, query: Annotated[EmotionQuery, Query()]) -> Response:
        started = time.perf_counter()
        deadline: Deadline = request.state.deadline
        request_id: str = request.state.request_id
        timings = Timings()
        # A batch must not crowd out everybody else: it has as many images at work as there are workers.
        turns = asyncio.Semaphore(settings.worker_threads)

        async def item(index: int, data: bytes) -> BatchItem:
            try:
                if len(data) > settings.body_limit_bytes:
                    raise BodyTooLarge(f"an image must not exceed {settings.body_limit_bytes} bytes")
                async with deadline.within("queue"):
                    await turns.acquire()
                try:
                    return BatchItem(index=index, result=await pipeline.run(data, query, deadline, timings))
                finally:
                    turns.release()
            except ServiceError as error:
                metrics.count_rejection(error)
                return BatchItem(index=index, problem=to_problem(error, request_id))
            except Exception as error:
                # One image must never fail the others, whatever it found.
                log.exception("image of a batch failed", index=index, error=type(error).__name__)
                return BatchItem(index=index, problem=to_problem(Internal(""), request_id))

        async def all_items(images: list[bytes]) -> list[BatchItem]:
            return await asyncio.gather(*(item(index, data) for index, data in enumerate(images)))

        try:
            async with deadline.within("receive"):
                images = await read_images(request, MAX_BATCH_IMAGES)
            results = await race_disconnect(request.receive, all_items(images))
        except ClientDisconnected:
            return Response(status_code=CLIENT_LEFT)
        return _json(BatchAnswer(request_id=request_id, model=model, results=results), timings, started)

    return router


def _json(answer: EmotionsAnswer | BatchAnswer, timings: Timings, started: float) -> Response:
    spent = {**timings.seconds, "total": time.perf_counter() - started}
    return Response(
        answer.model_dump_json(exclude_none=True),
        media_type="application/json",
        headers={"Server-Timing": ", ".join(f"{name};dur={1e3 * s:.1f}" for name, s in spent.items())},
    )
