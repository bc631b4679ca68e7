"""Builds the engines and the pipeline from the settings, with or without HTTP.

No other module names engines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

from service.core.backlog import Backlog
from service.core.errors import ModelFileError, SettingsError
from service.core.manifest import (
    ONNX,
    TORCHSCRIPT,
    ClassifierManifest,
    Manifest,
    ModelFile,
    read_manifest,
    verified_model_path,
)
from service.inference.batcher import Batcher, BatcherEvents, BatcherLimits
from service.inference.breaker import STATES, Breaker
from service.inference.engine import Classifier, Detector, Engine
from service.pipeline.groups import GroupPipeline
from service.pipeline.pipeline import Pipeline
from service.settings import Settings
from service.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from service.inference.triton import TritonConnection

# Enough for the server to batch while answers travel; an embedded engine needs only one call at a time.
CALLS_IN_FLIGHT_ON_TRITON = 4

# The file that each place serves.
SERVED_FILE: dict[str, ModelFile] = {"embedded": ONNX, "triton": TORCHSCRIPT}

# What to install if a package of an engine is missing.
INSTALLED_BY = {
    "onnxruntime": "onnxruntime",
    "tritonclient": "'expressnet-service[triton]'",
    "grpc": "'expressnet-service[triton]'",
}


@dataclass(frozen=True, slots=True)
class Engines:
    """The two model calls of a request, and where each one runs."""

    classifier: Classifier
    detector: Detector


@dataclass(frozen=True, slots=True)
class Assembly:
    """A pipeline with its parts. `async with` warms up the engines, and closes all after the last answer."""

    classifier: ClassifierManifest
    detector: Manifest
    engines: Engines
    metrics: Metrics
    backlog: Backlog
    pipeline: Pipeline | GroupPipeline

    @property
    def faces(self) -> Pipeline:
        """The pipeline for single faces. Raises `SettingsError` in group mode."""
        if isinstance(self.pipeline, GroupPipeline):
            raise SettingsError("EXPRESSNET_AGGREGATE_ONLY is set, but this command answers for single faces")
        return self.pipeline

    @property
    def named_engines(self) -> dict[str, Engine]:
        return {
            self.classifier.name: self.engines.classifier,
            self.detector.name: self.engines.detector,
        }

    async def __aenter__(self) -> Assembly:
        try:
            await asyncio.gather(*(engine.warm_up() for engine in self.named_engines.values()))
            await self.pipeline.start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        await self.pipeline.close()
        for engine in self.named_engines.values():
            await engine.close()


def assemble(settings: Settings, engines: Engines | None = None, metrics: Metrics | None = None) -> Assembly:
    """Build the pipeline on `engines`, or on the engines of `settings`. Nothing runs before `async with`.

    Raises `ModelFileError` if a model or its manifest is missing, damaged or of the wrong kind.
    """
    classifier, detector = served_manifests(settings)
    metrics = metrics or Metrics()
    backlog = Backlog(settings.worker_threads, settings.max_images_per_worker)
    engines = engines or make_engines(settings, classifier, detector, metrics, lambda: backlog.sparse)
    for manifest, place in zip((classifier, detector), places(settings), strict=True):
        prior = settings.prior if manifest is classifier else ""
        metrics.serving(manifest, SERVED_FILE[place], prior)
    # Group mode reports no batch sizes: a batch of one face would tell of a single face.
    groups_only = settings.aggregate_only is not None
    batcher = Batcher(
        engines.classifier,
        BatcherLimits(
            settings.max_batch_faces,
            settings.queue_limit_faces,
            settings.max_delay_s,
            calls_in_flight=CALLS_IN_FLIGHT_ON_TRITON if engines.classifier.cancellable else 1,
        ),
        BatcherEvents(depth=metrics.queue_depth.set)
        if groups_only
        else BatcherEvents(metrics.batch_size.observe, metrics.queue_depth.set),
    )
    faces = Pipeline(
        engines.detector,
        batcher,
        classifier,
        metrics,
        workers=settings.worker_threads,
        decode_budget_s=settings.decode_budget_s,
        pixel_limit=settings.pixel_limit,
        backlog=backlog,
        prior=settings.prior,
        reports_stages=not groups_only,
    )
    pipeline = faces if settings.aggregate_only is None else GroupPipeline(faces, settings.aggregate_only)
    return Assembly(classifier, detector, engines, metrics, backlog, pipeline)


def served_manifests(settings: Settings) -> tuple[ClassifierManifest, Manifest]:
    """The manifests of both models. Raises `ModelFileError` if one is missing or of another kind."""
    classifier = read_manifest(settings.model_repository, settings.classifier, settings.model_version)
    detector = read_manifest(settings.model_repository, settings.detector)
    if not isinstance(classifier, ClassifierManifest):
        raise ModelFileError(f"{classifier.name} is a {classifier.kind}, not a classifier")
    if detector.kind != "detector":
        raise ModelFileError(f"{detector.name} is a {detector.kind}, not a detector")
    return classifier, detector


def places(settings: Settings) -> tuple[str, str]:
    """Where the classifier and the detector run."""
    return settings.classifier_engine or settings.engine, settings.detector_engine or settings.engine


def make_engines(
    settings: Settings,
    classifier: ClassifierManifest,
    detector: Manifest,
    metrics: Metrics,
    spare_core: Callable[[], bool] = lambda: False,
) -> Engines:
    """Make the two engines that the settings choose, and import the packages of these engines only.

    spare_core: returns whether a core of this process is idle now.
    """
    remote = [place == "triton" for place in places(settings)]
    try:
        server = _triton(settings) if any(remote) else None
        return Engines(
            _classifier(settings, classifier, metrics, spare_core, server if remote[0] else None),
            _detector(settings, detector, metrics, spare_core, server if remote[1] else None),
        )
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in INSTALLED_BY:
            raise
        raise ModelFileError(f"{missing} is not installed: pip install {INSTALLED_BY[missing]}") from error


def _triton(settings: Settings) -> TritonConnection:
    from service.inference.triton import Tls, TritonConnection

    tls = Tls(settings.triton_root_certificates, settings.triton_certificate, settings.triton_private_key)
    return TritonConnection(settings.triton_url, tls if settings.triton_tls else None)


def _classifier(
    settings: Settings,
    manifest: ClassifierManifest,
    metrics: Metrics,
    spare_core: Callable[[], bool],
    server: TritonConnection | None,
) -> Classifier:
    if server is not None:
        from service.inference.triton import TritonClassifier

        breaker = _breaker(server, manifest, metrics)
        return TritonClassifier(server, manifest, breaker, settings.max_batch_faces)
    from service.inference.onnx import OnnxClassifier

    verified_model_path(settings.model_repository, manifest, ONNX)  # before anything loads
    return OnnxClassifier(settings.model_repository, manifest, settings.worker_threads, spare_core)


def _detector(
    settings: Settings,
    manifest: Manifest,
    metrics: Metrics,
    spare_core: Callable[[], bool],
    server: TritonConnection | None,
) -> Detector:
    if server is not None:
        from service.inference.triton import TritonDetector

        return TritonDetector(server, manifest, _breaker(server, manifest, metrics))
    from service.inference.onnx import OnnxDetector

    verified_model_path(settings.model_repository, manifest, ONNX)
    return OnnxDetector(settings.model_repository, manifest, spare_core)


def _breaker(server: TritonConnection, manifest: Manifest, metrics: Metrics) -> Breaker:
    return Breaker(silent=server.silent, changed=metrics.circuit(manifest.name, STATES))
