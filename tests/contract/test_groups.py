"""With `EXPRESSNET_AGGREGATE_ONLY` no endpoint reports anything about a single face, on any engine."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.api.schemas import EmotionQuery
from service.core.manifest import EMOTIONS
from service.core.timings import STAGES
from service.settings import Settings
from tests.conftest import Gateway, encoded, eventually, serving
from tests.fake_engine import fake_engines
from tests.triton.server import TritonServer

MIN_FACES = 5
KEYS = {"request_id", "model", "name", "version", "prior", "image", "width", "height", "group", "min_faces"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module", params=["embedded", "fake", "triton"])
def gateway_and_audit(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[Gateway, Path]]:
    """A gateway that answers only for groups, and its audit file."""
    file = folder / f"{request.param}.jsonl"
    options = {"port": 0, "aggregate_only": MIN_FACES, "audit_file": file}
    if request.param == "triton":
        server: TritonServer = request.getfixturevalue("triton_server")
        options |= {"engine": "triton", "triton_url": server.url}
    engines = fake_engines() if request.param == "fake" else None
    with serving(Settings.model_validate(options), engines) as served:
        yield served, file


def keys_of(value: object) -> set[str]:
    """Every key of a JSON value."""
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()


def test_too_few_faces_get_no_result_from_any_endpoint(
    gateway_and_audit: tuple[Gateway, Path], astronaut: NDArray[np.uint8], astronaut_jpeg: bytes
) -> None:
    gateway, _ = gateway_and_audit
    text = base64.b64encode(astronaut_jpeg).decode()
    few = encoded(np.tile(astronaut, (2, 2, 1)))
    answers = [
        gateway.post(astronaut_jpeg),
        gateway.client.post("/v1/emotions", files={"image": ("a.jpg", astronaut_jpeg)}),
        gateway.client.post("/v1/emotions", json={"image": text}),
        gateway.post(few),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert keys_of(answer.json()) == KEYS
        assert answer.json()["group"] == {"min_faces": MIN_FACES}
    images = [("images", (str(i), astronaut_jpeg)) for i in range(MIN_FACES + 1)]
    batch = gateway.client.post("/v1/emotions/batch", files=images).json()
    assert [item["result"]["group"] for item in batch["results"]] == [{"min_faces": MIN_FACES}] * (
        MIN_FACES + 1
    )
    assert keys_of(batch) == KEYS | {"results", "index", "result"}


def test_enough_faces_get_their_mean(
    gateway_and_audit: tuple[Gateway, Path], astronaut: NDArray[np.uint8]
) -> None:
    gateway, _ = gateway_and_audit
    answer = gateway.post(encoded(np.tile(astronaut, (2, 3, 1)))).json()
    assert keys_of(answer) == KEYS | {"face_count", "probabilities", *EMOTIONS}
    assert answer["group"]["face_count"] == 6
    emotions = answer["group"]["probabilities"]
    assert tuple(emotions) == EMOTIONS
    assert max(emotions, key=emotions.__getitem__) == "happiness"
    assert all(re.fullmatch(r"[01]\.\d[05]?", json.dumps(share)) for share in emotions.values())


@pytest.mark.parametrize("name", EmotionQuery.model_fields)
def test_every_query_parameter_is_refused(
    name: str, gateway_and_audit: tuple[Gateway, Path], astronaut: NDArray[np.uint8]
) -> None:
    gateway, _ = gateway_and_audit
    crowd = encoded(np.tile(astronaut, (2, 3, 1)))
    values = {"include": ["quality", "landmarks", "experts", "engagement", ""], "detect": ["false", "true"]}
    for value in values.get(name, ["1", str(MIN_FACES), "32"]):
        answer = gateway.post(crowd, **{name: value})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert name in answer.json()["detail"]
    parts = [("images", ("a", crowd))]
    batch = gateway.client.post("/v1/emotions/batch", files=parts, params={name: "1"})
    assert (batch.status_code, batch.json()["code"]) == (422, "invalid_request")


def test_metrics_and_audit_reveal_no_more_than_the_answers(
    gateway_and_audit: tuple[Gateway, Path], astronaut: NDArray[np.uint8], astronaut_jpeg: bytes
) -> None:
    gateway, file = gateway_and_audit
    gateway.post(astronaut_jpeg)
    answer = gateway.post(encoded(np.tile(astronaut, (2, 3, 1))))
    metrics = gateway.client.get("/metrics").text
    for line in metrics.splitlines():
        if line.startswith(("expressnet_predictions_total", "expressnet_confidence", "expressnet_face_size")):
            assert line.rpartition(" ")[2] == "0.0", line
    lines = audited(file, answer.headers["X-Request-ID"])
    assert [(line["faces"], line["verdicts"]) for line in lines[-2:]] == [(0, {}), (6, {})]
    assert not keys_of(lines) & {*EMOTIONS, "box", "probabilities", "confidence", "emotion"}


def test_no_time_or_count_reveals_whether_an_image_has_a_face(
    gateway_and_audit: tuple[Gateway, Path], astronaut_jpeg: bytes
) -> None:
    """Only an image with a face reaches the classifier, so the time of this stage would reveal the face."""
    gateway, file = gateway_and_audit
    answer = gateway.post(astronaut_jpeg)
    assert set(re.findall(r"(\w+);dur=0\.0,", answer.headers["Server-Timing"])) == set(STAGES)
    (line,) = audited(file, answer.headers["X-Request-ID"])[-1:]
    assert [name for name, spent_ms in line["timings_ms"].items() if spent_ms] == ["total"]
    late = gateway.client.post(
        "/v1/emotions", content=astronaut_jpeg, headers={"Content-Type": "image/jpeg", "X-Timeout-Ms": "1"}
    )
    assert not re.search("align|classify", late.json()["detail"])
    metrics = gateway.client.get("/metrics").text
    assert 'stage="classify"' not in metrics
    assert "expressnet_batch_size_faces_count 0.0" in metrics


def audited(file: Path, last: str) -> list[dict[str, Any]]:
    """The lines of an audit file, as soon as the line of the request `last` is in the file."""
    eventually(lambda: last in file.read_text())
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_document_has_groups_and_no_choice_of_faces(gateway_and_audit: tuple[Gateway, Path]) -> None:
    gateway, _ = gateway_and_audit
    document = gateway.client.get("/openapi.json").json()
    for path, model in (("/v1/emotions", "GroupAnswer"), ("/v1/emotions/batch", "GroupBatchAnswer")):
        operation = document["paths"][path]["post"]
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{model}"}
        names = {parameter["name"] for parameter in operation["parameters"] if "name" in parameter}
        assert names == ({"session", "participant"} if path == "/v1/emotions" else set())
    assert not {"Face", "Box", "EmotionsAnswer", "BatchAnswer"} & set(document["components"]["schemas"])
    card = gateway.client.get("/v1/models/expressnet_moe").json()
    assert card["deployment"]["aggregate_only"] == MIN_FACES
