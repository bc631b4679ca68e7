"""Metrics: their values, and the text that Prometheus reads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.core import errors
from service.core.errors import ServiceError
from service.core.manifest import read_manifest
from service.core.seen import SeenGroup, Verdict
from service.inference.breaker import STATES
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.seen import FaceSeen, seen

PUBLISHED = {
    "expressnet_http_requests": {"route", "method", "status"},
    "expressnet_http_request_duration_seconds": {"route"},
    "expressnet_requests_in_flight": set(),
    "expressnet_stage_duration_seconds": {"stage"},
    "expressnet_batch_size_faces": set(),
    "expressnet_queue_depth_faces": set(),
    "expressnet_rejected": {"reason"},
    "expressnet_abandoned_images": set(),
    "expressnet_audit_lines_lost": set(),
    "expressnet_connections": set(),
    "expressnet_background_failures": {"task"},
    "expressnet_cut_connections": {"reason"},
    "expressnet_streams": set(),
    "expressnet_stream_frames": {"outcome"},
    "expressnet_recordings": set(),
    "expressnet_recordings_ended": {"outcome"},
    "expressnet_recording_frames": set(),
    "expressnet_webhooks": {"outcome"},
    "expressnet_faces_per_image": set(),
    "expressnet_face_size_pixels": set(),
    "expressnet_predictions": {"emotion", "verdict"},
    "expressnet_confidence": set(),
    "expressnet_engine_up": {"engine"},
    "expressnet_circuit_state": {"engine", "state"},
    "expressnet_keys_file_valid": set(),
    "expressnet_rate_store_up": set(),
    "expressnet_model_info": {"name", "version", "sha256", "prior"},
}
PROTECTING = {
    "overloaded",
    "engine_unavailable",
    "draining",
    "deadline_exceeded",
    "body_too_large",
    "image_too_complex",
    "video_too_long",
    "video_too_complex",
    "insufficient_storage",
    "image_too_large",
    "host_busy",
    "store_unavailable",
    "unauthorized",
    "forbidden",
    "origin_not_allowed",
    "rate_limited",
}
CODES = [
    error
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, ServiceError) and "code" in vars(error)
]


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def face(width: float, height: float, emotion: str = "fear", verdict: Verdict = "certain") -> FaceSeen:
    return FaceSeen(emotion, 0.75, verdict, (0, 0, width, height))


def test_the_published_metrics_and_labels_are_known() -> None:
    metrics = Metrics()
    metrics.http_requests.labels("/v1/emotions", "POST", "200").inc()
    metrics.http_request_duration.labels("/v1/emotions").observe(0.1)
    metrics.stages({"decode": 0.1})
    metrics.count_rejection(errors.Overloaded(""))
    metrics.faces(seen(face(10, 10)))
    metrics.engine_up.labels("tiny").set(1)
    metrics.circuit("tiny", STATES)
    metrics.serving(read_manifest(Settings().model_repository, "expressnet_moe"), "model.onnx", "balanced")
    found = {
        family.name: {label for sample in family.samples for label in sample.labels} - {"le"}
        for family in text_string_to_metric_families(generate_latest(metrics.registry).decode())
        if family.name.startswith("expressnet_") and not family.name.endswith("_created")
    }
    assert found == PUBLISHED


def test_counters_are_published_at_0_before_the_first_count() -> None:
    metrics = Metrics()
    model = read_manifest(Settings().model_repository, "expressnet_moe")
    metrics.serving(model, "model.onnx", "balanced")
    zeros = {
        tuple(sample.labels.values())
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name in ("expressnet_rejected_total", "expressnet_predictions_total") and sample.value == 0
    }
    verdicts = {(emotion, verdict) for emotion in model.labels for verdict in ("certain", "uncertain")}
    assert zeros == {(code,) for code in PROTECTING} | verdicts


def test_each_application_has_its_own_counts() -> None:
    one, other = Metrics(), Metrics()
    one.faces(seen(face(10, 10)))
    assert value(one, "expressnet_faces_per_image_sum") == 1
    assert value(other, "expressnet_faces_per_image_sum") == 0


@pytest.mark.parametrize("error", CODES, ids=lambda error: error.__name__)
def test_only_errors_that_protect_the_service_are_rejections(error: type[ServiceError]) -> None:
    metrics = Metrics()
    metrics.count_rejection(error("why"))
    counted = value(metrics, "expressnet_rejected_total", reason=error.code)
    assert counted == (1 if error.code in PROTECTING else 0)


def test_faces_are_counted_by_size_emotion_and_verdict() -> None:
    metrics = Metrics()
    faces = face(30, 20), face(100, 300, verdict="uncertain"), face(12, 14, "anger")
    metrics.faces(replace(seen(*faces), faces_found=9))
    assert value(metrics, "expressnet_faces_per_image_count") == 1
    assert value(metrics, "expressnet_faces_per_image_sum") == 3
    assert value(metrics, "expressnet_face_size_pixels_sum") == 20 + 100 + 12
    assert value(metrics, "expressnet_predictions_total", emotion="fear", verdict="certain") == 1
    assert value(metrics, "expressnet_predictions_total", emotion="fear", verdict="uncertain") == 1
    assert value(metrics, "expressnet_predictions_total", emotion="anger", verdict="certain") == 1
    assert value(metrics, "expressnet_confidence_bucket", le="0.7") == 0
    assert value(metrics, "expressnet_confidence_bucket", le="0.8") == 3


def test_an_image_without_faces_is_counted_too() -> None:
    metrics = Metrics()
    metrics.faces(seen())
    assert value(metrics, "expressnet_faces_per_image_bucket", le="0.0") == 1


def test_only_the_size_of_a_group_is_counted() -> None:
    metrics = Metrics()
    metrics.group(SeenGroup(10, 10, 5, ("fear",), face_count=9, probabilities=np.ones(1)))
    metrics.group(SeenGroup(10, 10, 5, ("fear",)))
    assert value(metrics, "expressnet_faces_per_image_count") == 2
    assert value(metrics, "expressnet_faces_per_image_sum") == 9
    assert value(metrics, "expressnet_confidence_count") == 0
    assert value(metrics, "expressnet_face_size_pixels_count") == 0


def test_stages_are_labels_of_one_histogram() -> None:
    metrics = Metrics()
    metrics.stages({"decode": 0.25, "detect": 0.5})
    metrics.stages({"decode": 0.25})
    assert value(metrics, "expressnet_stage_duration_seconds_sum", stage="decode") == 0.5
    assert value(metrics, "expressnet_stage_duration_seconds_count", stage="detect") == 1
