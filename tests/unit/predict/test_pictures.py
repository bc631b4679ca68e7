"""Pictures with boxes and labels for people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.core.seen import Verdict
from service.predict.pictures import CERTAIN, UNCERTAIN, annotated, target_of
from tests.conftest import as_stored, encoded
from tests.seen import FaceSeen, seen
from tests.unit.predict.conftest import Expressnet

GREY = Image.new("RGB", (400, 300), (128, 128, 128))


def drawn(*faces: FaceSeen) -> NDArray[np.uint8]:
    return np.asarray(annotated(encoded(GREY, "PNG"), seen(*faces), 1_000_000))


def face(x: float, y: float, verdict: Verdict) -> FaceSeen:
    return FaceSeen("surprise", 0.5, verdict, (x, y, 120, 140))


def share(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> float:
    return float((pixels == colour).all(axis=-1).mean())


def test_a_certain_face_has_a_solid_border_and_an_uncertain_face_a_dashed_border() -> None:
    pixels = drawn(face(20, 80, "certain"), face(220, 80, "uncertain"))
    assert share(pixels[219, 21:139], CERTAIN) == 1
    assert share(pixels[81:219, 21], CERTAIN) == 1
    assert 0.4 < share(pixels[219, 221:339], UNCERTAIN) < 0.6
    assert 0.4 < share(pixels[90:219, 221], UNCERTAIN) < 0.6
    # The border covers no part of the face.
    assert share(pixels[84:216, 24:136], (128, 128, 128)) == 1


@pytest.mark.parametrize(("x", "y"), [(20, 80), (20, 0), (280, 160)])
def test_the_label_is_in_the_picture_and_readable(x: float, y: float) -> None:
    pixels = drawn(face(x, y, "uncertain"))
    top = int(y) - 30 if y >= 30 else int(y)
    label = pixels[max(0, top) : top + 40]
    assert share(label, UNCERTAIN) > 0.1
    assert share(label, (0, 0, 0)) > 0.01


def test_pictures_are_in_the_same_folders_as_their_photos(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("out")
    assert target_of("photos/a/b.jpg", out) == Path("out/photos/a/b.jpg")
    assert target_of(f"{tmp_path}/b.PNG", out) == Path("out/b.PNG")
    assert target_of("./a/../b.heic", out) == Path("out/b.heic.jpg")
    assert target_of("/elsewhere/b.jpg", out) == Path("out/elsewhere/b.jpg")
    assert target_of("../b.jpg", out).is_relative_to(out)
    assert ".." not in target_of("../b.jpg", out).parts


def test_photos_are_drawn_upright(
    expressnet: Expressnet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, astronaut: NDArray[np.uint8]
) -> None:
    monkeypatch.chdir(tmp_path)
    tall = np.vstack([astronaut, astronaut])
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    stored = encoded(as_stored(Image.fromarray(tall), 6), exif=exif)
    (tmp_path / "photos" / "deep" / "turned.jpg").write_bytes(stored)
    # The folder `out` is inside the searched folder: the second run must skip the pictures in it.
    for _ in range(2):
        result = expressnet("predict", ".", "--annotate", "out")
        assert result.exit_code == 0
        assert len(result.stdout.splitlines()) == 1
    (picture,) = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert picture == tmp_path / "out/photos/deep/turned.jpg"
    with Image.open(picture) as image:
        assert image.size == (512, 1024)
        assert not image.getexif()
        pixels = np.asarray(image).astype(int)
    for top in (0, 512):
        # JPEG changes colours slightly.
        line = pixels[top + 100 : top + 150, 181]
        assert abs(line - CERTAIN).mean() < 40 or abs(line - UNCERTAIN).mean() < 60


def test_a_folder_that_is_a_file_ends_the_run(expressnet: Expressnet, photos: Path) -> None:
    (photos.parent / "file").touch()
    result = expressnet("predict", photos, "--annotate", photos.parent / "file")
    assert result.exit_code == 2
    assert "pictures cannot be written to" in result.stderr
