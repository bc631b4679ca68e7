"""Which boxes get the same number, in scenes without images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.tracking.tracks import LOST_S, Tracker

FPS = 10


def boxes(*centres: tuple[float, float], size: float = 80) -> NDArray[np.float64]:
    return np.array([(x - size / 2, y - size / 2, size, size) for x, y in centres], np.float64).reshape(-1, 4)


def test_numbers_begin_at_one_and_stay_while_a_face_moves() -> None:
    tracker = Tracker()
    for frame in range(30):
        numbers = tracker.update(boxes((50 + 20 * frame, 100), (600 - 15 * frame, 300)), frame / FPS)
        assert numbers == [1, 2]


def test_the_order_of_boxes_does_not_matter() -> None:
    tracker = Tracker()
    assert tracker.update(boxes((100, 100), (300, 100)), 0) == [1, 2]
    assert tracker.update(boxes((302, 100), (101, 100)), 0.1) == [2, 1]


def test_faces_that_cross_keep_their_numbers_while_one_hides_the_other() -> None:
    tracker = Tracker()
    for frame in range(41):
        near, far = (100 + 10 * frame, 200), (500 - 10 * frame, 205)
        hidden = abs(near[0] - far[0]) < 50
        numbers = tracker.update(boxes(near) if hidden else boxes(near, far), frame / FPS)
        assert numbers == ([1] if hidden else [1, 2]), frame


def test_a_face_that_moves_far_between_slow_frames_keeps_its_number() -> None:
    tracker = Tracker()
    for frame in range(8):
        # The face moves by almost its own width per frame, so its boxes hardly overlap.
        assert tracker.update(boxes((60 + 75 * frame, 200)), frame / 4) == [1]


def test_a_face_that_is_missed_for_a_while_keeps_its_number() -> None:
    tracker = Tracker()
    for frame in range(5):
        tracker.update(boxes((100 + 8 * frame, 200)), frame / FPS)
    tracker.update(boxes(), 0.6)
    assert tracker.update(boxes((100 + 8 * 9, 200)), 0.9) == [1]


def test_a_face_that_is_missed_for_too_long_gets_a_new_number() -> None:
    tracker = Tracker()
    tracker.update(boxes((100, 200)), 0)
    assert tracker.update(boxes((100, 200)), LOST_S + 0.1) == [2]


def test_a_number_is_never_used_again() -> None:
    tracker = Tracker()
    seen = [tracker.update(boxes((100, 200)), 2.0 * LOST_S * visit) for visit in range(5)]
    assert seen == [[1], [2], [3], [4], [5]]


def test_a_face_at_another_place_or_of_another_size_gets_a_new_number() -> None:
    tracker = Tracker()
    tracker.update(boxes((100, 200)), 0)
    assert tracker.update(boxes((400, 200)), 0.1) == [2]
    assert tracker.update(boxes((401, 200), size=300), 0.2) == [3]


def test_frames_with_equal_times_change_no_number() -> None:
    tracker = Tracker()
    for _ in range(3):
        assert tracker.update(boxes((100, 200)), 1.0) == [1]
    assert tracker.update(boxes((101, 200)), 1.1) == [1]
    assert tracker.update(boxes((102, 200)), 1.9) == [1]
