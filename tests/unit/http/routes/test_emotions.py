"""The routes for photos, with scripted engines: failures of batches, and options of a query."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.assembly import Engines
from service.core.errors import EngineContractError, EngineUnavailable, Overloaded
from service.pipeline.pipeline import Pipeline
from service.settings import Settings
from tests.conftest import Gateway, serving
from tests.fake_engine import FakeClassifier, FakeDetector, fake_engines

REJECTED = 'expressnet_rejected_total{{reason="{}"}}'


@pytest.fixture(scope="module")
def classifier() -> FakeClassifier:
    return FakeClassifier()


@pytest.fixture(scope="module")
def gateway(classifier: FakeClassifier) -> Iterator[Gateway]:
    with serving(Settings(port=0), Engines(classifier, FakeDetector())) as served:
        yield served


@pytest.fixture(autouse=True)
def _restored_classifier(classifier: FakeClassifier) -> Iterator[None]:
    yield
    classifier.error, classifier.delay_s = None, 0.0


def post_batch(gateway: Gateway, *images: bytes, **headers: str) -> Any:
    files = [("images", ("a.jpg", image)) for image in images]
    request_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.client.post("/v1/emotions/batch", files=files, headers=request_headers)


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (EngineUnavailable("no model"), 503, "engine_unavailable", "5"),
        (Overloaded("no place"), 429, "overloaded", "1"),
        (EngineContractError("rows missing"), 500, "internal", None),
        (KeyError("x"), 500, "internal", None),
    ],
)
def test_a_batch_whose_images_all_fail_in_the_service_is_answered_with_the_error(
    gateway: Gateway,
    classifier: FakeClassifier,
    astronaut_jpeg: bytes,
    error: Exception,
    status: int,
    code: str,
    retry_after: str | None,
) -> None:
    classifier.error = error
    before = gateway.metric(REJECTED.format(code)) if retry_after else 0
    answer = post_batch(gateway, astronaut_jpeg, astronaut_jpeg)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers.get("Retry-After") == retry_after
    if retry_after:
        assert gateway.metric(REJECTED.format(code)) == before + 2  # each image is counted


def test_a_batch_past_its_deadline_is_answered_with_504(
    gateway: Gateway, classifier: FakeClassifier, astronaut_jpeg: bytes
) -> None:
    classifier.delay_s = 1
    answer = post_batch(gateway, astronaut_jpeg, X_Timeout_Ms="500")
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")


def test_an_image_that_failed_in_the_service_has_retry_after_s(
    gateway: Gateway, classifier: FakeClassifier, astronaut_jpeg: bytes, faceless_jpeg: bytes
) -> None:
    classifier.error = EngineUnavailable("no model")
    before = gateway.metric(REJECTED.format("engine_unavailable"))
    answer = post_batch(gateway, astronaut_jpeg, b"no image", faceless_jpeg)
    assert answer.status_code == 200
    failed, unread, answered = answer.json()["results"]
    assert (failed["problem"]["code"], failed["retry_after_s"]) == ("engine_unavailable", 5)
    assert unread["problem"]["code"] == "invalid_image"
    assert "retry_after_s" not in unread
    assert answered["result"]["faces"] == []
    assert "retry_after_s" not in answered
    assert gateway.metric(REJECTED.format("engine_unavailable")) == before + 1


def test_invalid_images_do_not_fail_a_batch(
    gateway: Gateway, classifier: FakeClassifier, astronaut_jpeg: bytes
) -> None:
    assert post_batch(gateway, b"no image").status_code == 200
    classifier.error = EngineUnavailable("no model")
    assert post_batch(gateway, b"no image", astronaut_jpeg).status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        "include=landmarks&include=quality",
        "include=landmarks,quality",
        "include=landmarks,&include=%20quality&include=landmarks",
    ],
)
def test_include_may_be_repeated_or_be_a_list(gateway: Gateway, astronaut_jpeg: bytes, query: str) -> None:
    answer = gateway.client.post(
        f"/v1/emotions?{query}", content=astronaut_jpeg, headers={"Content-Type": "image/jpeg"}
    )
    (face,) = answer.json()["faces"]
    assert {"landmarks", "quality"} < set(face)


def test_an_unknown_part_of_include_is_named(gateway: Gateway, astronaut_jpeg: bytes) -> None:
    answer = gateway.client.post("/v1/emotions?include=soul&include=quality", content=astronaut_jpeg)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    assert answer.json()["detail"].startswith("include: 'soul' is none of ")


def test_a_batch_with_several_errors_is_answered_with_the_worst(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, astronaut_jpeg: bytes
) -> None:
    errors = iter(
        [Overloaded("no place"), EngineContractError("rows missing"), EngineUnavailable("no model")]
    )

    async def fail(*_: object, **__: object) -> None:
        raise next(errors)

    monkeypatch.setattr(Pipeline, "run", fail)
    with capture_logs() as lines:
        answer = post_batch(gateway, *[astronaut_jpeg] * 3)
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "image of a batch failed" in [line["event"] for line in lines]


def test_a_batch_larger_than_the_rate_is_an_invalid_request(astronaut_jpeg: bytes) -> None:
    with serving(Settings(port=0, rate_limit="5/minute"), fake_engines()) as gateway:
        answer = post_batch(gateway, *[astronaut_jpeg] * 6)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert answer.json()["detail"].startswith("6 images exceed the rate of 5 images in 60 s")
