"""A gateway for each engine and detector: the whole suite runs once for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.settings import Settings
from tests.conftest import Gateway, serving
from tests.fake_engine import fake_engines
from tests.triton.server import TritonServer


@pytest.fixture(
    scope="session",
    params=["embedded", "embedded-yunet_mtcnn", "fake", "triton", "triton-yunet_mtcnn"],
)
def gateway(request: pytest.FixtureRequest) -> Iterator[Gateway]:
    # The limit is high so that a slow machine refuses no request. No test of the contract is about overload.
    engine, _, detector = request.param.partition("-")
    settings = Settings(port=0, max_images_per_worker=1000, detector=detector or "yunet")
    if engine == "triton":
        server: TritonServer = request.getfixturevalue("triton_server")
        with serving(settings.model_copy(update={"engine": "triton", "triton_url": server.url})) as served:
            yield served
        return
    engines = fake_engines() if engine == "fake" else None
    with serving(settings, engines) as served:
        yield served
