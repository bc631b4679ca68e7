"""What callers see over a real server when an engine is slow, broken, wrong or unavailable."""

from __future__ import annotations

import itertools
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import structlog

from service.assembly import Engines
from service.core.arrays import Classification, Detections
from service.core.errors import EngineUnavailable
from service.settings import Settings
from tests.conftest import Gateway, eventually, serving
from tests.fake_engine import FakeClassifier, FakeDetector

DEPTH = "expressnet_queue_depth_faces"
IN_FLIGHT = "expressnet_requests_in_flight"
GATES_AND_HINTS = np.zeros((1, 2, 4), np.float32), *np.zeros((2, 1, 1), np.float32)


def send_without_reading(gateway: Gateway, image: bytes) -> socket.socket:
    """Send a whole request, and return the connection. Closing the connection cancels the request."""
    address = urlsplit(gateway.url)
    connection = socket.create_connection((address.hostname or "", address.port or 0), timeout=30)
    head = (
        f"POST /v1/emotions HTTP/1.1\r\nHost: t\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}"
    )
    connection.sendall(head.encode() + b"\r\n\r\n" + image)
    return connection


def test_hanging_up_takes_faces_out_of_the_queue(astronaut_jpeg: bytes) -> None:
    classifier = FakeClassifier(delay_s=1.5)
    with serving(Settings(port=0, max_batch_faces=1), Engines(classifier, FakeDetector())) as gateway:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(gateway.post, astronaut_jpeg)
            eventually(lambda: len(classifier.batches) == 1)
            leaving = [send_without_reading(gateway, astronaut_jpeg) for _ in range(3)]
            eventually(lambda: gateway.metric(DEPTH) == 3)
            for connection in leaving:
                connection.close()
            eventually(lambda: gateway.metric(DEPTH) == 0)
            assert first.result().status_code == 200
        eventually(lambda: gateway.metric(IN_FLIGHT) == 0)
        assert classifier.batches == [1], "the classifier ran for clients that had disconnected"


def test_deadline_while_waiting_for_the_classifier(astronaut_jpeg: bytes) -> None:
    with serving(Settings(port=0), Engines(FakeClassifier(delay_s=1), FakeDetector())) as gateway:
        response = gateway.client.post(
            "/v1/emotions",
            content=astronaut_jpeg,
            headers={"Content-Type": "image/jpeg", "X-Timeout-Ms": "200"},
        )
        assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
        assert "classify" in response.json()["detail"]
        assert gateway.metric('expressnet_rejected_total{reason="deadline_exceeded"}') == 1
        eventually(lambda: gateway.post(astronaut_jpeg).status_code == 200)


def test_a_full_queue_is_overload_and_the_service_stays_ready(astronaut_jpeg: bytes) -> None:
    classifier = FakeClassifier(delay_s=0.5)
    settings = Settings(port=0, max_batch_faces=1, queue_limit_faces=2)
    with serving(settings, Engines(classifier, FakeDetector())) as gateway, ThreadPoolExecutor(12) as pool:
        responses = list(pool.map(lambda _: gateway.post(astronaut_jpeg), range(12)))
        statuses = [response.status_code for response in responses]
        assert set(statuses) == {200, 429}
        assert gateway.client.get("/readyz").status_code == 200
        refused = next(response for response in responses if response.status_code == 429)
        assert refused.json()["code"] == "overloaded"
        assert refused.headers["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("broken", "status", "code"),
    [
        ({"error": EngineUnavailable("the engine is away")}, 503, "engine_unavailable"),
        ({"error": RuntimeError("secret /path/of/model.pt")}, 500, "internal"),
        (
            {"answer": Classification(np.full((1, 8), np.nan, np.float32), *GATES_AND_HINTS)},
            500,
            "internal",
        ),
        (
            {"answer": Classification(np.full((1, 5), 0.2, np.float32), *GATES_AND_HINTS)},
            500,
            "internal",
        ),
    ],
    ids=["unavailable", "raises", "nan", "wrong-width"],
)
def test_a_broken_classifier(
    astronaut_jpeg: bytes, broken: dict[str, object], status: int, code: str
) -> None:
    classifier = FakeClassifier(**broken)  # type: ignore[arg-type]
    with serving(Settings(port=0), Engines(classifier, FakeDetector())) as gateway:
        response = gateway.post(astronaut_jpeg)
        assert (response.status_code, response.json()["code"]) == (status, code)
        assert "secret" not in response.text
        assert ("Retry-After" in response.headers) == (status == 503)
        classifier.error = classifier.answer = None
        assert gateway.post(astronaut_jpeg).status_code == 200


def detections(boxes: int = 1, scores: int = 1, landmarks: int = 1, value: float = 50) -> Detections:
    return Detections(
        np.tile(np.array([10, 10, 90, value], np.float32), (boxes, 1)),
        np.full(scores, 0.99, np.float32),
        np.full((landmarks, 5, 2), value, np.float32),
    )


class Panic(BaseException):
    """An error of a native extension, which handlers of `Exception` do not catch."""


BROKEN_DETECTORS: tuple[dict[str, object], ...] = (
    {"error": RuntimeError("secret /path/of/model.pt")},
    {"error": MemoryError("secret")},
    {"answer": detections(value=float("nan"))},
    {"answer": detections(value=float("inf"))},
    {"answer": detections(boxes=2)},
    {"answer": detections(scores=0)},
    {"answer": detections(landmarks=3)},
    {"error": Panic("secret")},
)


def test_a_broken_detector(astronaut_jpeg: bytes) -> None:
    detector = FakeDetector()
    engines = Engines(FakeClassifier(), detector)
    # Without a configuration, structlog prints the images in every traceback, which takes seconds.
    with structlog.testing.capture_logs(), serving(Settings(port=0), engines) as gateway:

        def post() -> httpx.Response:
            return gateway.post(astronaut_jpeg)

        def post_batch() -> httpx.Response:
            images = [("images", ("a", astronaut_jpeg))] * 2
            return gateway.client.post("/v1/emotions/batch", files=images)

        for broken in BROKEN_DETECTORS:
            for name, value in broken.items():
                setattr(detector, name, value)
            alone, batch = post(), post_batch()
            assert (alone.status_code, "secret" in alone.text + batch.text) == (500, False), broken
            if not isinstance(detector.error, Panic):
                assert alone.json()["code"] == "internal", broken
                # The service failed for every image, so the whole batch failed.
                assert (batch.status_code, batch.json()["code"]) == (500, "internal"), broken
            detector.error = detector.answer = None
            assert (post().status_code, post_batch().status_code) == (200, 200), broken
        eventually(lambda: gateway.metric(IN_FLIGHT) == 0)
        eventually(lambda: gateway.ready)


def test_a_clock_that_jumps_changes_nothing(astronaut_jpeg: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    year_s = 365 * 24 * 3600.0
    now, jumps = time.time, itertools.cycle((0, year_s, -year_s))
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * time.time()))
    classifier = FakeClassifier()
    with serving(Settings(port=0), Engines(classifier, FakeDetector())) as gateway:
        assert [gateway.post(astronaut_jpeg).status_code for _ in range(10)] == [200] * 10
        assert gateway.ready
        classifier.delay_s = 1.0
        headers = {"Content-Type": "image/jpeg", "X-Timeout-Ms": "200"}
        late = gateway.client.post("/v1/emotions", content=astronaut_jpeg, headers=headers)
        assert late.json()["code"] == "deadline_exceeded"


def test_an_engine_that_does_not_answer_its_probe_makes_the_service_unready(astronaut_jpeg: bytes) -> None:
    detector = FakeDetector()
    with serving(Settings(port=0), Engines(FakeClassifier(), detector)) as gateway:
        assert gateway.metric('expressnet_engine_up{engine="yunet"}') == 1
        detector.error = EngineUnavailable("the engine is away")
        eventually(lambda: gateway.client.get("/readyz").status_code == 503, timeout_s=5)
        assert gateway.client.get("/readyz").json()["engines"] == {"expressnet_moe": "up", "yunet": "down"}
        assert gateway.client.get("/livez").status_code == 200
        assert gateway.post(astronaut_jpeg).json()["code"] == "engine_unavailable"
        assert gateway.metric('expressnet_engine_up{engine="yunet"}') == 0
        detector.error = None
        eventually(lambda: gateway.client.get("/readyz").status_code == 200, timeout_s=5)


def test_draining_refuses_new_requests_on_open_connections(astronaut_jpeg: bytes) -> None:
    engines = Engines(FakeClassifier(), FakeDetector(delay_s=1))
    settings = Settings(port=0)
    with serving(settings, engines) as gateway, ThreadPoolExecutor(1) as pool:
        running = pool.submit(gateway.post, astronaut_jpeg)
        eventually(lambda: gateway.metric(IN_FLIGHT) == 1)
        gateway.drain()
        refused = gateway.post(astronaut_jpeg)
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert refused.headers["Retry-After"] == "5"
        assert gateway.client.get("/readyz").status_code == 503
        assert gateway.client.get("/livez").status_code == 200
        assert running.result().status_code == 200


def test_bodies_do_not_touch_the_disk(astronaut_jpeg: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_file(*_: object, **__: object) -> None:
        raise AssertionError("a body was spooled to disk")

    monkeypatch.setattr("tempfile.TemporaryFile", no_file)
    large = astronaut_jpeg + b"\0" * 5_000_000
    with serving(Settings(port=0), Engines(FakeClassifier(), FakeDetector())) as gateway:
        response = gateway.client.post("/v1/emotions", files={"image": ("a.jpg", large)})
        assert response.status_code == 200, response.text
