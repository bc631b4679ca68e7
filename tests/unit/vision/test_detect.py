"""How a photo is shrunk for the detector, and the order of the faces that are returned."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from service.core.arrays import Detections, Image, Photo
from service.vision.detect import (
    SEARCHED_FACE_PX,
    SHRUNK_FACE_PX,
    SearchPlan,
    joined,
    largest_first,
    search,
    smallest_face_px,
    tolerable_shrinkage,
    too_narrow,
)


def blank(height: int, width: int) -> np.ndarray:
    return np.zeros((height, width, 3), dtype=np.uint8)


def detections(*boxes: tuple[float, float, float, float]) -> Detections:
    count = len(boxes)
    corners = np.array(boxes, dtype=np.float32).reshape(count, 4)
    scores = np.linspace(0.9, 0.99, count, dtype=np.float32)
    return Detections(corners, scores, np.repeat(corners[:, None, :2], 5, axis=1))


def at_full_size(image: Image) -> Photo:
    return Photo(image, image.shape[1], image.shape[0], 1)


def test_a_small_image_is_searched_unchanged() -> None:
    image = blank(1000, 1000)
    plan = search(at_full_size(image), 30)
    assert plan.image is image
    assert (plan.min_face_px, plan.scale) == (30, 1)
    found = detections((1, 2, 3, 4))
    assert found.scaled(plan.scale) is found


def test_a_whole_factor_shrinks_the_smallest_face_to_16_px() -> None:
    plan = search(at_full_size(blank(1000, 1000)), 32)
    assert (plan.scale, plan.min_face_px, plan.image.shape) == (2, 16, (500, 500, 3))


def test_a_large_image_is_shrunk_and_its_smallest_face_grows() -> None:
    plan = search(at_full_size(blank(4000, 6000)), 32)
    assert plan.scale == 3
    assert plan.image.shape == (1334, 2000, 3)
    assert plan.min_face_px * plan.scale == pytest.approx(0.017 * math.sqrt(4000 * 6000))


def test_the_smallest_face_of_a_large_image_grows_to_a_factor_of_the_jpeg_decoder() -> None:
    plan = search(at_full_size(blank(3000, 4000)), 32)
    assert (plan.scale, plan.min_face_px) == (4, 16)
    assert search(at_full_size(blank(3000, 4000)), 60).scale == 2, "a requested size is not changed"


def test_a_larger_minimum_size_shrinks_more() -> None:
    plan = search(at_full_size(blank(1000, 1000)), 250)
    assert (plan.scale, plan.min_face_px, plan.image.shape) == (10, 25, (100, 100, 3))


@pytest.mark.parametrize(("decoded", "remaining"), [(1, 4), (2, 2), (4, 1), (8, 1)])
def test_an_image_that_decoding_has_shrunk_is_shrunk_only_by_the_remaining_factor(
    decoded: int, remaining: int
) -> None:
    photo = Photo(blank(3000 // decoded, 3000 // decoded), 3000, 3000, decoded)
    plan = search(photo, 100)
    assert plan.scale == decoded * remaining
    assert plan.image.shape == (3000 // plan.scale, 3000 // plan.scale, 3)
    assert plan.min_face_px == pytest.approx(100 / plan.scale)


def test_shrinking_leaves_enough_pixels_of_a_face() -> None:
    faces = detections((0, 0, 10, 200), (0, 0, 100, 1))
    assert [tolerable_shrinkage(faces, min_px) for min_px in (24, 50, 51, 100, 101)] == [4, 2, 1, 1, 1]
    assert tolerable_shrinkage(detections(), 48) > 1_000_000


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 1500), st.integers(1, 1500), st.floats(12, 3000))
def test_the_search_is_bounded(height: int, width: int, min_face_px: float) -> None:
    plan = search(at_full_size(blank(height, width)), min_face_px)
    assert plan.image.shape == (math.ceil(height / plan.scale), math.ceil(width / plan.scale), 3)
    assert plan.min_face_px * plan.scale >= min_face_px * 0.999
    assert plan.scale == 1 or plan.min_face_px == SEARCHED_FACE_PX or plan.min_face_px >= SHRUNK_FACE_PX
    searched = plan.image.shape[0] * plan.image.shape[1] * (16 / plan.min_face_px) ** 2
    # The last row and column may cover less than a whole cell.
    assert searched <= 890_000 * (1 + plan.scale / height) * (1 + plan.scale / width)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 50_000_000), st.integers(1, 50_000_000), st.floats(12, 3000))
def test_the_image_that_the_detector_pads_to_32_px_is_bounded(
    height: int, width: int, min_face_px: float
) -> None:
    assume(height * width <= 50_000_000)
    if too_narrow(width, height, min_face_px):
        return
    scale = SEARCHED_FACE_PX / smallest_face_px(width, height, min_face_px)
    padded = [32 * math.ceil(side * scale / 32) for side in (height, width)]
    assert padded[0] * padded[1] <= 4.1 * 890_000


@pytest.mark.parametrize(
    ("width", "height", "narrow"),
    [(1, 49_000_000, True), (15, 4000, True), (16, 4000, False), (32, 32, False), (800_000, 58, True)],
)
def test_a_strip_narrower_than_half_a_face_is_not_searched(width: int, height: int, narrow: bool) -> None:
    assert too_narrow(width, height, 32) is narrow


def test_shrinking_averages_pixels_and_boxes_are_scaled_back() -> None:
    image = blank(3000, 3000)
    image[600:900, 1200:1800] = 200
    image[0, 0] = 255
    plan = search(at_full_size(image), 100)
    assert plan.scale == 4
    assert plan.image[0, 0, 0] == 16  # one white pixel of 4 x 4
    rows, columns = np.nonzero(plan.image[:, :, 0] == 200)
    box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    found = detections(box).scaled(plan.scale)
    np.testing.assert_array_equal(found.boxes, [[1200, 600, 1800, 900]])
    np.testing.assert_array_equal(found.landmarks[0, 0], [1200, 600])
    assert {found.boxes.dtype, found.landmarks.dtype} == {np.dtype("float32")}


def test_the_largest_face_comes_first_and_rows_stay_together() -> None:
    found = detections((0, 0, 10, 10), (0, 0, 50, 50), (20, 20, 40, 50))
    ordered = largest_first(found, 100, 100)
    np.testing.assert_array_equal(ordered.boxes, [[0, 0, 50, 50], [20, 20, 40, 50], [0, 0, 10, 10]])
    np.testing.assert_array_equal(ordered.scores, found.scores[[1, 2, 0]])
    np.testing.assert_array_equal(ordered.landmarks, found.landmarks[[1, 2, 0]])


def test_boxes_are_clipped_before_they_are_compared() -> None:
    found = detections((-90, -90, 10, 10), (5, 5, 25, 25), (80, 60, 300, 70))
    ordered = largest_first(found, 100, 80)
    np.testing.assert_array_equal(ordered.boxes, [[5, 5, 25, 25], [80, 60, 100, 70], [0, 0, 10, 10]])


def test_faces_outside_of_the_image_and_empty_boxes_are_dropped() -> None:
    outside = [(-20, 0, -5, 10), (100, 0, 120, 10), (0, 80, 10, 90), (30, 30, 30, 40), (40, 40, 30, 30)]
    ordered = largest_first(detections(*outside, (1, 1, 2, 2)), 100, 80)
    np.testing.assert_array_equal(ordered.boxes, [[1, 1, 2, 2]])


@pytest.mark.parametrize("quarters", range(4))
def test_faces_of_a_turned_search_are_turned_back(quarters: int) -> None:
    image = blank(60, 100)
    image[10:15, 70:90] = 200  # the box
    image[11, 72] = 255  # its first landmark
    plan = SearchPlan(image, 16, 3).turned(quarters)
    rows, columns = np.nonzero(plan.image[:, :, 0] >= 200)
    (y, x) = (float(place[0]) + 0.5 for place in np.nonzero(plan.image[:, :, 0] == 255))
    found = detections((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    found.landmarks[0, 0] = x, y
    turned_back = plan.in_photo(found)
    np.testing.assert_array_equal(turned_back.boxes, [[210, 30, 270, 45]])
    np.testing.assert_array_equal(turned_back.landmarks[0, 0], [72.5 * 3, 11.5 * 3])
    assert turned_back.scores is found.scores


def test_a_turned_search_of_a_large_image_is_smaller() -> None:
    plan = SearchPlan(blank(800, 1000), 20, 2)
    assert plan.smaller().image.shape == (267, 334, 3)
    assert (plan.smaller().min_face_px, plan.smaller().scale) == (SEARCHED_FACE_PX, 6)
    small = SearchPlan(blank(479, 1000), 20, 2)
    assert small.smaller() is small


def test_a_large_image_has_a_search_for_large_faces() -> None:
    plan = SearchPlan(blank(800, 1000), 20, 2).turned(1)
    large = plan.for_large_faces()
    assert large is not None
    assert large.image.shape == (167, 134, 3)
    assert (large.min_face_px, large.scale, large.quarters) == (SEARCHED_FACE_PX, 12, 1)
    assert SearchPlan(blank(383, 1000), 20, 2).for_large_faces() is None


def test_faces_of_both_searches_are_joined_and_none_is_there_twice() -> None:
    small, middle, huge = (0, 0, 40, 40), (100, 100, 300, 300), (0, 400, 400, 900)
    found = detections(
        small, (110, 100, 310, 300), (50, 450, 400, 900)
    )  # the last is too large for this search
    large = detections((5, 0, 45, 40), middle, huge)  # the first is too small for this search
    both = joined(found, large, 320)
    # Scores rise with the index, so `middle` is as good in both; the first search counts.
    np.testing.assert_array_equal(both.boxes, [small, (110, 100, 310, 300), huge])
    assert joined(detections(), detections(), 320).boxes.shape == (0, 4)


def test_the_better_box_of_a_face_counts() -> None:
    found, large = detections((110, 100, 310, 300)), detections((100, 100, 300, 300))
    large.scores[0] = 0.95
    np.testing.assert_array_equal(joined(found, large, 320).boxes, [(100, 100, 300, 300)])
    np.testing.assert_array_equal(joined(large, found, 320).boxes, [(100, 100, 300, 300)])


def test_a_part_of_a_larger_face_is_dropped() -> None:
    beside, corner, poster = (70, 0, 100, 60), (0, 0, 40, 30), (10, 60, 18, 70)
    worse_part, face = (20, 20, 60, 55), (0, 0, 80, 80)
    ordered = largest_first(detections(beside, corner, poster, worse_part, face), 100, 100)
    np.testing.assert_array_equal(ordered.boxes, [face, beside, poster])


def test_a_box_around_better_faces_keeps_them() -> None:
    pattern, faces = (0, 0, 80, 80), [(0, 0, 30, 40), (40, 10, 70, 50)]
    ordered = largest_first(detections(pattern, *faces), 100, 100)
    np.testing.assert_array_equal(ordered.boxes, [pattern, *faces])


def test_an_empty_result_keeps_its_shapes() -> None:
    ordered = largest_first(detections(), 100, 100)
    assert ordered.boxes.shape == (0, 4)
    assert ordered.scores.shape == (0,)
    assert ordered.landmarks.shape == (0, 5, 2)
