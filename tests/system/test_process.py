"""Real processes and real signals: a start, a refused start, an overload, and an orderly stop."""

from __future__ import annotations

import json
import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from service.cli import app
from service.settings import Settings
from tests.conftest import encoded, eventually
from tests.system.conftest import Caller, command, running, status


def start_error(**settings: str) -> str:
    """The message of a start that must fail."""
    process = command({f"EXPRESSNET_{name.upper()}": value for name, value in settings.items()})
    _, stderr = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in stderr
    return stderr.strip()


def test_a_process_answers_a_photo_and_stops_in_good_order(astronaut_jpeg: bytes, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    with running(purpose="research", jurisdiction="de", audit_file=audit) as gateway:
        answer = gateway.post(astronaut_jpeg).json()
        (face,) = answer["faces"]
        assert face["emotion"] == "happiness"
        assert gateway.stop(signal.SIGINT) == 0
    log = [json.loads(line) for line in gateway.log]
    assert log[0]["event"] == "declared"
    assert any(line["event"] == "duty" and "Article 50(3)" in line["source"] for line in log)
    (line,) = map(json.loads, audit.read_text().splitlines())
    assert (line["request_id"], line["purpose"], line["faces"]) == (answer["request_id"], "research", 1)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"port": "70000"}, "EXPRESSNET_PORT=70000"),
        ({"max_batch_faces": "none"}, "EXPRESSNET_MAX_BATCH_FACES=none"),
        ({"body_limit_mb": "5"}, "EXPRESSNET_BODY_LIMIT_MB"),
        ({"queue_limit_faces": "4"}, "EXPRESSNET_QUEUE_LIMIT_FACES"),
        ({"host": "0.0.0.0"}, "EXPRESSNET_KEYS_FILE"),
        ({"purpose": "workplace", "jurisdiction": "de"}, "Article 5(1)(f) of Regulation (EU) 2024/1689"),
    ],
)
def test_a_bad_setting_stops_the_start_with_one_sentence(
    settings: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command reads its settings before it does anything else, so these cases need no process."""
    monkeypatch.setattr("service.serving.server.serve", lambda _: pytest.fail("the gateway starts"))
    environment = {f"EXPRESSNET_{name.upper()}": value for name, value in settings.items()}
    refused = CliRunner().invoke(app, ["serve"], env=environment)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert expected in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_bad_setting_stops_a_process_with_one_sentence() -> None:
    message = start_error(model_repository="no/models")
    assert "EXPRESSNET_MODEL_REPOSITORY" in message
    assert str(Path("no/models/expressnet_moe/manifest.json").absolute()) in message
    assert len(message.splitlines()) == 1


def test_a_port_that_is_taken_stops_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        message = start_error(port=str(taken.getsockname()[1]))
    assert "address already in use" in message


def test_a_swapped_model_file_is_refused_with_both_digests(tmp_path: Path) -> None:
    repository = tmp_path / "models"
    shutil.copytree(Settings().model_repository, repository)
    model = repository / "expressnet_moe" / "1" / "model.onnx"
    model.write_bytes(model.read_bytes() + b"x")
    message = start_error(model_repository=str(repository))
    manifest = json.loads((repository / "expressnet_moe" / "manifest.json").read_text())
    assert manifest["sha256"]["model.onnx"] in message
    assert message.count("sha256") == 1


@pytest.mark.alone
def test_two_hundred_at_once_against_a_queue_of_64(astronaut_jpeg: bytes) -> None:
    with running(
        max_in_flight_requests=64, queue_limit_faces=64, max_images_per_worker=1000, timeout_s=60
    ) as gateway:
        limits = httpx.Limits(max_connections=200)
        with httpx.Client(base_url=gateway.url, timeout=90, limits=limits) as client:

            def post(_: int) -> httpx.Response:
                return client.post(
                    "/v1/emotions", content=astronaut_jpeg, headers={"Content-Type": "image/jpeg"}
                )

            with ThreadPoolExecutor(200) as pool:
                responses = list(pool.map(post, range(200)))
        answered = [response for response in responses if response.status_code == 200]
        refused = [response for response in responses if response.status_code == 429]
        assert len(answered) + len(refused) == 200
        assert len(answered) >= 64
        assert len(refused) > 0
        assert all(len(response.json()["faces"]) == 1 for response in answered)
        assert all(response.json()["code"] == "overloaded" for response in refused)
        assert all(int(response.headers["Retry-After"]) >= 1 for response in refused)
        assert gateway.metric('expressnet_rejected_total{reason="overloaded"}') == len(refused)
        assert gateway.post(astronaut_jpeg).status_code == 200


@pytest.mark.alone
def test_sigterm_with_fifty_in_flight_answers_them_all(astronaut: NDArray[np.uint8]) -> None:
    montage = encoded(np.tile(astronaut, (5, 5, 1)), quality=30)
    limits: dict[str, Any] = {
        "max_in_flight_requests": 64,
        "queue_limit_faces": 5000,
        "max_images_per_worker": 1000,
    }
    with running(**limits, timeout_s=90, grace_s=90) as gateway:
        # All requests are sent up to their last bytes, then completed. Each has 25 faces, so none is answered
        # before the last has arrived.
        callers = [
            Caller(gateway.url, montage, timeout_ms=90_000, query="?max_faces=128").send(0.999)
            for _ in range(50)
        ]
        for caller in callers:
            caller.send()
        eventually(lambda: gateway.metric("expressnet_requests_in_flight") == 50)
        exit_code = gateway.stop()
        assert [status(caller.read()) for caller in callers] == [200] * 50
        for caller in callers:
            caller.close()
        assert exit_code == 0
