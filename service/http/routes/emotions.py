"""`POST /v1/emotions` and `/v1/emotions/batch`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from service.api.schemas import (
    MAX_BATCH_IMAGES,
    BatchAnswer,
    BatchForm,
    EmotionQuery,
    EmotionsAnswer,
    GroupAnswer,
    GroupBatchAnswer,
    GroupQuery,
    ImageForm,
    ImageUpload,
    Include,
    ModelName,
    Problem,
)
from service.core.deadline import Deadline
from service.core.errors import (
    BodyTooLarge,
    EngineUnavailable,
    HostBusy,
    ImageTooComplex,
    ImageTooLarge,
    Internal,
    InvalidImage,
    InvalidRequest,
    ServiceError,
    UnsupportedMediaType,
)
from service.core.manifest import Manifest
from service.core.timings import Timings
from service.http import examples
from service.http.answering import Content, answering
from service.http.bodies import JSON, MULTIPART, OCTETS, read_image, read_images
from service.http.disconnect import LEFT, ClientDisconnected, race_disconnect
from service.http.examples import answered
from service.http.layers.observation import CLIENT_LEFT
from service.http.layers.quotas import spend
from service.http.problems import documented, to_problem
from service.pipeline.groups import GroupPipeline
from service.pipeline.pipeline import HEATMAP_FACES, Pipeline
from service.settings import Settings
from service.telemetry.audit import Answered
from service.telemetry.logs import log
from service.telemetry.metrics import Metrics
from service.vision.decode import CONTENT_TYPES

_DEFAULT = EmotionQuery()

# Those of the layers are in service/http/document.py.
_PROBLEMS = documented(
    InvalidImage,
    HostBusy,
    ImageTooComplex,
    ImageTooLarge,
    UnsupportedMediaType,
    InvalidRequest,
    EngineUnavailable,
)
# Those of single images are in their items.
_BATCH_PROBLEMS = documented(UnsupportedMediaType, InvalidRequest)


def _body(description: str, content: dict[str, type[BaseModel] | None]) -> dict[str, Any]:
    """The body of a route by content type; None: the bytes of an image."""
    schemas = {
        kind: {"type": "string", "format": "binary"}
        if form is None
        else {"$ref": f"#/components/schemas/{form.__name__}"}
        for kind, form in content.items()
    }
    body = {
        "description": description,
        "required": True,
        "content": {kind: {"schema": schema} for kind, schema in schemas.items()},
    }
    return {"requestBody": body}


async def _query_of_faces(query: Annotated[EmotionQuery, Query()]) -> EmotionQuery:
    return query


async def _query_of_groups(_: Annotated[GroupQuery, Query()]) -> EmotionQuery:
    return _DEFAULT


class _Route(APIRoute):
    """Most requests have no parameters: their query is the default one, and not solved each time anew."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        solve = super().get_route_handler()

        async def handle(request: Request) -> Response:
            if request.scope["query_string"]:
                return await solve(request)
            answer: Response = await self.endpoint(request, _DEFAULT)
            return answer

        return handle


def emotions_router(
    pipeline: Pipeline | GroupPipeline, classifier: Manifest, settings: Settings, metrics: Metrics
) -> APIRouter:
    router = APIRouter(tags=["emotions"], route_class=_Route)
    model = ModelName(name=classifier.name, version=classifier.version)
    answer_image = answering(pipeline, metrics)
    alone = not isinstance(pipeline, GroupPipeline)
    what = "The emotions of every face" if alone else "The mean emotions of all faces"
    asked = Depends(_query_of_faces if alone else _query_of_groups)

    @router.post(
        "/v1/emotions",
        operation_id="classify_image",
        summary=f"{what} in one image",
        response_model=EmotionsAnswer if alone else GroupAnswer,
        responses=answered(examples.IMAGE if alone else examples.GROUP) | _PROBLEMS,
        openapi_extra=_body(
            "The image file itself, a form with it, or base64 in JSON. Instead of application/octet-stream "
            f"the type of the file may be sent: {', '.join(sorted(CONTENT_TYPES))}.",
            {OCTETS: None, MULTIPART: ImageForm, JSON: ImageUpload},
        ),
    )
    async def emotions(request: Request, query: EmotionQuery = asked) -> Response:
        started = time.perf_counter()
        deadline: Deadline = request.state.deadline
        timings = Timings()
        try:
            async with deadline.within(lambda: "receive"):
                data = await read_image(request)
                await spend(request.scope, _cost_images(query))
            left = request.scope["state"].get(LEFT)
            found = await race_disconnect(left, answer_image(data, query, deadline, timings))
        except ClientDisconnected:
            return Response(status_code=CLIENT_LEFT)
        request.state.answered = Answered.of([found.seen], timings.seconds)
        # Validated: an answer of the other kind would not pass.
        kind = EmotionsAnswer if alone else GroupAnswer
        answer = kind.model_validate(
            {"request_id": request.state.request_id, "model": model, **dict(found.model)}
        )
        return _json(answer, timings, started)

    @router.post(
        "/v1/emotions/batch",
        operation_id="classify_batch",
        summary=f"{what} in up to {MAX_BATCH_IMAGES} images",
        response_model=BatchAnswer if alone else GroupBatchAnswer,
        responses=answered(examples.BATCH if alone else examples.GROUP_BATCH) | _BATCH_PROBLEMS,
        openapi_extra=_body("The image files.", {MULTIPART: BatchForm}),
    )
    async def batch(request: Request, query: EmotionQuery = asked) -> Response:
        started = time.perf_counter()
        deadline: Deadline = request.state.deadline
        request_id: str = request.state.request_id
        timings = Timings()
        # A batch must not crowd out everybody else: it has as many images at work as there are workers.
        turns = asyncio.Semaphore(settings.worker_threads)

        async def item(index: int, data: bytes) -> Content | Problem:
            try:
                if len(data) > settings.body_limit_bytes:
                    raise BodyTooLarge(f"an image must not exceed {settings.body_limit_bytes} bytes")
                async with deadline.within(lambda: "queue"):
                    await turns.acquire()
                try:
                    return await answer_image(data, query, deadline, timings)
                finally:
                    turns.release()
            except ServiceError as error:
                metrics.count_rejection(error)
                return to_problem(error, request_id)
            except Exception as error:
                # One image must never fail the others, whatever it found.
                log.exception("image of a batch failed", index=index, error=type(error).__name__)
                return to_problem(Internal(""), request_id)

        async def all_items(images: list[bytes]) -> list[Content | Problem]:
            return await asyncio.gather(*(item(index, data) for index, data in enumerate(images)))

        try:
            async with deadline.within(lambda: "receive"):
                images = await read_images(request, MAX_BATCH_IMAGES)
                await spend(request.scope, len(images) * _cost_images(query))
            left = request.scope["state"].get(LEFT)
            results = await race_disconnect(left, all_items(images))
        except ClientDisconnected:
            return Response(status_code=CLIENT_LEFT)
        seen = [None if isinstance(result, Problem) else result.seen for result in results]
        request.state.answered = Answered.of(seen, timings.seconds)
        items = [
            {"index": index, "problem": result}
            if isinstance(result, Problem)
            else {"index": index, "result": result.model}
            for index, result in enumerate(results)
        ]
        kind = BatchAnswer if alone else GroupBatchAnswer
        answer = kind.model_validate({"request_id": request_id, "model": model, "results": items})
        return _json(answer, timings, started)

    return router


def _cost_images(query: EmotionQuery) -> int:
    """What one image counts for its caller's rate: a heatmap takes longer than an image without one."""
    return 1 + HEATMAP_FACES if query.includes(Include.heatmap) else 1


def _json(answer: BaseModel, timings: Timings, started: float) -> Response:
    spent = {**timings.seconds, "total": time.perf_counter() - started}
    return Response(
        answer.model_dump_json(exclude_none=True),
        media_type="application/json",
        headers={"Server-Timing": ", ".join(f"{name};dur={1e3 * s:.1f}" for name, s in spent.items())},
    )
