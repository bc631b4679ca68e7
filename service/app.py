"""The application: wiring only, and the one place that names engines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.responses import RedirectResponse, Response
from fastapi_offline import FastAPIOffline

from service import __version__
from service.errors import ModelFileError
from service.http.admission import Admission
from service.http.emotions import emotions_router
from service.http.health import Readiness, health_router, probe
from service.http.models import models_router
from service.http.observation import Observation
from service.http.problems import install_handlers
from service.inference.batcher import Batcher, BatcherEvents, BatcherLimits
from service.inference.breaker import Breaker
from service.inference.engine import Classifier, Detector
from service.logs import log
from service.manifest import ClassifierManifest, Manifest, read_manifest, verified_model_path
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.settings import Settings

if TYPE_CHECKING:
    from service.inference.triton import TritonConnection


@dataclass(frozen=True, slots=True)
class Engines:
    """The two model calls of a request, and where each one runs."""

    classifier: Classifier
    detector: Detector


def create_app(settings: Settings, engines: Engines | None = None) -> FastAPI:
    """The gateway over `engines`, or over the embedded engine of `settings`.

    Raises `ModelFileError` when a model or its manifest cannot be trusted.
    """
    classifier = read_manifest(settings.model_repository, settings.classifier, settings.model_version)
    detector = read_manifest(settings.model_repository, settings.detector)
    if not isinstance(classifier, ClassifierManifest):
        raise ModelFileError(f"{classifier.name} is a {classifier.kind}, not a classifier")
    if detector.kind != "detector":
        raise ModelFileError(f"{detector.name} is a {detector.kind}, not a detector")
    metrics = Metrics()
    engines = engines or make_engines(settings, classifier, detector, metrics)
    for manifest in (classifier, detector):
        metrics.serving(manifest)
    readiness = Readiness()
    batcher = Batcher(
        engines.classifier,
        BatcherLimits(
            settings.max_batch_faces,
            settings.queue_limit_faces,
            settings.max_delay_s,
            calls_in_flight=CALLS_IN_FLIGHT_ON_TRITON if engines.classifier.cancellable else 1,
        ),
        BatcherEvents(metrics.batch_size.observe, metrics.queue_depth.set),
    )
    pipeline = Pipeline(
        engines.detector,
        batcher,
        classifier,
        metrics,
        workers=settings.worker_threads,
        pixel_limit=settings.pixel_limit,
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        named = {classifier.name: engines.classifier, detector.name: engines.detector}
        await asyncio.gather(*(engine.warm_up() for engine in named.values()))
        await pipeline.start()
        prober = asyncio.create_task(probe(named, lambda: pipeline.alive, readiness, metrics))
        readiness.warmed_up = True
        log.info("ready", classifier=classifier.name, version=classifier.version)
        try:
            yield
        finally:
            readiness.drain()
            prober.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await prober
            await pipeline.close()
            for engine in named.values():
                await engine.close()
            log.info("stopped")

    # It serves the documentation's scripts itself: no internet needed, and no third party told who reads.
    app = FastAPIOffline(
        redoc_url=None,
        title="ExpressNet Service",
        version=__version__,
        summary="One photo in, the emotions of every face out.",
        lifespan=lifespan,
    )
    app.state.readiness = readiness
    app.include_router(emotions_router(pipeline, classifier, settings, metrics))
    app.include_router(models_router([classifier, detector]))
    app.include_router(health_router(readiness, metrics))

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        return RedirectResponse("/docs")

    install_handlers(app, metrics)
    app.add_middleware(Admission, settings=settings, readiness=readiness, metrics=metrics)
    app.add_middleware(Observation, metrics=metrics, routes=frozenset({"/v1/emotions", "/v1/emotions/batch"}))
    return app


# Enough that a server batches while answers travel; in this process one call at a time is as fast.
CALLS_IN_FLIGHT_ON_TRITON = 4

# What each place needs that the gateway alone does not install.
EXTRAS = {"torch": "embedded", "tritonclient": "triton", "grpc": "triton"}


def make_engines(
    settings: Settings, classifier: ClassifierManifest, detector: Manifest, metrics: Metrics
) -> Engines:
    """Each model where the settings place it; what a place needs is imported for it alone."""
    places = settings.classifier_engine or settings.engine, settings.detector_engine or settings.engine
    try:
        server = _triton(settings) if "triton" in places else None
        return Engines(
            _classifier(settings, classifier, metrics, server if places[0] == "triton" else None),
            _detector(settings, detector, metrics, server if places[1] == "triton" else None),
        )
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        raise ModelFileError(
            f"{missing} is not installed: pip install 'expressnet-service[{EXTRAS[missing]}]'"
        ) from error


def _triton(settings: Settings) -> TritonConnection:
    from service.inference.triton import Tls, TritonConnection

    tls = Tls(settings.triton_root_certificates, settings.triton_certificate, settings.triton_private_key)
    return TritonConnection(settings.triton_url, tls if settings.triton_tls else None)


def _classifier(
    settings: Settings, manifest: ClassifierManifest, metrics: Metrics, server: TritonConnection | None
) -> Classifier:
    if server is not None:
        from service.inference.triton import TritonClassifier

        breaker = _breaker(server, manifest, metrics)
        return TritonClassifier(server, manifest, breaker, settings.max_batch_faces)
    from service.inference.embedded import EmbeddedClassifier

    path = verified_model_path(settings.model_repository, manifest)
    return EmbeddedClassifier(path, manifest, settings.max_batch_faces)


def _detector(
    settings: Settings, manifest: Manifest, metrics: Metrics, server: TritonConnection | None
) -> Detector:
    if server is not None:
        from service.inference.triton import TritonDetector

        return TritonDetector(server, manifest, _breaker(server, manifest, metrics))
    from service.inference.embedded import EmbeddedDetector

    path = verified_model_path(settings.model_repository, manifest)
    return EmbeddedDetector(path, settings.worker_threads)


def _breaker(server: TritonConnection, manifest: Manifest, metrics: Metrics) -> Breaker:
    return Breaker(silent=server.silent, changed=metrics.circuit(manifest.name))
