"""Liveness, readiness and metrics: `/livez`, `/readyz`, `/metrics`."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from service.http.examples import CLASSIFIER, DETECTOR, example_of
from service.http.readiness import DOWN, UP, Readiness
from service.telemetry.metrics import Metrics


class Liveness(BaseModel):
    """The answer of `GET /livez`."""

    status: Literal["alive"] = Field(description="`alive`.")


class ReadinessAnswer(BaseModel):
    """The answer of `GET /readyz`."""

    status: Literal["ready", "not ready"] = Field(description="Whether requests should be sent here.")
    warmed_up: bool = Field(description="Whether the models are loaded and have run every batch size.")
    draining: bool = Field(description="Whether the service is shutting down.")
    engines: dict[str, str] = Field(
        description="State of each model by name: `up`, `down`, `circuit open` or `circuit half-open`."
    )


def health_router(readiness: Readiness, metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["operations"])
    alive = Liveness(status="alive")
    engines = {CLASSIFIER.name: UP, DETECTOR.name: UP}
    ready = ReadinessAnswer(status="ready", warmed_up=True, draining=False, engines=engines)
    not_ready = ready.model_copy(update={"status": "not ready", "engines": engines | {DETECTOR.name: DOWN}})

    @router.get(
        "/livez",
        operation_id="get_liveness",
        summary="Is the process alive?",
        responses=example_of(alive),
    )
    async def livez() -> Liveness:
        return alive

    @router.get(
        "/readyz",
        operation_id="get_readiness",
        summary="Should requests be sent here?",
        response_model=ReadinessAnswer,
        responses=example_of(ready)
        | {503: {"model": ReadinessAnswer, "description": "Not ready"} | example_of(not_ready)[200]},
    )
    async def readyz() -> JSONResponse:
        return JSONResponse(
            {
                "status": "ready" if readiness.ready else "not ready",
                "warmed_up": readiness.warmed_up,
                "draining": readiness.draining,
                "engines": readiness.engines,
            },
            status_code=200 if readiness.ready else 503,
        )

    @router.get(
        "/metrics",
        operation_id="get_metrics",
        summary="Prometheus metrics",
        response_class=PlainTextResponse,
        responses={200: {"content": {"text/plain": {"example": "expressnet_requests_in_flight 0.0\n"}}}},
    )
    async def prometheus() -> Response:
        # On a thread: with many processes the text takes too long for the event loop.
        text = await asyncio.to_thread(generate_latest, metrics.registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return router
