"""The application: wiring only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from fastapi import FastAPI

from service import __version__
from service.assembly import Engines, assemble
from service.http.document import DESCRIPTION, describe
from service.http.in_flight import InFlight
from service.http.layers.stack import add_layers, build_access_control
from service.http.problems import raise_service_errors
from service.http.readiness import Readiness, probe, probe_once
from service.http.route_table import ROUTES, RouteTable
from service.http.routes.documentation import documentation_router
from service.http.routes.emotions import emotions_router
from service.http.routes.health import health_router
from service.http.routes.models import models_router
from service.http.routes.playground import ServiceFacts, playground_router
from service.http.routes.recordings import recordings_router
from service.http.routes.sessions import sessions_router
from service.http.routes.stream import StreamLimits, stream_router
from service.pipeline.spare_time import SpareTime
from service.process.memory import end_startup, release_at_rest
from service.recordings.archive import Archive
from service.recordings.jobs import Jobs, RecordingLimits
from service.recordings.webhooks import Webhooks
from service.sessions.sessions import Sessions
from service.settings import Settings
from service.state.store import open_store
from service.telemetry.background import supervised
from service.telemetry.logs import log
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from service.access.counts import Counts
    from service.state.store import Store


def create_app(
    settings: Settings,
    engines: Engines | None = None,
    metrics: Metrics | None = None,
    counts: Counts | None = None,
    store: Store | None = None,
) -> FastAPI:
    """Build the gateway on `engines`, or on the engines that `settings` name.

    metrics, counts, store: shared by all processes, if there are several.

    Raises `ModelFileError` when a model or its manifest cannot be trusted.
    """
    assembly = assemble(settings, engines, metrics)
    classifier, metrics, pipeline = assembly.classifier, assembly.metrics, assembly.pipeline
    readiness = Readiness()
    table = RouteTable(ROUTES)
    access = build_access_control(settings, metrics, (classifier, assembly.detector), counts)
    max_bytes = max(
        settings.max_in_flight_requests * settings.body_limit_bytes, settings.batch_body_limit_bytes
    )
    in_flight = InFlight(settings.max_in_flight_requests, max_bytes, assembly.backlog, metrics)
    url = None if settings.redis_url is None else settings.redis_url.get_secret_value()
    state = store or open_store(url)
    sessions = Sessions(state)
    archive = Archive(state, settings.recording_ttl_s)
    recordings = Jobs(
        pipeline,
        classifier,
        RecordingLimits(
            recordings=settings.max_recordings,
            memory_bytes=settings.recording_memory_bytes,
            minutes=settings.recording_limit_minutes,
            pixels=settings.recording_pixel_limit,
            timeout_s=settings.timeout_s,
            ttl_s=settings.recording_ttl_s,
        ),
        archive,
        SpareTime(assembly.backlog, settings.worker_threads),
        metrics,
        access.audit,
        Webhooks(
            settings.webhook_hosts,
            None if settings.webhook_secret is None else settings.webhook_secret.get_secret_value(),
            allow_private=settings.webhook_private,
            outcome=lambda outcome: metrics.webhooks.labels(outcome).inc(),
        ),
    )
    background = {
        "probe": lambda: probe(assembly.named_engines, readiness, metrics),
        "recordings": recordings.run,
        "memory": lambda: release_at_rest(lambda: assembly.backlog.rest_s),
        **access.background(),
    }

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        table.check(app.routes)
        async with assembly:
            await access.prepare()
            await probe_once(assembly.named_engines, readiness, metrics)
            tasks = [
                asyncio.create_task(supervised(name, work, metrics.background_failed))
                for name, work in background.items()
            ]
            end_startup()
            readiness.warmed_up = True
            log.info("ready", classifier=classifier.name, version=classifier.version)
            try:
                yield
            finally:
                readiness.drain()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await recordings.close()
                await access.close()
                await state.close()
        log.info("stopped")

    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        title="ExpressNet Service",
        version=__version__,
        summary="One photo in, the emotions of every face out.",
        description=DESCRIPTION,
        lifespan=lifespan,
        # A redirect needs the proxy's scheme and host, which are unknown here. The table accepts both paths.
        redirect_slashes=False,
    )
    app.state.readiness, app.state.metrics = readiness, metrics
    groups_only = settings.aggregate_only is not None
    stream_limits = StreamLimits(
        settings.max_streams, settings.stream_idle_s, settings.body_limit_bytes, settings.timeout_s
    )
    for router in (
        emotions_router(
            pipeline,
            classifier,
            metrics,
            sessions,
            worker_threads=settings.worker_threads,
            image_limit_bytes=settings.body_limit_bytes,
        ),
        recordings_router(
            recordings,
            archive,
            readiness,
            groups_only=groups_only,
            limit_bytes=settings.recording_limit_bytes,
            idle_s=settings.client_timeout_s,
        ),
        stream_router(pipeline, classifier, stream_limits, in_flight, readiness, metrics, sessions),
        sessions_router(sessions, classifier, settings.aggregate_only),
        models_router([classifier, assembly.detector], settings.declaration),
        health_router(readiness, metrics),
        playground_router(
            ServiceFacts(
                groups_only=groups_only,
                body_limit_bytes=settings.body_limit_bytes,
                recording_limit_bytes=settings.recording_limit_bytes,
                timeout_s=settings.timeout_s,
                prior=settings.prior,
                asks_for_key=settings.keys_file is not None,
                allows_anonymous=settings.keys_file is None or settings.allow_anonymous,
                # A browser sends no key, and the admin port is another address.
                shows_docs=settings.keys_file is None and settings.admin_port is None,
            )
        ),
        # The admin port has no API to try out.
        documentation_router(app.title, try_out=settings.admin_port is None),
    ):
        # One flat list, so that the table can check each route.
        app.router.routes.extend(router.routes)
    describe(
        app,
        table,
        has_keys=settings.keys_file is not None,
        allow_anonymous=settings.allow_anonymous,
        admin_port=settings.admin_port is not None,
    )
    raise_service_errors(app)
    add_layers(app, settings, table, readiness, in_flight, access)
    return app
