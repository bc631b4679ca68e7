"""Sessions of real gateways: a class of webcams, several gateways with Redis, and a Redis that dies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.asyncio.client import connect

from service.settings import Settings
from service.state import redis_store
from tests.conftest import Gateway, encoded, serving
from tests.fake_engine import fake_engines
from tests.redis_server import PASSWORD, Redis
from tests.system.conftest import Process, running

PUPILS = 30
FRAMES = 3


@pytest.fixture(scope="module")
def gateway() -> Iterator[Process]:
    with running() as process:
        yield process


def new_session(client: httpx.Client, **options: object) -> str:
    return str(client.post("/v1/sessions", json=options).raise_for_status().json()["id"])


def report(client: httpx.Client, id: str) -> Any:
    return client.get(f"/v1/sessions/{id}/report").raise_for_status().json()


@pytest.mark.alone
def test_a_class_that_sends_all_frames_at_once_loses_none(
    gateway: Process, astronaut: NDArray[np.uint8], faceless_jpeg: bytes
) -> None:
    """The worst moment of a lesson: 30 webcams send at the same time, again and again."""
    id = new_session(gateway.client, name="Lesson")
    webcam = encoded(astronaut)

    async def pupil(number: int) -> list[str]:
        url = f"{gateway.url.replace('http', 'ws', 1)}/v1/stream?session={id}&participant=pupil-{number}"
        kinds = []
        async with connect(url, compression=None, proxy=None) as stream:
            for frame in range(FRAMES):
                await stream.send(faceless_jpeg if number < 10 and frame == 0 else webcam)
                kinds.append(json.loads(await stream.recv())["type"])
        return kinds

    async def lesson() -> list[list[str]]:
        return await asyncio.gather(*map(pupil, range(PUPILS)))

    assert asyncio.run(lesson()) == [["frame"] * FRAMES] * PUPILS
    found = report(gateway.client, id)
    assert found["group"]["participants"] == PUPILS
    assert found["group"]["images"] == PUPILS * FRAMES
    assert found["group"]["absent"] == pytest.approx(10 / (PUPILS * FRAMES), abs=1e-4)
    assert found["group"]["image_share"]["happiness"] == 1
    assert [each["absent"] for each in found["participants"]].count(0.3333) == 10
    assert sum(each["group"]["images"] for each in found["bins"]) == PUPILS * FRAMES


@pytest.fixture
def _short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "TIMEOUT_S", 1.0)


def post(gateway: Gateway, image: bytes, id: str, participant: str) -> httpx.Response:
    return gateway.post(image, session=id, participant=participant)


@pytest.mark.usefixtures("_short_timeout")
def test_with_redis_every_gateway_answers_for_a_session(redis: Redis, astronaut_jpeg: bytes) -> None:
    redis.start()
    settings = Settings.model_validate({"port": 0, "redis_url": redis.url})
    with serving(settings, fake_engines()) as one, serving(settings, fake_engines()) as other:
        id = new_session(one.client)
        for gateway in (one, other, other):
            assert post(gateway, astronaut_jpeg, id, "anna").status_code == 200
        assert report(one.client, id) == report(other.client, id)
        assert report(one.client, id)["group"]["images"] == 3

        redis.kill()
        for answer in (
            post(one, astronaut_jpeg, id, "anna"),
            one.client.get(f"/v1/sessions/{id}/report"),
            one.client.delete(f"/v1/sessions/{id}"),
            one.client.post("/v1/sessions", json={}),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
            assert answer.headers["Retry-After"] == "5"
            assert PASSWORD not in answer.text
        # Requests without a session need no store, and the service stays ready.
        assert one.post(astronaut_jpeg).status_code == 200
        assert one.ready

        redis.start()
        # This Redis keeps nothing, so the session is gone; a new one works at once.
        assert post(one, astronaut_jpeg, id, "anna").status_code == 404
        again = new_session(other.client)
        assert post(one, astronaut_jpeg, again, "anna").status_code == 200
        assert other.client.delete(f"/v1/sessions/{again}").status_code == 204
        assert one.client.get(f"/v1/sessions/{again}/report").status_code == 404
