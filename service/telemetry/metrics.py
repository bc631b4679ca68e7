"""Every Prometheus metric, declared once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

from service.core.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    Draining,
    EngineUnavailable,
    Forbidden,
    HostBusy,
    ImageTooComplex,
    ImageTooLarge,
    OriginNotAllowed,
    Overloaded,
    RateLimited,
    ServiceError,
    Unauthorized,
)
from service.core.manifest import Manifest, ModelFile
from service.core.seen import VERDICTS, Seen, SeenGroup

# What protects the service or its caller's deadline; other errors are the caller's own.
REJECTIONS = (
    Overloaded,
    EngineUnavailable,
    HostBusy,
    Draining,
    DeadlineExceeded,
    BodyTooLarge,
    ImageTooLarge,
    ImageTooComplex,
    Unauthorized,
    Forbidden,
    OriginNotAllowed,
    RateLimited,
)
# Of connections: not HTTP, a head too large, a client that sends too late, an answer not taken, crowded out.
CUTS = ("malformed", "large_head", "late", "unread", "crowded")
BACKGROUND_TASKS = (
    "probe",
    "memory",
    "keys file",
    "redis",
    "supervisor link",
    "late clients",
    "beats",
    "processes",
)
FRAME_OUTCOMES = ("answered", "failed", "dropped")
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


# Prometheus does not read the `_created` samples, and without them an exposition is shorter.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """One application's metrics on a registry of their own, so that several can live in one process.

    shown: the registry that `/metrics` shows, if not this one. Series whose labels are known begin at 0:
    Prometheus cannot see a rise from nothing to 1.
    """

    def __init__(self, shown: CollectorRegistry | None = None) -> None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.registry = shown or registry
        self.http_requests = Counter(
            "expressnet_http_requests_total",
            "Requests answered; status 499 where the client left first.",
            ("route", "method", "status"),
            registry=registry,
        )
        self.http_request_duration = Histogram(
            "expressnet_http_request_duration_seconds",
            "From the head of a request to the last byte of its answer.",
            ("route",),
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.requests_in_flight = Gauge(
            "expressnet_requests_in_flight",
            "Admitted and not yet answered.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.stage_duration = Histogram(
            "expressnet_stage_duration_seconds",
            "Time of one image in one stage of the pipeline; all waiting is in `queue`.",
            ("stage",),
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.batch_size = Histogram(
            "expressnet_batch_size_faces",
            "Faces in one call of the classifier.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
            registry=registry,
        )
        self.queue_depth = Gauge(
            "expressnet_queue_depth_faces",
            "Faces waiting for the classifier.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.rejected = Counter(
            "expressnet_rejected_total",
            "Requests refused to protect the service; in a batch, images.",
            ("reason",),
            registry=registry,
        )
        for error in REJECTIONS:
            self.rejected.labels(error.code)
        self.abandoned_images = Counter(
            "expressnet_abandoned_images_total",
            "Images given up because they kept a worker thread beyond its budget.",
            registry=registry,
        )
        self.background_failures = Counter(
            "expressnet_background_failures_total",
            "Failures of tasks that run behind the requests; each was begun again.",
            ("task",),
            registry=registry,
        )
        for task in BACKGROUND_TASKS:
            self.background_failures.labels(task)
        self.connections = Gauge(
            "expressnet_connections",
            "Open connections of clients.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.cut_connections = Counter(
            "expressnet_cut_connections_total",
            "Connections that the service closed because of what their client did.",
            ("reason",),
            registry=registry,
        )
        for reason in CUTS:
            self.cut_connections.labels(reason)
        self.streams = Gauge(
            "expressnet_streams", "Open streams.", registry=registry, multiprocess_mode="livesum"
        )
        self.stream_frames = Counter(
            "expressnet_stream_frames_total",
            "Frames of streams: answered, answered by a problem, or replaced by a newer one.",
            ("outcome",),
            registry=registry,
        )
        for outcome in FRAME_OUTCOMES:
            self.stream_frames.labels(outcome)
        self.faces_per_image = Histogram(
            "expressnet_faces_per_image",
            "Faces answered per image.",
            buckets=(0, 1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        self.face_size = Histogram(
            "expressnet_face_size_pixels",
            "Shorter side of a face's box.",
            buckets=(16, 24, 32, 48, 64, 96, 128, 256, 512, 1024),
            registry=registry,
        )
        self.predictions = Counter(
            "expressnet_predictions_total",
            "Faces by what was answered; a shift is drift of the model or of its users.",
            ("emotion", "verdict"),
            registry=registry,
        )
        self.confidence = Histogram(
            "expressnet_confidence",
            "Probability of the answered emotion.",
            buckets=tuple(round(0.1 * i, 1) for i in range(1, 11)),
            registry=registry,
        )
        self.engine_up = Gauge(
            "expressnet_engine_up",
            "1 if the engine answered its last probe.",
            ("engine",),
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.circuit_state = Gauge(
            "expressnet_circuit_state",
            "1 for the state that an engine's circuit breaker is in; no series for engines without one.",
            ("engine", "state"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.keys_file_valid = Gauge(
            "expressnet_keys_file_valid",
            "0 while the keys file is broken or gone, and the last good keys stay.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.keys_file_valid.set(1)
        self.rate_store_up = Gauge(
            "expressnet_rate_store_up",
            "0 while Redis is away, and each gateway counts for itself.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.rate_store_up.set(1)
        self.audit_lines_lost = Counter(
            "expressnet_audit_lines_lost_total",
            "Lines that did not reach the audit file.",
            registry=registry,
        )
        # To look a series up by its labels takes as long as to count.
        self._request = cache(self.http_requests.labels)
        self._request_duration = cache(self.http_request_duration.labels)
        self._stage = cache(self.stage_duration.labels)
        self._prediction = cache(self.predictions.labels)
        self.model_info = Gauge(
            "expressnet_model_info",
            "1 for each model served.",
            ("name", "version", "sha256"),
            registry=registry,
            multiprocess_mode="livemax",
        )

    def serving(self, model: Manifest, file: ModelFile) -> None:
        self.model_info.labels(model.name, model.version, model.sha256[file]).set(1)
        for emotion, verdict in itertools.product(model.labels, VERDICTS):
            self.predictions.labels(emotion, verdict)

    def circuit(self, engine: str, states: Sequence[str]) -> Callable[[str], None]:
        """What an engine's breaker calls with every new state; it begins with the first."""

        def changed(state: str) -> None:
            for known in states:
                self.circuit_state.labels(engine, known).set(known == state)

        changed(states[0])
        return changed

    def request(self, route: str, method: str, status: int, seconds: float | None) -> None:
        """An answered request; no seconds where their number says nothing about how quick the service is."""
        self._request(route, method, status).inc()
        if seconds is not None:
            self._request_duration(route).observe(seconds)

    def background_failed(self, task: str) -> None:
        self.background_failures.labels(task).inc()

    def count_rejection(self, error: ServiceError) -> None:
        """Count the error if it is one of `REJECTIONS`."""
        if isinstance(error, REJECTIONS):
            self.rejected.labels(error.code).inc()

    def stages(self, timings: Mapping[str, float]) -> None:
        """Seconds by stage; a stage that an image did not reach has none and is not counted."""
        for stage, seconds in timings.items():
            if seconds > 0:
                self._stage(stage).observe(seconds)

    def faces(self, seen: Seen) -> None:
        self.faces_per_image.observe(seen.face_count)
        for face in range(seen.face_count):
            self.face(seen, face)

    def face(self, seen: Seen, face: int) -> None:
        self.face_size.observe(seen.quality[face].size_px)
        self._prediction(seen.emotions[face], seen.verdict(face)).inc()
        self.confidence.observe(seen.confidences[face])

    def group(self, seen: SeenGroup) -> None:
        """Nothing of a face that the answer keeps to itself."""
        self.faces_per_image.observe(seen.face_count)
