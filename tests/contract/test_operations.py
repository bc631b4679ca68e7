"""Model cards, health, metrics and documentation."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from service.core.manifest import EMOTIONS
from tests.conftest import Gateway


def test_models(gateway: Gateway) -> None:
    classifier, detector = gateway.client.get("/v1/models").json()["models"]
    assert (classifier["name"], classifier["kind"]) == ("expressnet_moe", "classifier")
    assert (detector["name"], detector["kind"]) == (gateway.detector, "detector")
    for each in (classifier, detector):
        assert set(each["sha256"]) == {"model.onnx", "model.pt"}
    card = gateway.client.get("/v1/models/expressnet_moe").json()
    assert tuple(card["labels"]) == EMOTIONS
    assert card["intended_use"]
    assert card["limits"]
    assert card["training"]["licences"]
    assert 0 < card["verdict"]["threshold"] < 1
    assert card["metrics"]["PublicTest"]["accuracy"]["samples"] > 3000


def test_health(gateway: Gateway) -> None:
    assert gateway.client.get("/livez").json() == {"status": "alive"}
    assert gateway.client.head("/livez").status_code == gateway.client.head("/readyz").status_code == 200
    assert gateway.client.get("/readyz").json() == {
        "status": "ready",
        "warmed_up": True,
        "draining": False,
        "engines": {"expressnet_moe": "up", gateway.detector: "up"},
    }


def test_metrics_are_all_exposed(gateway: Gateway, astronaut_jpeg: bytes) -> None:
    gateway.post(astronaut_jpeg)
    gateway.post(b"", media_type="image/jpeg")
    names = {family.name for family in text_string_to_metric_families(gateway.client.get("/metrics").text)}
    assert names >= {
        f"expressnet_{name}"
        for name in (
            "http_requests",
            "http_request_duration_seconds",
            "stage_duration_seconds",
            "batch_size_faces",
            "queue_depth_faces",
            "rejected",
            "faces_per_image",
            "face_size_pixels",
            "predictions",
            "confidence",
            "engine_up",
            "model_info",
        )
    }


def test_routes_of_unknown_paths_share_one_label(gateway: Gateway) -> None:
    for path in ("/a", "/b", "/v1/emotions/../c"):
        gateway.client.get(path)
    exposed = gateway.client.get("/metrics").text
    assert 'route="unmatched"' in exposed
    assert 'route="/a"' not in exposed


def test_documentation(gateway: Gateway) -> None:
    page = gateway.client.get("/docs")
    assert page.status_code == 200
    assert "https://" not in page.text
    addresses = re.findall(r"""(?:src|href)="([^"]+)"|url: '([^']+)'""", page.text)
    assert len(addresses) == 4
    for address in map("".join, addresses):
        # The addresses are relative, so the page also works behind a proxy that adds a path.
        assert not address.startswith(("/", "http"))
        assert gateway.client.get(f"/{address}").status_code == 200
    with_slash = gateway.client.get("/docs/")
    assert with_slash.status_code == 200
    assert all(f"../{''.join(address)}" in with_slash.text for address in addresses)
    document = gateway.client.get("/openapi.json").json()
    operation = document["paths"]["/v1/emotions"]["post"]
    body = operation["requestBody"]
    assert {"application/octet-stream", "multipart/form-data", "application/json"} == set(body["content"])
    assert "image/jpeg" in body["description"]
    assert {parameter.get("name", parameter.get("$ref")) for parameter in operation["parameters"]} == {
        "max_faces",
        "min_face_px",
        "min_detection_confidence",
        "detect",
        "include",
        "prior",
        "session",
        "participant",
        "#/components/parameters/X-Request-ID",
        "#/components/parameters/X-Timeout-Ms",
    }
