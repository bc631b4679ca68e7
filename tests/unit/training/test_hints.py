"""Occluders cover the right part of a face, and the hints distinguish covered faces and false faces."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from training.checkpoint import load_trained
from training.cli import SHIPPED_CHECKPOINT
from training.datasets.faces import LabelledFaces, PixelPictures
from training.hints import fit_face_likeness, fit_occlusion
from training.not_faces import NOT_FACES
from training.occluders import OCCLUDERS, occlude


def grey_faces(count: int, side: int = 48, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shades = 0.4 + 0.2 * torch.rand(count, 1, 1, 1, generator=generator)
    return shades.expand(count, channels, side, side).contiguous()


def changed(before: Tensor, after: Tensor) -> Tensor:
    """bool [N,S,S]: which pixels differ."""
    return ((before - after).abs() > 1e-6).any(dim=1)


@pytest.mark.parametrize("kind", OCCLUDERS)
@pytest.mark.parametrize(("side", "channels"), [(48, 1), (96, 3)])
def test_each_occluder_covers_a_part_and_leaves_the_rest(kind: str, side: int, channels: int) -> None:
    torch.manual_seed(0)
    faces = grey_faces(200, side, channels)
    covered = occlude(faces, 0.2, OCCLUDERS[kind])
    assert covered.shape == faces.shape
    assert covered.min() >= 0
    assert covered.max() <= 1
    shares = changed(faces, covered).float().mean(dim=(1, 2))
    assert 0.03 < shares.mean() < 0.5
    assert shares.max() < 0.9


@pytest.mark.parametrize("kind", ["patch", "board", "blob", "hand"])
def test_a_greater_share_covers_more(kind: str) -> None:
    faces = grey_faces(200)
    shares = []
    for share in (0.1, 0.2, 0.4):
        torch.manual_seed(0)
        shares.append(changed(faces, occlude(faces, share, OCCLUDERS[kind])).float().mean().item())
    assert shares == sorted(shares)
    assert shares[2] > 1.5 * shares[0]


def test_masks_cover_the_mouth_and_glasses_cover_the_eyes() -> None:
    torch.manual_seed(0)
    faces = grey_faces(100)
    masked, dark = (changed(faces, occlude(faces, 0.2, OCCLUDERS[kind])) for kind in ("mask", "glasses"))
    assert masked[:, 36, 24].all()
    assert not masked[:, :20].any()
    assert dark[:, 18, 15].float().mean() > 0.9
    assert not dark[:, 28:].any()


def test_kinds_alternate_and_a_seed_repeats_the_occluders() -> None:
    faces = grey_faces(3 * len(OCCLUDERS) + 1)
    torch.manual_seed(3)
    first = occlude(faces, 0.2)
    torch.manual_seed(3)
    assert torch.equal(occlude(faces, 0.2), first)
    masks = list(OCCLUDERS).index("mask")
    assert changed(faces, first)[masks :: len(OCCLUDERS), 40, 24].all()


def pictures_of_a_face(astronaut: NDArray[np.uint8], count: int, seed: int) -> LabelledFaces:
    """Pictures of one face with random tilt, position and brightness."""
    face = Image.fromarray(astronaut).crop((168, 60, 280, 172)).convert("L")
    rng = np.random.default_rng(seed)
    pictures = []
    for _ in range(count):
        turned = face.rotate(rng.uniform(-10, 10), Image.Resampling.BICUBIC)
        left, top, cut = (int(rng.integers(0, end)) for end in (12, 12, 6))
        small = turned.crop((left, top, 112 - cut, 112 - cut)).resize((48, 48), Image.Resampling.BICUBIC)
        pictures.append((np.asarray(small) * rng.uniform(0.5, 1)).astype(np.uint8))
    return LabelledFaces.singly_labelled(
        PixelPictures(np.stack(pictures)),
        names=np.arange(count).astype(str),
        labels=np.ones(count, np.int64),
        group=np.arange(count),
    )


def test_the_hint_detects_covered_faces_and_unseen_kinds_of_occluders(astronaut: NDArray[np.uint8]) -> None:
    network = load_trained(SHIPPED_CHECKPOINT).network
    faces, held_out = pictures_of_a_face(astronaut, 180, 0), pictures_of_a_face(astronaut, 60, 1)
    layer, figures = fit_occlusion(network, faces, held_out)
    assert layer.weight.shape == network(torch.zeros(1, 1, 48, 48)).pooled.shape
    assert figures["auc"].value > 0.85
    assert figures["auc"].samples == 120
    assert set(figures) == {"auc", *(f"auc_unseen_{kind}" for kind in OCCLUDERS)}
    assert figures["auc_unseen_mask"].value > 0.8
    again, _ = fit_occlusion(network, faces, held_out)
    torch.testing.assert_close(again.weight, layer.weight, atol=1e-6, rtol=0)


def test_faces_look_more_like_faces_than_unseen_kinds_of_pictures(astronaut: NDArray[np.uint8]) -> None:
    network = load_trained(SHIPPED_CHECKPOINT).network
    faces, held_out = pictures_of_a_face(astronaut, 180, 0), pictures_of_a_face(astronaut, 60, 1)
    layer, figures = fit_face_likeness(network, faces, held_out)
    assert set(figures) == {"auc", *(f"auc_unseen_{kind}" for kind in NOT_FACES)}
    assert all(figure.value > 0.9 for figure in figures.values())
    face = held_out.pictures.read(np.array([0]), size=48, channels=1)
    brick = PixelPictures(skimage.data.brick()[None, :192, :192]).read(np.array([0]), size=48, channels=1)
    images = torch.from_numpy(np.concatenate([face, brick])).float() / 255
    with torch.no_grad():
        likeness = layer(network(images).pooled)
    assert likeness[0].item() > 0 > likeness[1].item()


@pytest.mark.parametrize("kind", NOT_FACES)
@pytest.mark.parametrize(("side", "channels"), [(48, 1), (50, 3)])
def test_pictures_that_are_not_faces_have_the_shape_of_the_faces(kind: str, side: int, channels: int) -> None:
    faces = torch.rand(7, channels, side, side)
    torch.manual_seed(0)
    made = NOT_FACES[kind](faces)
    assert made.shape == faces.shape
    assert made.min() >= 0
    assert made.max() <= 1
    assert all((before != after).float().mean() > 0.5 for before, after in zip(faces, made, strict=True))
    torch.manual_seed(0)
    assert torch.equal(NOT_FACES[kind](faces), made)
