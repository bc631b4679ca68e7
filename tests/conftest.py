"""Photos that the tests send, and a way to run a gateway as its users meet it."""

from __future__ import annotations

import io
import itertools
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
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
from tests.workers import WORKER, scheduler, turn

if TYPE_CHECKING:
    from fastapi import FastAPI
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

    from tests.triton.server import TritonServer

# Else what services tell, in the background too, would be in the output of whatever command is tested then.
# Pytest keeps it, and shows it with a test that fails.
structlog.configure(
    processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
)

# A skip for this reason is a failure nowhere.
OPTIONAL = "which .ci/run cannot install"

ASTRONAUT_FACE = (181, 61, 268, 172)  # xyxy px, drawn by hand around the face


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    return scheduler(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Quick ones last, or else one worker would wait at the end for what another began late."""
    items.sort(key=lambda item: re.match(r"tests/unit/(?!training/)", item.nodeid) is not None)


# Before pytest-timeout, whose clock would count the wait.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool | None, bool | None]:
    with turn(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where everything that the tests need is installed on purpose, a skip is a failure."""
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
    """A picture as a camera stores it that was held so that it writes this EXIF orientation, 1 to 8."""
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    return upright if turn is None else upright.transpose(turn)


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
    """A served application: its address, a client, and its metrics by difference.

    verify: by default nothing, since a client takes long to load the authorities that the system trusts.
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
        """The service may close a connection at any moment once it has been idle for long."""
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
        """What the first SIGTERM does, without stopping the server."""
        assert self._server is not None
        self._server.readiness.drain()

    def metric(self, sample: str) -> float:
        """The value of one sample line, 0 if it is not there yet."""
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
    """A real uvicorn server with its own event loop, until the block ends; settings should have port 0.

    app: one of `create_app` that a test has changed.
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
    """Wait until `condition` holds; fail when it never does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def _ports() -> Iterator[int]:
    """Below those that the system gives away, so that none is taken between its choice and its use.

    Each worker of pytest-xdist has its own, and begins anywhere among them: somebody else may run tests, too.
    """
    worker = int((WORKER or "gw0").removeprefix("gw"))
    first, count = 20_000 + 1000 * (worker % 12), 1000
    for number in itertools.count(os.getpid()):
        yield first + number % count


_PORTS = _ports()


def free_port() -> int:
    """A port that nothing listens on now."""
    for port in _PORTS:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("there is always another port")


@pytest.fixture(scope="session")
def triton_server() -> Iterator[TritonServer]:
    """One that every test leaves as it found it."""
    # Imported late: it needs this module.
    from tests.triton.server import triton

    models = Settings().model_repository
    with triton(models, names=[model.name for model in models.iterdir()]) as server:
        yield server
