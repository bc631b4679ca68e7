"""The programs of examples/, each a process of its own, with a real gateway."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.sessions import report
from service.settings import Settings
from tests.conftest import eventually, free_port, serving
from tests.processes import stop
from tests.recordings import EMPTY, portrait
from tests.scenes import video
from tests.system.conftest import running

EXAMPLES = Path(__file__).parents[2] / "examples"
SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


@contextmanager
def example(name: str, gateway: str, port: int) -> Iterator[httpx.Client]:
    """A client of the running server of an example."""
    environment = {
        "GATEWAY": gateway,
        "HOOK": f"http://127.0.0.1:{port}/hook",
        "EXPRESSNET_WEBHOOK_SECRET": SECRET,
    }
    program = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES / name), "server:app"]
    process = subprocess.Popen([*program, "--port", str(port)], env=os.environ | environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            eventually(lambda: _answers(client))
            yield client
    finally:
        stop(process)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/openapi.json").is_success
    except httpx.TransportError:
        return False


def client_of(name: str, server: httpx.Client, *arguments: object) -> list[str]:
    return [sys.executable, str(EXAMPLES / name / "client.py"), str(server.base_url), *map(str, arguments)]


def test_the_teacher_of_a_lesson_sees_the_class_and_nobody_alone(
    astronaut_jpeg: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A minute is shown as soon as it begins, so that the test does not wait for its end.
    monkeypatch.setattr(report, "LATE_S", -60)
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(astronaut_jpeg)
    pupils = [f"pupil-{number}" for number in range(10)]
    with (
        serving(Settings(port=0, aggregate_only=5)) as gateway,
        example("lesson", gateway.url, free_port()) as server,
    ):
        assert server.get("/report").text == "lesson: too few participants\n"
        webcams = subprocess.Popen(client_of("lesson", server, photo, *pupils), stdout=subprocess.PIPE)
        try:
            eventually(lambda: "minute 1: happiness 100%" in server.get("/report").text)
        finally:
            webcams.terminate()
            output, _ = webcams.communicate(timeout=30)
        assert output == b""
        assert "pupil" not in server.get("/report").text
        assert server.post("/photos/pupil-0", content=astronaut_jpeg).content == b""
        refused = server.post("/photos/pupil-0", content=b"no photo")
        assert refused.status_code == 400


def test_the_timeline_of_a_call_is_that_of_the_customer(tmp_path: Path) -> None:
    there, away = np.hstack([portrait(), EMPTY]), np.hstack([EMPTY, portrait()])
    # In the second half only the agent is seen.
    call = video(tmp_path / "call.mp4", {number: there if number < 25 else away for number in range(50)})
    no_call = tmp_path / "no-call.mp4"
    no_call.write_bytes(b"no video")
    port = free_port()
    allowed: dict[str, Any] = {
        "webhook_hosts": "127.0.0.1",
        "webhook_private": True,
        "webhook_secret": SECRET,
    }
    with (
        running(purpose="customer_service", jurisdiction="de", **allowed) as gateway,
        example("call", gateway.url, port) as server,
    ):
        done, refused = (
            subprocess.run(client_of("call", server, file), capture_output=True, text=True, timeout=60)
            for file in (call, no_call)
        )
        assert done.stdout.splitlines() == [
            "0.0 to 0.8 s: happiness",
            "1.0 to 1.8 s: nobody",
            "call: happiness 100%, nobody 50%",
        ]
        assert (refused.returncode, refused.stderr[:4]) == (1, "400:")
        assert server.post("/hook", content=b"{}").status_code == 401
        assert gateway.metric('expressnet_webhooks_total{outcome="delivered"}') == 1
