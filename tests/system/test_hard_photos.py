"""Photos that are hard to answer, sent to a real process: tilted, close, many, from the side, no face."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import skimage.data
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


@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_a_selfie_of_12_megapixels_has_one_face(
    gateway: Gateway, astronaut: NDArray[np.uint8], share: float
) -> None:
    """share: the face's part of the height."""
    left, top, right, bottom = ASTRONAUT_FACE
    around = round(0.3 * (bottom - top))
    face = Image.fromarray(astronaut).crop((left - around, top - around, right + around, bottom + around))
    scale = share * 4000 / (bottom - top)
    selfie = Image.new("RGB", (3000, 4000), (127, 127, 127))
    large = face.resize((round(face.width * scale), round(face.height * scale)), Image.Resampling.BICUBIC)
    selfie.paste(large, ((3000 - large.width) // 2, (4000 - large.height) // 2))
    answer = gateway.post(encoded(selfie)).json()
    assert [face["emotion"] for face in answer["faces"]] == ["happiness"]


def test_a_profile_is_uncertain_and_not_called_covered(gateway: Gateway) -> None:
    photo = np.repeat(skimage.data.camera()[..., None], 3, axis=2)
    (face,) = gateway.post(encoded(photo)).json()["faces"]
    assert face["verdict"] == "uncertain"
    assert "turned_away" in face["reasons"]
    assert "occluded" not in face["reasons"]


@pytest.mark.parametrize("name", ["brick", "cat", "clock", "grass", "rocket"])
def test_a_picture_without_a_face_is_never_certain(gateway: Gateway, name: str) -> None:
    """Also where the caller says that it is a face."""
    picture = np.asarray(Image.fromarray(getattr(skimage.data, name)()).convert("RGB"))
    assert gateway.post(encoded(picture)).json()["faces"] == []
    (face,) = gateway.post(encoded(picture), detect="false").json()["faces"]
    assert "no_clear_face" in face["reasons"]


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_face_that_is_not_levelled_is_never_certain(
    gateway: Gateway, astronaut: NDArray[np.uint8], quarters: int
) -> None:
    left, top, right, bottom = ASTRONAUT_FACE
    face = np.rot90(astronaut[top:bottom, left:right], quarters)
    (answer,) = gateway.post(encoded(np.ascontiguousarray(face)), detect="false").json()["faces"]
    assert "no_clear_face" in answer["reasons"]
