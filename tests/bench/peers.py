"""The `fer` package, as a library and behind FastAPI, beside this service in alternating rounds.

`fer` pins old packages, so it has an environment of its own, which `make bench` builds. `fer` and this
service look for the same smallest face: 20 px beside MTCNN, 50 px beside OpenCV's Haar cascade.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from tests.bench.figures import SERVED_ROUNDS, Figure, Unmeasured, ratios, summary
from tests.bench.load import Outcome, Request, callers, errors_of, post, upload
from tests.bench.photos import photo
from tests.bench.process import NotRunning, last_line, started
from tests.conftest import encoded, free_port
from tests.system.conftest import running

ROOT = Path(__file__).parents[2]
ENVIRONMENT = Path(os.environ.get("PEERS", ".venv-peers"))
VARIABLES = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
CALLERS, SECONDS = 8, 4.0
START_LIMIT_S = 120

Faces = list[dict[str, object]]  # the faces of one answer


@dataclass(frozen=True)
class Mode:
    """One detector of `fer`, and the smallest face that it looks for, in pixels."""

    name: str
    label: str
    min_face_px: int

    @property
    def service_name(self) -> str:
        return f"this service, min face {self.min_face_px}"

    @property
    def fer_name(self) -> str:
        return f"fer behind FastAPI, {self.label}"


MODES = (Mode("mtcnn", "MTCNN", 20), Mode("haar", "Haar", 50))


def peers() -> Iterator[Figure | Unmeasured]:
    jpeg = encoded(photo(640, 480))
    for mode in MODES:
        try:
            yield summary(
                f"fer as a library, {mode.label}", "ms", _library(mode, jpeg), "640x480, without decoding"
            )
        except NotRunning as reason:
            yield Unmeasured(f"fer as a library, {mode.label}", str(reason))
    with running(max_in_flight_requests=256, max_images_per_worker=1000) as gateway:
        for mode in MODES:
            to_service = post(f"{gateway.url}/v1/emotions?min_face_px={mode.min_face_px}", jpeg)
            try:
                with _served(mode) as url:
                    yield from _compared(mode, to_service, upload(f"{url}/emotions", jpeg))
            except NotRunning as reason:
                yield Unmeasured(mode.fer_name, str(reason))


def _compared(mode: Mode, to_service: Request, to_fer: Request) -> Iterator[Figure]:
    expected = {request.port: _faces_of_lone_request(request) for request in (to_service, to_fer)}
    loads: dict[int, list[Outcome]] = {request.port: [] for request in (to_service, to_fer)}
    for _ in range(SERVED_ROUNDS):
        for request in (to_service, to_fer):
            loads[request.port].append(callers(CALLERS, repeat(request), SECONDS))
    rates = {port: [load.per_s for load in loads_of_port] for port, loads_of_port in loads.items()}
    for name, request in ((mode.service_name, to_service), (mode.fer_name, to_fer)):
        note = _note(loads[request.port], expected[request.port])
        yield summary(f"{name}, {CALLERS} callers", "images/s", rates[request.port], note)
    yield ratios(f"this service over fer, {mode.label}", rates[to_service.port], rates[to_fer.port])


def _faces_of_lone_request(request: Request) -> Faces:
    """The faces in the answer to a single caller. Earlier requests warm up the server."""
    load = callers(1, repeat(request, 5))
    if not load.answers:
        raise NotRunning(f"answers {', '.join(load.errors)} to a single caller")
    return _faces(load.answers[-1].body)


def _faces(body: bytes) -> Faces:
    """The faces of an answer. This service answers an object, whose other fields differ between requests."""
    answer = json.loads(body)
    faces: Faces = answer["faces"] if isinstance(answer, dict) else answer
    return faces


def _note(loads: list[Outcome], expected: Faces) -> str:
    """Faces found, errors by kind, and the number of answers with other faces than `expected`."""
    found = [_faces(answer.body) for load in loads for answer in load.answers]
    requests = len(found) + sum(len(load.failures) for load in loads)
    differing = sum(faces != expected for faces in found)
    return (
        f"{len(expected)} found; of {requests}: {errors_of(loads)}, {differing} differ from the answer to "
        "one caller"
    )


def _python() -> Path:
    """The Python of the environment. Raises `NotRunning` with the reason if the environment is missing."""
    python = ROOT / ENVIRONMENT / "bin" / "python"
    log = ROOT / ENVIRONMENT / "failed.log"
    if log.exists():
        raise NotRunning(f"not installed: {last_line(log.read_text())}")
    if not python.exists():
        raise NotRunning(f"not installed: there is no {ENVIRONMENT}, which `make bench` builds")
    return python


def _command(mode: Mode, *arguments: str) -> list[str]:
    return [str(_python()), "-m", "tests.bench.fer_service", mode.name, *arguments]


def _library(mode: Mode, jpeg: bytes) -> list[float]:
    """Milliseconds of each call of the library."""
    with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
        file.write(jpeg)
        file.flush()
        done = subprocess.run(
            _command(mode, "--time", file.name),
            cwd=ROOT,
            env=os.environ | VARIABLES,
            capture_output=True,
            text=True,
            timeout=START_LIMIT_S,
        )
    if done.returncode:
        raise NotRunning(f"does not run: {last_line(done.stderr)}")
    times: list[float] = json.loads(done.stdout.splitlines()[-1])
    return times


@contextmanager
def _served(mode: Mode) -> Iterator[str]:
    """The address of `fer` behind FastAPI, until the block ends."""
    port = free_port()
    with started(
        _command(mode, "--port", str(port)),
        lambda: _listens(port),
        folder=ROOT,
        environment=VARIABLES,
        limit_s=START_LIMIT_S,
    ):
        yield f"http://127.0.0.1:{port}"


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
