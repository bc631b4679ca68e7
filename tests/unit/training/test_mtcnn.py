"""The scripted cascade against facenet-pytorch's MTCNN."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from tests.reference_mtcnn import Reference
from tests.unit.training.scenes import IMAGES, Detect, montage, noise, overlap, scripted
from training.models import mtcnn
from training.models.boxes import suppress
from training.models.summed_area import crops, summed_area_table
from training.repository import script


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
    return scripted(mtcnn.Mtcnn.published())


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
