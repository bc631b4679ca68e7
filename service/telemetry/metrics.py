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
    InsufficientStorage,
    OriginNotAllowed,
    Overloaded,
    RateLimited,
    ServiceError,
    StoreUnavailable,
    Unauthorized,
    VideoTooComplex,
    VideoTooLong,
)
from service.core.manifest import Manifest, ModelFile
from service.core.seen import VERDICTS, Seen, SeenGroup

# Errors that protect the service or the deadline of a caller. All other errors are faults of the request.
REJECTIONS = (
    Overloaded,
    EngineUnavailable,
    HostBusy,
    StoreUnavailable,
    Draining,
    DeadlineExceeded,
    BodyTooLarge,
    ImageTooLarge,
    ImageTooComplex,
    VideoTooLong,
    VideoTooComplex,
    InsufficientStorage,
    Unauthorized,
    Forbidden,
    OriginNotAllowed,
    RateLimited,
)
# Labels and known label values, with what they mean.
LABELS = {
    "route": "Path of the route, like `/v1/emotions`. Unknown paths are `unmatched`.",
    "method": "HTTP method.",
    "status": "HTTP status of the answer.",
    "stage": "Stage of the pipeline.",
    "reason": "Why the service refused or closed it.",
    "task": "Name of the background task.",
    "outcome": "What became of the frame, the recording or the webhook.",
    "emotion": "Most probable emotion.",
    "verdict": "`certain` or `uncertain`.",
    "engine": "Name of the model.",
    "state": "`closed`, `open` or `half-open`.",
    "name": "Name of the model.",
    "version": "Version of the model.",
    "sha256": "SHA-256 of the served file.",
    "prior": "Prior of answers whose request names none; empty for the detector.",
}
CUTS = {
    "malformed": "The client did not send HTTP.",
    "large_head": "The request head was too large.",
    "late": "The client sent too slowly.",
    "unread": "The client did not read its answer.",
    "crowded": "More connections than `EXPRESSNET_MAX_CONNECTIONS` were open.",
}
BACKGROUND_TASKS = {
    "probe": "Probes the engines.",
    "memory": "Returns free memory to the system.",
    "keys file": "Reloads the keys file.",
    "redis": "Reconnects to Redis.",
    "recordings": "Keeps the states of recordings, and ends those that were cancelled.",
    "supervisor link": "Receives the rate counts of the supervisor.",
    "late clients": "Closes the connections of late clients.",
    "beats": "Tells the supervisor that the process works.",
    "processes": "Finds processes that hang. Runs in the supervisor.",
}
FRAME_OUTCOMES = {
    "answered": "The frame has an answer.",
    "failed": "The frame was answered with a problem.",
    "dropped": "A newer frame replaced it, or the client left.",
}
RECORDING_OUTCOMES = {
    "done": "Every frame has an answer.",
    "failed": "It ended with a problem.",
    "cancelled": "A caller cancelled it.",
    "interrupted": "The service was shut down.",
}
WEBHOOK_OUTCOMES = {
    "delivered": "The receiver accepted it.",
    "undelivered": "The receiver did not accept it within a day, or is gone.",
}
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


# Prometheus does not read the `_created` samples, and without them an exposition is shorter.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Metrics:
    """The metrics of one application on their own registry: a process may have several applications.

    shown: the registry that `/metrics` shows, by default the own one. Series with known labels begin at 0:
    Prometheus cannot see a rise from nothing to 1.
    """

    def __init__(self, shown: CollectorRegistry | None = None) -> None:
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.registry = shown or registry
        self.http_requests = Counter(
            "expressnet_http_requests_total",
            "Answered requests. Status 499 means that the client left before the answer.",
            ("route", "method", "status"),
            registry=registry,
        )
        self.http_request_duration = Histogram(
            "expressnet_http_request_duration_seconds",
            "Time from the head of a request to the last byte of its answer.",
            ("route",),
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.requests_in_flight = Gauge(
            "expressnet_requests_in_flight",
            "Requests with images that are admitted and not yet answered.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.stage_duration = Histogram(
            "expressnet_stage_duration_seconds",
            "Time of one image in one stage of the pipeline. `queue` is all waiting time.",
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
            "Faces that wait for the classifier.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.rejected = Counter(
            "expressnet_rejected_total",
            "Refused requests, or refused images of a batch, by error code.",
            ("reason",),
            registry=registry,
        )
        for error in REJECTIONS:
            self.rejected.labels(error.code)
        self.abandoned_images = Counter(
            "expressnet_abandoned_images_total",
            "Images abandoned because they exceeded `EXPRESSNET_DECODE_BUDGET_S`.",
            registry=registry,
        )
        self.background_failures = Counter(
            "expressnet_background_failures_total",
            "Failures of background tasks. The log has the cause, and the task is restarted.",
            ("task",),
            registry=registry,
        )
        for task in BACKGROUND_TASKS:
            self.background_failures.labels(task)
        self.connections = Gauge(
            "expressnet_connections",
            "Open client connections.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.cut_connections = Counter(
            "expressnet_cut_connections_total",
            "Connections that the service closed because of the client.",
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
            "Frames of streams by outcome.",
            ("outcome",),
            registry=registry,
        )
        for outcome in FRAME_OUTCOMES:
            self.stream_frames.labels(outcome)
        self.recordings = Gauge(
            "expressnet_recordings",
            "Recordings that are received, wait or are at work.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.recordings_ended = Counter(
            "expressnet_recordings_ended_total",
            "Recordings that ended, by outcome.",
            ("outcome",),
            registry=registry,
        )
        for outcome in RECORDING_OUTCOMES:
            self.recordings_ended.labels(outcome)
        self.recording_frames = Counter(
            "expressnet_recording_frames_total", "Frames of recordings with an answer.", registry=registry
        )
        self.webhooks = Counter(
            "expressnet_webhooks_total", "Webhooks by outcome.", ("outcome",), registry=registry
        )
        for outcome in WEBHOOK_OUTCOMES:
            self.webhooks.labels(outcome)
        self.faces_per_image = Histogram(
            "expressnet_faces_per_image",
            "Faces in the answer for one image.",
            buckets=(0, 1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        self.face_size = Histogram(
            "expressnet_face_size_pixels",
            "Shorter side of the box of each face.",
            buckets=(16, 24, 32, 48, 64, 96, 128, 256, 512, 1024),
            registry=registry,
        )
        self.predictions = Counter(
            "expressnet_predictions_total",
            "Faces by answer. A change of the shares means that the images or the model changed.",
            ("emotion", "verdict"),
            registry=registry,
        )
        self.confidence = Histogram(
            "expressnet_confidence",
            "Confidence of each face.",
            buckets=tuple(round(0.1 * i, 1) for i in range(1, 11)),
            registry=registry,
        )
        self.engine_up = Gauge(
            "expressnet_engine_up",
            "1 if the model answered its last probe, else 0.",
            ("engine",),
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.circuit_state = Gauge(
            "expressnet_circuit_state",
            "1 for the current state of a circuit breaker. Only models on Triton have one.",
            ("engine", "state"),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.keys_file_valid = Gauge(
            "expressnet_keys_file_valid",
            "0 while the keys file is invalid or missing, and the last valid keys apply. Else 1.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.keys_file_valid.set(1)
        self.rate_store_up = Gauge(
            "expressnet_rate_store_up",
            "0 while Redis is not available, and each gateway counts rates separately. Else 1.",
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.rate_store_up.set(1)
        self.audit_lines_lost = Counter(
            "expressnet_audit_lines_lost_total",
            "Lines that could not be written to the audit file.",
            registry=registry,
        )
        # Cached: looking up a series by its labels takes as long as counting.
        self._request = cache(self.http_requests.labels)
        self._request_duration = cache(self.http_request_duration.labels)
        self._stage = cache(self.stage_duration.labels)
        self._prediction = cache(self.predictions.labels)
        self.model_info = Gauge(
            "expressnet_model_info",
            "1 for each served model. `sha256` is the digest of the served file.",
            ("name", "version", "sha256", "prior"),
            registry=registry,
            multiprocess_mode="livemax",
        )

    def serving(self, model: Manifest, file: ModelFile, prior: str) -> None:
        self.model_info.labels(model.name, model.version, model.sha256[file], prior).set(1)
        for emotion, verdict in itertools.product(model.labels, VERDICTS):
            self.predictions.labels(emotion, verdict)

    def circuit(self, engine: str, states: Sequence[str]) -> Callable[[str], None]:
        """Return a function that an engine's breaker calls with each new state. It begins with the first."""

        def changed(state: str) -> None:
            for known in states:
                self.circuit_state.labels(engine, known).set(known == state)

        changed(states[0])
        return changed

    def request(self, route: str, method: str, status: int, seconds: float | None) -> None:
        """Count an answered request. seconds: None for a stream, whose duration is no latency."""
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
        """Count seconds by stage; a stage that an image did not reach has 0 and is skipped."""
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
        """Count faces only: the answer of a group has nothing of a single face."""
        self.faces_per_image.observe(seen.face_count)
