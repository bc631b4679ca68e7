"""Photos for the tests, a gateway on a real server, and how the tests run."""

from __future__ import annotations

import io
import itertools
import os
import re
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
import skimage.data
import structlog
from numpy.typing import NDArray
from PIL import Image

from service.assembly import Engines
from service.http.app import create_app
from service.serving.server import Server, bind, bind_admin, make_server
from service.settings import Settings
from tests.workers import WORKER, run_lock, scheduler

if TYPE_CHECKING:
    from fastapi import FastAPI
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

    from tests.redis_server import Redis
    from tests.triton.server import TritonServer

# Pytest captures the log of the services, and shows it with a failed test. Otherwise the log of a service in
# the background would be in the output of a command that a test checks.
structlog.configure(
    processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
)

# `TESTS_MUST_NOT_SKIP` allows a skip whose reason contains this text.
OPTIONAL = "which .ci/run cannot install"

ASTRONAUT_FACE = (181, 61, 268, 172)  # xyxy px, drawn by hand around the face


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return scheduler(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick tests run last, so that at the end no worker waits for a long test of another worker."""
    items.sort(key=lambda item: re.match(r"tests/unit/(?!training/)", item.nodeid) is not None)


# This hook runs before the one of pytest-timeout, whose clock would count the wait.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool | None, bool | None]:
    with run_lock(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With `TESTS_MUST_NOT_SKIP` a skip is a failure, since everything that the tests need is installed."""
    report = yield
    if report.skipped and os.environ.get("TESTS_MUST_NOT_SKIP") and OPTIONAL not in str(report.longrepr):
        report.outcome = "failed"
    return report


def encoded(image: NDArray[np.uint8] | Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(file, kind, **({"quality": 95} if kind == "JPEG" else {}) | options)
    return file.getvalue()


def as_stored(upright: Image.Image, orientation: int) -> Image.Image:
    """An upright picture as a camera stores it together with this EXIF orientation, 1 to 8."""
    transposition = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    return upright if transposition is None else upright.transpose(transposition)


@pytest.fixture(scope="session")
def astronaut() -> NDArray[np.uint8]:
    """uint8 [512,512,3], one smiling face."""
    pixels: NDArray[np.uint8] = skimage.data.astronaut()
    return pixels


@pytest.fixture(scope="session")
def astronaut_jpeg(astronaut: NDArray[np.uint8]) -> bytes:
    return encoded(astronaut)


@pytest.fixture(scope="session")
def faceless_jpeg() -> bytes:
    ramp = np.linspace(0, 255, 320, dtype=np.uint8)
    return encoded(np.repeat(np.tile(ramp, (240, 1))[:, :, None], 3, axis=2))


class Gateway:
    """A running service: its address, a client, and its metrics.

    verify: how the client checks certificates. The default is no check, since a client takes long to load the
    certificate authorities of the system.
    """

    def __init__(
        self,
        url: str,
        server: Server | None = None,
        verify: ssl.SSLContext | bool = False,
        detector: str = "yunet",
    ) -> None:
        self.url = url
        self.detector = detector
        self._server = server
        self._verify = verify
        self.client = self._new_client()

    def _new_client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, verify=self._verify)

    def reconnect(self) -> None:
        """Make a new client, since the service may close a connection that was idle for long."""
        self.client.close()
        self.client = self._new_client()

    def post(self, image: bytes, *, media_type: str = "image/jpeg", **query: str | float) -> httpx.Response:
        return self.client.post(
            "/v1/emotions", content=image, headers={"Content-Type": media_type}, params=query
        )

    @property
    def ready(self) -> bool:
        return self.client.get("/readyz").status_code == 200

    def drain(self) -> None:
        """Start draining, as the first SIGTERM does, without stopping the server."""
        assert self._server is not None
        self._server.readiness.drain()

    def metric(self, sample: str) -> float:
        """The value of one sample, or 0 if `/metrics` does not have the sample yet."""
        for line in self.client.get("/metrics").text.splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        return 0.0


@contextmanager
def serving(
    settings: Settings,
    engines: Engines | None = None,
    *,
    until_ready: bool = True,
    verify: ssl.SSLContext | bool = False,
    app: FastAPI | None = None,
) -> Iterator[Gateway]:
    """Run a real uvicorn server with its own event loop until the block ends. Settings should have port 0.

    app: an application that `create_app` made and a test has changed. The default is a new application.
    """
    server = make_server(app or create_app(settings, engines), settings)
    listeners = [listener for listener in (bind(settings), bind_admin(settings)) if listener]
    thread = threading.Thread(target=server.run, kwargs={"sockets": listeners}, daemon=True)
    thread.start()
    scheme = "http" if settings.tls_certificate is None else "https"
    gateway = Gateway(
        f"{scheme}://127.0.0.1:{listeners[0].getsockname()[1]}", server, verify, settings.detector
    )
    try:
        eventually(lambda: server.started or not thread.is_alive())
        assert server.started, "the server did not start"
        if until_ready:
            eventually(lambda: gateway.ready)
        yield gateway
    finally:
        gateway.client.close()
        server.should_exit = True
        thread.join(30)
        for listener in listeners:
            listener.close()
        assert not thread.is_alive(), "the server did not stop"


def eventually(condition: Callable[[], object], timeout_s: float = 30) -> None:
    """Wait until `condition` holds. Fail after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"the condition does not hold after {timeout_s:g} s"
        time.sleep(0.02)


def _ports() -> Iterator[int]:
    """Ports below the ephemeral range, so that the system assigns none of them to another process.

    Each worker of pytest-xdist has its own range. The first port depends on the process id, since another run
    of the tests may use the same range.
    """
    worker = int((WORKER or "gw0").removeprefix("gw"))
    first, count = 20_000 + 1000 * (worker % 12), 1000
    for number in itertools.count(os.getpid()):
        yield first + number % count


_PORTS = _ports()


def free_port() -> int:
    """A port on which no process listens now."""
    for port in _PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("there is always another port")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A redis-server that a test starts."""
    # Imported here, since that module imports this one.
    from tests.redis_server import Redis

    if shutil.which("redis-server") is None:
        pytest.skip("not installed: redis-server")
    server = Redis(tmp_path)
    yield server
    server.kill()


@pytest.fixture(scope="session")
def triton_server() -> Iterator[TritonServer]:
    """A server with all models for the whole session. Every test leaves it unchanged."""
    # Imported here, since that module imports this one.
    from tests.triton.server import triton

    models = Settings().model_repository
    names = [model.name for model in models.iterdir()]
    with triton(models, names=names, torchscript=True) as server:
        yield server
