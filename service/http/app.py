"""The application: wiring only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from service import __version__
from service.assembly import Engines, assemble
from service.http.document import DESCRIPTION, describe
from service.http.layers.stack import add_layers, open_door
from service.http.problems import install_handlers
from service.http.routes.emotions import emotions_router
from service.http.routes.health import Readiness, health_router, probe
from service.http.routes.models import models_router
from service.http.routes.playground import playground_router
from service.http.routes.stream import stream_router
from service.process.memory import release_at_rest, release_unused
from service.settings import Settings
from service.telemetry.logs import log
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from service.access.counts import Counts


def create_app(
    settings: Settings,
    engines: Engines | None = None,
    metrics: Metrics | None = None,
    counts: Counts | None = None,
) -> FastAPI:
    """The gateway over `engines`, or over the embedded engine of `settings`.

    One of several processes has `metrics` and `counts` that they share.

    Raises `ModelFileError` when a model or its manifest cannot be trusted.
    """
    assembly = assemble(settings, engines, metrics)
    classifier, metrics, pipeline = assembly.classifier, assembly.metrics, assembly.pipeline
    readiness = Readiness()
    door = open_door(settings, metrics, (classifier, assembly.detector), counts)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with assembly:
            await door.prepare()
            tasks = [
                asyncio.create_task(work)
                for work in (
                    probe(assembly.named_engines, readiness, metrics),
                    release_at_rest(lambda: assembly.backlog.idle),
                    *door.background(),
                )
            ]
            release_unused()
            readiness.warmed_up = True
            log.info("ready", classifier=classifier.name, version=classifier.version)
            try:
                yield
            finally:
                readiness.drain()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await door.close()
        log.info("stopped")

    # It serves the documentation's scripts itself: no internet needed, and no third party told who reads.
    app = FastAPIOffline(
        redoc_url=None,
        title="ExpressNet Service",
        version=__version__,
        summary="One photo in, the emotions of every face out.",
        description=DESCRIPTION,
        lifespan=lifespan,
        # At the admin port there is no API to try out.
        swagger_ui_parameters={"supportedSubmitMethods": []} if settings.admin_port else None,
    )
    app.state.readiness, app.state.metrics = readiness, metrics
    app.include_router(emotions_router(pipeline, classifier, settings, metrics))
    app.include_router(stream_router(pipeline, classifier, settings, readiness, metrics))
    app.include_router(models_router([classifier, assembly.detector], settings.declaration))
    app.include_router(health_router(readiness, metrics))
    app.include_router(playground_router(settings))
    describe(
        app,
        has_keys=settings.keys_file is not None,
        allow_anonymous=settings.allow_anonymous,
        admin_port=settings.admin_port is not None,
    )
    install_handlers(app, metrics)
    add_layers(app, settings, readiness, assembly.backlog, metrics, door)
    return app
