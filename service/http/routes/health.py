"""Is the process alive, and should requests be sent to it: `/livez`, `/readyz`, and the probe behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from service.http.examples import answered
from service.inference.engine import Engine
from service.telemetry.logs import log
from service.telemetry.metrics import Metrics

PROBE_INTERVAL_S = 0.5
PROBE_TIMEOUT_S = 1.0
UP, DOWN = "up", "down"


@dataclass(slots=True)
class Readiness:
    """A full queue never makes the service unready: that is what `overloaded` is for."""

    warmed_up: bool = False
    draining: bool = False
    engines: dict[str, str] = field(default_factory=dict)
    """By name: `up`, `down`, or the state of a circuit breaker that is not closed."""

    @property
    def ready(self) -> bool:
        return self.warmed_up and not self.draining and all(state == UP for state in self.engines.values())

    def drain(self) -> None:
        self.draining = True


class Liveness(BaseModel):
    status: Literal["alive"]


class ReadinessAnswer(BaseModel):
    status: Literal["ready", "not ready"]
    warmed_up: bool = Field(description="Whether the models were loaded and have run every batch size.")
    draining: bool = Field(description="Whether the service is shutting down.")
    engines: dict[str, str] = Field(
        description="For each model by name: `up`, `down`, or the state of a circuit that is not closed."
    )


async def probe(engines: Mapping[str, Engine], readiness: Readiness, metrics: Metrics) -> None:
    """Ask every engine whether it can answer, for ever; `/readyz` reads what was last heard."""

    async def ask(name: str, engine: Engine) -> None:
        state = UP
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await engine.ping()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            # Whatever a ping raises, the engine did not answer, and the probe must go on.
            state = DOWN
            if readiness.engines.get(name) != DOWN:
                log.warning(
                    "engine down",
                    engine=name,
                    error=type(error).__name__,
                    detail=str(error.__cause__ or error),
                )
        if state == UP and engine.circuit not in (None, "closed"):
            state = f"circuit {engine.circuit}"
        readiness.engines[name] = state
        metrics.engine_up.labels(name).set(state == UP)

    while True:
        # Together: one that hangs must not delay what is known of the other.
        await asyncio.gather(*(ask(name, engine) for name, engine in engines.items()))
        await asyncio.sleep(PROBE_INTERVAL_S)


def health_router(readiness: Readiness, metrics: Metrics) -> APIRouter:
    router = APIRouter(tags=["operations"])
    alive = Liveness(status="alive")
    engines = {"expressnet_moe": UP, "yunet": UP}
    ready = ReadinessAnswer(status="ready", warmed_up=True, draining=False, engines=engines)
    not_ready = ready.model_copy(update={"status": "not ready", "engines": engines | {"yunet": DOWN}})

    # Some load balancers probe with HEAD.
    @router.head("/livez", include_in_schema=False)
    @router.get(
        "/livez",
        operation_id="get_liveness",
        summary="Is the process alive?",
        responses=answered(alive),
    )
    async def livez() -> Liveness:
        return alive

    @router.head("/readyz", include_in_schema=False)
    @router.get(
        "/readyz",
        operation_id="get_readiness",
        summary="Should requests be sent here?",
        response_model=ReadinessAnswer,
        responses=answered(ready)
        | {503: {"model": ReadinessAnswer, "description": "Not ready"} | answered(not_ready)[200]},
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
        # With many processes it takes too long for the event loop.
        text = await asyncio.to_thread(generate_latest, metrics.registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return router
