"""Small videos for the tests, and a client of `/v1/recordings`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import skimage.data
from numpy.typing import NDArray

from tests.conftest import Gateway, eventually
from tests.scenes import video

EMPTY = np.zeros((512, 512, 3), np.uint8)
RECORDINGS = "/v1/recordings"


def portrait() -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = skimage.data.astronaut()
    return pixels


def clip(folder: Path, *, seconds: float = 1, away: range = range(0), kind: str = "mp4") -> bytes:
    """A video with every fifth of 25 frames per second, and the last one. Nobody is in the frames `away`."""
    count = round(25 * seconds)
    frames = {
        number: EMPTY if number in away else portrait() for number in [*range(0, count - 1, 5), count - 1]
    }
    return video(folder / f"clip.{kind}", frames).read_bytes()


def send(
    gateway: Gateway, data: bytes, headers: dict[str, str] | None = None, **query: Any
) -> httpx.Response:
    sent = {"Content-Type": "video/mp4"} | (headers or {})
    return gateway.client.post(RECORDINGS, content=data, headers=sent, params=query)


def state(gateway: Gateway, id: str) -> dict[str, Any]:
    answer = gateway.client.get(f"{RECORDINGS}/{id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ended(gateway: Gateway, id: str) -> dict[str, Any]:
    """The last state of a recording."""
    eventually(lambda: state(gateway, id)["state"] not in ("queued", "working"))
    return state(gateway, id)


def done(gateway: Gateway, data: bytes, **query: Any) -> str:
    """The id of a recording that has been analysed."""
    answer = send(gateway, data, **query)
    assert answer.status_code == 202, answer.text
    id: str = answer.json()["id"]
    assert ended(gateway, id)["state"] == "done"
    return id
