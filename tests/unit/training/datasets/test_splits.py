"""Validation rows, and copies of a picture on both sides of a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.unit.training.made_up import noise
from training.datasets.faces import Dataset, LabelledFaces, PixelPictures
from training.datasets.splits import drop_near_duplicates, near_copies, split_training, split_validation


def faces_of(*images: NDArray[np.uint8], group: Sequence[int] | None = None) -> LabelledFaces:
    """A face of each image. Its label is the number of the image."""
    numbers = np.arange(len(images))
    return LabelledFaces(
        PixelPictures(np.stack(images) if images else np.empty((0, 48, 48), np.uint8)),
        names=numbers.astype(np.str_),
        labels=numbers,
        distributions=np.zeros((len(images), 8), np.float32),
        majority=np.full(len(images), -1),
        group=numbers if group is None else np.array(group),
    )


def test_validation_has_whole_groups_and_its_share_of_rows() -> None:
    group = [number // 2 for number in range(40)]
    faces = faces_of(*(noise(number) for number in group), group=group)
    training, validation = split_validation(faces, 0.25, seed=0)
    assert (len(training), len(validation)) == (30, 10)
    assert not set(training.group) & set(validation.group)
    assert sorted([*training.labels, *validation.labels]) == list(range(40))
    again = split_validation(faces, 0.25, seed=0)[1]
    other = split_validation(faces, 0.25, seed=1)[1]
    assert np.array_equal(again.labels, validation.labels)
    assert not np.array_equal(other.labels, validation.labels)


def test_exact_and_near_copies_are_dropped() -> None:
    original = noise(0)
    recompressed = np.clip(original.astype(int) + np.random.default_rng(1).integers(-5, 6, (48, 48)), 0, 255)
    darker = (original * 0.5 + 20).astype(np.uint8)
    half = np.where(np.arange(48)[:, None] < 24, original, noise(7))
    faces = faces_of(noise(1), original, recompressed.astype(np.uint8), darker, half, noise(2))
    others = faces_of(noise(3), original, group=[100, 101])
    assert drop_near_duplicates(faces, others).labels.tolist() == [0, 4, 5]


def test_pictures_of_another_size_are_compared() -> None:
    original = noise(0, side=96)
    faces = faces_of(original, noise(1, side=96))
    other = faces_of((original * 0.5).astype(np.uint8), group=[100])
    assert drop_near_duplicates(faces, other).labels.tolist() == [1]


def test_a_flat_image_is_a_copy_only_of_an_equal_image() -> None:
    black, white = np.zeros((48, 48), np.uint8), np.full((48, 48), 255, np.uint8)
    faces = faces_of(black, white, noise(0), group=[1, 2, 3])
    assert drop_near_duplicates(faces, faces_of(black, noise(1), group=[1, 4])).labels.tolist() == [1, 2]


def test_copies_are_found_in_every_block_of_large_sets() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2060, 48, 48), np.uint8)
    faces = faces_of(*images[:1030])
    others = faces_of(images[1027], *images[1030:], images[5], group=range(5000, 6032))
    kept = drop_near_duplicates(faces, others)
    assert set(range(1030)) - set(kept.labels.tolist()) == {5, 1027}


def test_known_near_copies_are_dropped_without_a_look_at_pictures() -> None:
    faces = faces_of(noise(1), noise(1) // 2, noise(2), noise(3), noise(3), group=[4, 9, 5, 7, 7])
    near = near_copies(faces)
    assert near.tolist() == [[4, 9], [9, 4]]
    blank = replace(faces_of(*[noise(0)] * 5, group=[4, 9, 5, 7, 7]), near=near)
    assert drop_near_duplicates(blank, blank.rows(np.array([1, 3]))).labels.tolist() == [2]


def test_an_empty_set_has_no_copies() -> None:
    faces = faces_of(noise(0), noise(1))
    assert drop_near_duplicates(faces, faces_of()).labels.tolist() == [0, 1]
    assert len(drop_near_duplicates(faces_of(), faces)) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 24), st.floats(0.0, 1.5))
def test_the_bound_of_the_correlation_misses_no_copy(seed: int, cell: int, spread: float) -> None:
    """Compare with all correlations of pictures and their altered copies. `cell` sets how coarse they are."""
    generator = np.random.default_rng(seed)
    rough = generator.normal(size=(6, 48 // cell + 1, 48 // cell + 1)).repeat(cell, 1).repeat(cell, 2)
    images = rough[:, :48, :48] * 40 + 128
    altered = images + generator.normal(size=images.shape) * 40 * spread * generator.random((6, 1, 1))
    both = [np.clip(pixels, 0, 255).astype(np.uint8) for pixels in (images, altered)]
    matrix = np.asarray(np.corrcoef(np.concatenate(both).reshape(12, -1)))[:6, 6:]
    kept = drop_near_duplicates(faces_of(*both[0]), faces_of(*both[1], group=range(100, 106))).labels
    certain = np.abs(matrix.max(axis=1) - 0.99) > 1e-5
    assert set(np.flatnonzero(certain & (matrix.max(axis=1) < 0.99))) <= set(kept)
    assert not set(np.flatnonzero(certain & (matrix.max(axis=1) > 0.99))) & set(kept)


def test_the_first_fold_is_the_split_of_earlier_checkpoints() -> None:
    """Their validation rows must stay the same, so the rule is written out here."""
    faces = faces_of(*(noise(number) for number in range(40)))
    held_out = np.random.default_rng(0).permutation(40)[:10]
    dataset = Dataset("noise", ("neutral",), (), faces, {}, ())
    assert sorted(split_training(dataset, 0.25)[1].labels) == sorted(held_out)
