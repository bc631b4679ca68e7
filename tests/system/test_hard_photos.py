"""Photos that are hard to search, sent to a real process: tilted faces, close-ups, crowds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.conftest import ASTRONAUT_FACE, Gateway, encoded
from tests.system.conftest import running


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running() as process:
        gateway = Gateway(process.url)
        yield gateway
        gateway.client.close()


@pytest.mark.parametrize("degrees", [-45, -30, 20, 45, 70, 135])
def test_a_tilted_face_is_answered_as_upright(
    gateway: Gateway, astronaut: NDArray[np.uint8], degrees: int
) -> None:
    """`degrees`: clockwise."""
    tilted = Image.fromarray(astronaut).rotate(-degrees, Image.Resampling.BICUBIC, expand=True)
    upright, face = (
        gateway.post(encoded(photo), include="quality").json()["faces"][0] for photo in (astronaut, tilted)
    )
    assert (face["emotion"], face["verdict"]) == ("happiness", "certain")
    turned_by = face["quality"]["roll_degrees"] - upright["quality"]["roll_degrees"]
    assert abs((turned_by - degrees + 180) % 360 - 180) < 20


@pytest.mark.parametrize("height_px", [300, 2000, 5000])
@pytest.mark.parametrize("margin", [0.0, 0.15, 0.5])
def test_a_close_up_is_one_face(
    gateway: Gateway, astronaut: NDArray[np.uint8], margin: float, height_px: int
) -> None:
    left, top, right, bottom = ASTRONAUT_FACE
    around = margin * (right - left)
    close_up = Image.fromarray(astronaut).crop(
        (round(left - around), round(top - around), round(right + around), round(bottom + around))
    )
    width = round(height_px * close_up.width / close_up.height)
    answer = gateway.post(encoded(close_up.resize((width, height_px), Image.Resampling.BICUBIC))).json()
    assert [face["emotion"] for face in answer["faces"]] == ["happiness"]


def test_a_crowd_is_counted_beyond_the_faces_of_the_answer(
    gateway: Gateway, astronaut: NDArray[np.uint8]
) -> None:
    face = astronaut[:256, 100:356]
    answer = gateway.post(encoded(np.tile(face, (12, 12, 1))), max_faces=128).json()
    assert (len(answer["faces"]), answer["faces_found"]) == (128, 144)
