"""Faults around a real process: descriptors, a full disk, changed files, signals at every stage, hangs."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.core.errors import ModelFileError
from service.core.manifest import digest
from service.http.app import create_app
from service.settings import Settings
from tests.conftest import Gateway, encoded, eventually, free_port
from tests.system.conftest import Caller, Process, running, status
from training.export_classifier import interface
from training.formats import onnx_file

IN_FLIGHT = "expressnet_requests_in_flight"
LIMITS: dict[str, Any] = {
    "max_in_flight_requests": 64,
    "max_images_per_worker": 1000,
    "timeout_s": 60,
    # A caller that stops in the middle of a head must stay connected for the whole test.
    "client_timeout_s": 60,
}
MONTAGES = 6  # requests: two are processed and the others wait


@pytest.fixture(scope="module")
def montage(astronaut: NDArray[np.uint8]) -> bytes:
    """A photo with 25 faces: enough work for a signal to find requests in every stage."""
    return encoded(np.tile(astronaut, (5, 5, 1)))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = tmp_path_factory.mktemp("models") / "repository"
    shutil.copytree(Settings().model_repository, repository)
    return repository


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for temporary files of the process."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def gateway(models: Path, scratch: Path, port: int) -> Iterator[Process]:
    """One process for several tests of this module, in their order. The last of these tests kills it."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(scratch)
    try:
        with running(model_repository=models, port=port, **LIMITS) as process:
            yield process
    finally:
        os.environ.pop("TMPDIR") if before is None else os.environ.update(TMPDIR=before)


def is_closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_without_free_descriptors_new_callers_wait_or_are_refused_and_connected_ones_are_served(
    gateway: Process, astronaut_jpeg: bytes
) -> None:
    pid = gateway.process.pid
    assert gateway.post(astronaut_jpeg).status_code == 200
    served = psutil.Process(pid)
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (served.num_fds() + 3, hard))
    address = urlsplit(gateway.url)
    newcomers = [socket.create_connection((address.hostname or "", address.port or 0)) for _ in range(40)]
    try:
        assert gateway.post(astronaut_jpeg).status_code == 200, "a connected caller was not served"
        assert gateway.ready
        cpu_s = sum(served.cpu_times()[:2])
        time.sleep(2)
        assert sum(served.cpu_times()[:2]) - cpu_s < 1, "the process runs a busy loop"
        assert sum(map(is_closed, newcomers)) > 30, "there were enough descriptors for all callers"
    finally:
        for connection in newcomers:
            connection.close()

    def accepts_a_connection() -> bool:
        try:
            return httpx.get(f"{gateway.url}/livez", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    eventually(accepts_a_connection)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    assert gateway.post(astronaut_jpeg).status_code == 200


def test_changed_model_files_have_no_effect_until_the_next_start(
    gateway: Process, models: Path, astronaut_jpeg: bytes
) -> None:
    before = gateway.post(astronaut_jpeg).json()["faces"]
    files = [models / name / "1" / "model.onnx" for name in ("expressnet_moe", "yunet")]
    contents = [file.read_bytes() for file in files]
    settings = Settings(model_repository=models)

    def truncate(file: Path) -> None:
        with file.open("rb+") as opened:
            opened.truncate(1000)

    def swap(file: Path) -> None:
        file.write_bytes(contents[1 - files.index(file)])

    for change, message in ((Path.unlink, "cannot be read"), (truncate, "sha256"), (swap, "sha256")):
        for file in files:
            change(file)
            assert gateway.post(astronaut_jpeg).json()["faces"] == before
            assert gateway.ready
            with pytest.raises(ModelFileError, match=message):
                create_app(settings)
            file.write_bytes(contents[files.index(file)])


def callers_at_every_stage(gateway: Gateway, montage: bytes, photo: bytes) -> dict[str, list[Caller]]:
    callers = {
        "idle": [Caller(gateway.url, photo).send()],
        "answer half read": [Caller(gateway.url, photo, query="?include=landmarks,experts").send()],
    }
    first = callers["idle"][0].read(12)
    assert first == b"HTTP/1.1 200"
    assert callers["answer half read"][0].read(12) == b"HTTP/1.1 200"
    eventually(lambda: gateway.metric(IN_FLIGHT) == 0)
    callers["head half sent"] = [Caller(gateway.url, photo).send(0.0005)]
    callers["body half sent"] = [Caller(gateway.url, photo).send(0.5)]
    callers["body never finished"] = [Caller(gateway.url, photo, timeout_ms=3000).send(0.5)]
    # These requests are completed at once, so that none is answered before the last has arrived.
    callers["at work and waiting"] = [Caller(gateway.url, montage).send(0.999) for _ in range(MONTAGES)]
    for caller in callers["at work and waiting"]:
        caller.send()
    # A request is in flight only after its whole body has arrived.
    eventually(lambda: gateway.metric(IN_FLIGHT) == MONTAGES)
    return callers


@pytest.mark.alone
def test_sigkill_ends_every_connection_and_leaves_nothing_behind(
    gateway: Process, scratch: Path, montage: bytes, astronaut_jpeg: bytes
) -> None:
    callers = callers_at_every_stage(gateway, montage, astronaut_jpeg)
    assert gateway.stop(signal.SIGKILL) == -signal.SIGKILL
    for stage, waiting in callers.items():
        for caller in waiting:
            rest = caller.read()
            assert (b"\r\n\r\n" in rest) == (stage in ("idle", "answer half read")), stage
            caller.close()
    assert list(scratch.iterdir()) == []


@pytest.fixture
def process_on_a_full_disk(port: int) -> Iterator[tuple[subprocess.Popen[bytes], Gateway]]:
    """A new process at the same address, which writes its log to a full disk."""
    settings = {f"EXPRESSNET_{name.upper()}": str(value) for name, value in LIMITS.items()}
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", "serve"],
            env=os.environ | settings | {"EXPRESSNET_PORT": str(port), "EXPRESSNET_LOG_LEVEL": "debug"},
            stderr=full,
            stdout=full,
        )
    gateway = Gateway(f"http://127.0.0.1:{port}")

    try:
        eventually(lambda: is_ready(gateway), 90)
        yield process, gateway
    finally:
        gateway.client.close()
        process.kill()
        process.wait()


@pytest.mark.alone
def test_a_process_after_the_killed_one_works_without_a_log_and_sigterm_answers_admitted_requests(
    process_on_a_full_disk: tuple[subprocess.Popen[bytes], Gateway], montage: bytes, astronaut_jpeg: bytes
) -> None:
    process, gateway = process_on_a_full_disk
    assert gateway.post(astronaut_jpeg).json()["faces"][0]["emotion"] == "happiness"
    assert gateway.post(b"garbage").status_code == 400
    callers = callers_at_every_stage(gateway, montage, astronaut_jpeg)
    process.terminate()
    callers["body half sent"][0].send()
    answers = {stage: [caller.read() for caller in waiting] for stage, waiting in callers.items()}
    assert [status(answer) for answer in answers["at work and waiting"]] == [200] * MONTAGES
    assert [status(answer) for answer in answers["body half sent"]] == [200]
    assert [status(answer) for answer in answers["body never finished"]] == [504]
    assert answers["head half sent"] == [b""], "the gateway took half a head for a request"
    for stage in ("idle", "answer half read"):
        assert json.loads(answers[stage][0].partition(b"\r\n\r\n")[2])["faces"]
    assert process.wait(60) == 0
    for caller in (caller for waiting in callers.values() for caller in waiting):
        caller.close()


def test_an_unread_log_does_not_stop_the_service(astronaut_jpeg: bytes) -> None:
    port = free_port()
    settings = {"EXPRESSNET_PORT": str(port), "EXPRESSNET_LOG_LEVEL": "debug"}
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "serve"],
        env=os.environ | settings,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    gateway = Gateway(f"http://127.0.0.1:{port}")
    try:
        eventually(lambda: is_ready(gateway), 90)
        line_bytes = 150
        for _ in range(2 * (1 << 16) // line_bytes):  # a pipe holds 64 KB
            assert gateway.client.get("/livez").status_code == 200
        assert gateway.post(astronaut_jpeg).status_code == 200
        process.terminate()
        assert process.wait(60) == 0
        assert process.stderr
        assert len(process.stderr.read()) > 1 << 15, "the log was too short for this test"
    finally:
        gateway.client.close()
        process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()


def is_ready(gateway: Gateway) -> bool:
    try:
        return gateway.ready
    except httpx.TransportError:
        return False


class Hanging(nn.Module):
    """Never returns for a white face. For all other faces it answers the first label."""

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        iterations = 0
        while int(faces.min()) > 250:
            iterations += 1
        count = faces.shape[0]
        probabilities = torch.zeros([count, 8])
        probabilities[:, 0] = 1.0
        return probabilities, torch.zeros([count, 2, 4]), torch.zeros([count, 1]), torch.ones([count, 1])


def test_a_hanging_model_makes_requests_time_out_and_does_not_keep_the_process_alive(
    tmp_path: Path, astronaut_jpeg: bytes
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(Settings().model_repository, repository)
    file = repository / "expressnet_moe" / "1" / "model.onnx"
    file.write_bytes(onnx_file(Hanging(), interface(48)))
    manifest = repository / "expressnet_moe" / "manifest.json"
    changed = json.loads(manifest.read_text())
    changed["sha256"]["model.onnx"] = digest(file)
    manifest.write_text(json.dumps(changed))
    white = encoded(np.full((64, 64, 3), 255, np.uint8))
    with running(model_repository=repository, timeout_s=2, grace_s=1) as gateway:
        assert gateway.post(astronaut_jpeg, detect=False).json()["faces"][0]["emotion"] == "neutral"
        for image in (white, astronaut_jpeg, astronaut_jpeg):
            late = gateway.post(image, detect=False)
            assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        assert gateway.metric('expressnet_rejected_total{reason="deadline_exceeded"}') == 3
        assert gateway.metric(IN_FLIGHT) == gateway.metric("expressnet_queue_depth_faces") == 0
        assert gateway.client.get("/livez").status_code == 200
        assert gateway.stop() == 1
        eventually(lambda: any("did not stop in time" in line for line in gateway.log))
