"""With `EXPRESSNET_AGGREGATE_ONLY` no door tells anything of one face, whatever engine stands behind it."""

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

LEAST = 5
KEYS = {"request_id", "model", "name", "version", "image", "width", "height", "group", "min_faces"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="module", params=["embedded", "fake", "triton"])
def groups(request: pytest.FixtureRequest, folder: Path) -> Iterator[tuple[Gateway, Path]]:
    """A gateway that answers groups alone, and its audit file."""
    file = folder / f"{request.param}.jsonl"
    options = {"port": 0, "aggregate_only": LEAST, "audit_file": file}
    if request.param == "triton":
        server: TritonServer = request.getfixturevalue("triton_server")
        options |= {"engine": "triton", "triton_url": server.url}
    engines = fake_engines() if request.param == "fake" else None
    with serving(Settings.model_validate(options), engines) as served:
        yield served, file


def names(value: object) -> set[str]:
    """Every key of a JSON value."""
    if isinstance(value, dict):
        return set(value).union(*map(names, value.values()))
    return set().union(*map(names, value)) if isinstance(value, list) else set()


def test_few_faces_are_answered_by_nothing_through_any_door(
    groups: tuple[Gateway, Path], astronaut: NDArray[np.uint8], astronaut_jpeg: bytes
) -> None:
    gateway, _ = groups
    letters = base64.b64encode(astronaut_jpeg).decode()
    few = encoded(np.tile(astronaut, (2, 2, 1)))
    answers = [
        gateway.post(astronaut_jpeg),
        gateway.client.post("/v1/emotions", files={"image": ("a.jpg", astronaut_jpeg)}),
        gateway.client.post("/v1/emotions", json={"image": letters}),
        gateway.post(few),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert names(answer.json()) == KEYS
        assert answer.json()["group"] == {"min_faces": LEAST}
    images = [("images", (str(i), astronaut_jpeg)) for i in range(LEAST + 1)]
    batch = gateway.client.post("/v1/emotions/batch", files=images).json()
    assert [item["result"]["group"] for item in batch["results"]] == [{"min_faces": LEAST}] * (LEAST + 1)
    assert names(batch) == KEYS | {"results", "index", "result"}


def test_enough_faces_are_answered_by_their_mean(
    groups: tuple[Gateway, Path], astronaut: NDArray[np.uint8]
) -> None:
    gateway, _ = groups
    answer = gateway.post(encoded(np.tile(astronaut, (2, 3, 1)))).json()
    assert names(answer) == KEYS | {"face_count", "probabilities", *EMOTIONS}
    assert answer["group"]["face_count"] == 6
    emotions = answer["group"]["probabilities"]
    assert tuple(emotions) == EMOTIONS
    assert max(emotions, key=emotions.__getitem__) == "happiness"
    assert all(re.fullmatch(r"[01]\.\d[05]?", json.dumps(share)) for share in emotions.values())


@pytest.mark.parametrize("name", EmotionQuery.model_fields)
def test_nobody_chooses_the_faces_or_asks_for_more_of_them(
    name: str, groups: tuple[Gateway, Path], astronaut: NDArray[np.uint8]
) -> None:
    gateway, _ = groups
    crowd = encoded(np.tile(astronaut, (2, 3, 1)))
    asked = {"include": ["quality", "landmarks", "experts", "engagement", ""], "detect": ["false", "true"]}
    for value in asked.get(name, ["1", str(LEAST), "32"]):
        answer = gateway.post(crowd, **{name: value})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert name in answer.json()["detail"]
    parts = [("images", ("a", crowd))]
    batch = gateway.client.post("/v1/emotions/batch", files=parts, params={name: "1"})
    assert (batch.status_code, batch.json()["code"]) == (422, "invalid_request")


def test_metrics_and_audit_know_no_more_than_the_answers(
    groups: tuple[Gateway, Path], astronaut: NDArray[np.uint8], astronaut_jpeg: bytes
) -> None:
    gateway, file = groups
    gateway.post(astronaut_jpeg)
    answered = gateway.post(encoded(np.tile(astronaut, (2, 3, 1))))
    metrics = gateway.client.get("/metrics").text
    for line in metrics.splitlines():
        if line.startswith(("expressnet_predictions_total", "expressnet_confidence", "expressnet_face_size")):
            assert line.rpartition(" ")[2] == "0.0", line
    lines = audited(file, answered.headers["X-Request-ID"])
    assert [(line["faces"], line["verdicts"]) for line in lines[-2:]] == [(0, {}), (6, {})]
    assert not names(lines) & {*EMOTIONS, "box", "probabilities", "confidence", "emotion"}


def test_no_time_or_count_tells_whether_there_is_a_face(
    groups: tuple[Gateway, Path], astronaut_jpeg: bytes
) -> None:
    """Only an image with a face reaches the classifier."""
    gateway, file = groups
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
    """The lines of an audit once that of a request is there."""
    eventually(lambda: last in file.read_text())
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_the_document_promises_groups_and_no_parameters(groups: tuple[Gateway, Path]) -> None:
    gateway, _ = groups
    document = gateway.client.get("/openapi.json").json()
    for path, model in (("/v1/emotions", "GroupAnswer"), ("/v1/emotions/batch", "GroupBatchAnswer")):
        operation = document["paths"][path]["post"]
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{model}"}
        assert all("/X-" in parameter["$ref"] for parameter in operation["parameters"])
    assert not {"Face", "Box", "EmotionsAnswer", "BatchAnswer"} & set(document["components"]["schemas"])
    card = gateway.client.get("/v1/models/expressnet_moe").json()
    assert card["deployment"]["aggregate_only"] == LEAST
