"""The scripted cascade against facenet-pytorch's MTCNN, and on images that no cascade likes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image

from service.arrays import Detections
from tests.reference_mtcnn import Reference
from training.models import mtcnn
from training.models.boxes import suppress
from training.models.summed_area import crops, summed_area_table
from training.repository import script

Pixels = NDArray[np.uint8]
Detect = Callable[[Pixels, float, float], Detections]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def reference():
    return Reference()


@pytest.fixture(scope="module")
def detect() -> Detect:
    if find_spec("facenet_pytorch") is None:
        pytest.skip("the weights are not installed: pip install --no-deps facenet-pytorch==2.6.0")
    scripted = script(mtcnn.Mtcnn.published())

    def run(image: Pixels, min_face_px: float, threshold: float) -> Detections:
        with torch.inference_mode(), torch.jit.optimized_execution(False):
            found = scripted(
                torch.from_numpy(np.array(image)),  # a copy: PIL's memory is read-only
                torch.tensor([min_face_px], dtype=torch.float32),
                torch.tensor([threshold], dtype=torch.float32),
            )
        return Detections(*(values.numpy() for values in found))

    return run


def astronaut(side: int = 512) -> Image.Image:
    return Image.fromarray(skimage.data.astronaut()).resize((side, side), Image.Resampling.LANCZOS)


def montage() -> Pixels:
    """uint8 [420,640,3]: 24 heads of 40 to 95 px, some mirrored, tilted by up to 12 degrees or darkened."""
    head = astronaut().crop((140, 20, 310, 210))
    canvas = Image.new("RGB", (640, 420), (90, 110, 100))
    for place in range(24):
        tile = head.rotate((-12, 0, 7, 12)[place % 4], Image.Resampling.BICUBIC)
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if place % 3 == 0 else tile
        tile = tile.point([int(value * (1, 0.8, 1.15)[place % 3]) for value in range(256)] * 3)
        height = 60 + 45 * (place % 5) // 4
        tile = tile.resize((height * 170 // 190, height), Image.Resampling.LANCZOS)
        canvas.paste(tile, (place % 6 * 105, place // 6 * 105))
    return np.asarray(canvas)


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8)


def brighter(image: Image.Image, factor: float) -> Pixels:
    return (np.asarray(image) * factor).clip(0, 255).astype(np.uint8)


def overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of boxes [N,4] and [M,4]: [N,M]."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = sides.clip(0).prod(axis=2)
    area_a, area_b = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b))
    iou: NDArray[np.float32] = shared / (area_a[:, None] + area_b[None, :] - shared)
    return iou


IMAGES: dict[str, tuple[Callable[[], Pixels], float, int]] = {
    # name: (image, min_face_px, faces that must be found at least)
    "astronaut": (lambda: np.asarray(astronaut()), 20, 1),
    "small": (lambda: np.asarray(astronaut(200)), 20, 1),
    "smallest": (lambda: np.asarray(astronaut(96)), 12, 1),
    "large": (lambda: np.asarray(astronaut(901)), 40, 1),
    "fractional minimum": (lambda: np.asarray(astronaut(300)), 33.3, 1),
    "montage": (montage, 20, 20),
    "tilted": (lambda: np.asarray(astronaut().rotate(8, Image.Resampling.BICUBIC)), 40, 1),
    "dark": (lambda: brighter(astronaut(), 0.35), 40, 1),
    "bright": (lambda: brighter(astronaut(), 1.6), 40, 1),
    "wide": (lambda: np.asarray(astronaut())[30:261], 40, 1),
    "tall": (lambda: np.asarray(astronaut())[:, 131:312], 40, 1),
    "at the edge": (lambda: np.asarray(astronaut())[80:, 200:], 30, 0),
    "grey": (lambda: np.asarray(astronaut().convert("L").convert("RGB")), 40, 1),
    "noise": (lambda: noise(310, 260), 20, 0),
}


@pytest.mark.parametrize("name", IMAGES)
def test_finds_what_the_reference_finds(name: str, detect: Detect, reference) -> None:
    make, min_face_px, at_least = IMAGES[name]
    image = make()
    expected, found = reference.detect(image, min_face_px, 0.9), detect(image, min_face_px, 0.9)

    assert len(expected.scores) >= at_least
    assert len(found.scores) == len(expected.scores)
    if not len(found.scores):
        return
    shared = overlap(expected.boxes, found.boxes)
    partner = shared.argmax(axis=1)
    assert len(set(partner)) == len(partner)
    assert shared.max(axis=1).min() > 0.99
    assert np.abs(found.scores[partner] - expected.scores).max() < 0.001
    side = (expected.boxes[:, 2:] - expected.boxes[:, :2]).max(axis=1)
    apart = np.abs(found.landmarks[partner] - expected.landmarks).max(axis=(1, 2))
    assert (apart / side).max() < 0.005


def test_low_scores_are_found_too(detect: Detect, reference) -> None:
    expected, found = reference.detect(montage(), 20, 0.0), detect(montage(), 20, 0.0)
    assert len(found.scores) == len(expected.scores)
    np.testing.assert_allclose(found.scores, np.sort(expected.scores)[::-1], atol=0.001)


def test_finds_the_face_where_it_is(detect: Detect) -> None:
    found = detect(np.asarray(astronaut()), 32, 0.9)
    drawn_by_hand = np.array([[181, 61, 268, 172]], dtype=np.float32)
    assert found.boxes.shape == (1, 4)
    assert overlap(found.boxes, drawn_by_hand)[0, 0] > 0.8
    left_eye, right_eye, nose, left_mouth, right_mouth = found.landmarks[0]
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


@pytest.mark.parametrize(
    "shape", [(0, 0), (0, 20), (1, 1), (1, 300), (300, 1), (5, 5), (11, 300), (12, 12), (13, 12), (40, 13)]
)
@pytest.mark.parametrize("min_face_px", [12.0, 32.0])
def test_tiny_images_have_no_faces(shape: tuple[int, int], min_face_px: float, detect: Detect) -> None:
    found = detect(noise(*shape), min_face_px, 0.0)
    assert [values.shape[1:] for values in (found.boxes, found.scores, found.landmarks)] == [(4,), (), (5, 2)]
    assert {values.dtype for values in (found.boxes, found.scores, found.landmarks)} == {np.dtype("float32")}
    assert {len(found.boxes), len(found.scores), len(found.landmarks)} == {0}


def test_the_threshold_cuts_and_the_best_comes_first(detect: Detect) -> None:
    everything, certain = detect(montage(), 20, 0.0), detect(montage(), 20, 0.9995)
    assert (np.diff(everything.scores) <= 0).all()
    assert 0 < len(certain.scores) < len(everything.scores)
    np.testing.assert_array_equal(certain.scores, everything.scores[everything.scores >= 0.9995])
    np.testing.assert_array_equal(certain.landmarks, everything.landmarks[: len(certain.scores)])


@pytest.mark.parametrize("value", [float("nan"), -5.0, 0.0, 3.0, -float("inf")])
def test_a_senseless_minimum_means_the_least_there_is(value: float, detect: Detect) -> None:
    image = np.asarray(astronaut(96))
    np.testing.assert_array_equal(detect(image, value, 0.9).boxes, detect(image, 12, 0.9).boxes)
    assert len(detect(image, 12, 0.9).scores) == 1


def test_a_minimum_above_the_image_finds_nothing(detect: Detect) -> None:
    image = np.asarray(astronaut(200))
    for least in (201, 1e30, float("inf")):
        assert len(detect(image, least, 0.0).scores) == 0
    assert len(detect(image, 40, float("nan")).scores) == 0


@pytest.mark.parametrize("of_smaller", [False, True])
def test_suppression_is_greedy_across_blocks(of_smaller: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(1500, 2, generator=generator) * 150
    boxes = torch.cat([corner, corner + 10 + torch.rand(1500, 2, generator=generator) * 30], dim=1)
    scores = torch.rand(1500, generator=generator)
    edge = float(of_smaller)

    kept: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        rivals = boxes[kept]
        sides = torch.minimum(boxes[index, 2:], rivals[:, 2:]) - torch.maximum(
            boxes[index, :2], rivals[:, :2]
        )
        shared = (sides + edge).clamp(min=0).prod(dim=1)
        area, areas = ((b[..., 2:] - b[..., :2] + edge).prod(dim=-1) for b in (boxes[index], rivals))
        whole = torch.minimum(area, areas) if of_smaller else area + areas - shared
        if not (shared / whole > 0.5).any():
            kept.append(index)

    assert 50 < len(kept) < 1000
    assert suppress(boxes, scores, 0.5, of_smaller).tolist() == kept


def test_crops_are_area_resampled_beyond_32_bits() -> None:
    # 3000 x 2900 bright pixels sum up to more than int32 holds.
    image = torch.full((3000, 2900, 3), 255, dtype=torch.uint8)
    image[2700:2967, 2300:2411] = torch.from_numpy(noise(267, 111))
    windows = torch.tensor([[2300, 2700, 2411, 2967], [2305, 2710, 2319, 2719], [2399, 2900, 2500, 3000]])
    found = crops(summed_area_table(image), windows, 24)
    for crop, (left, top, right, bottom) in zip(found, windows.tolist(), strict=True):
        part = image[top:bottom, left:right].permute(2, 0, 1)[None].float()
        expected = torch.nn.functional.interpolate(part, (24, 24), mode="area")[0]
        torch.testing.assert_close(crop, (expected - 127.5) / 128, atol=1e-5, rtol=0)


def test_absent_weights_say_how_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtcnn, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps facenet-pytorch==2\.6\.0"):
        mtcnn.published_weights("pnet")


def test_scripting_warns_about_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        script(mtcnn.Mtcnn())
