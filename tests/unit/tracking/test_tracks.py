"""Which boxes get the same number, in scenes without images."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from service.tracking.tracks import FRAMES_LOST, LOST_S, Tracker

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
    for frame in range(10):
        tracker.update(boxes((100, 200)), frame / FPS)
    # A pause of the camera is no change of its rate.
    assert tracker.update(boxes((100, 200)), 0.9 + LOST_S + 0.1) == [2]


@pytest.mark.parametrize("gap_s", [0.5, 2, 2.5, 10])
def test_a_face_keeps_its_number_at_any_pace(gap_s: float) -> None:
    tracker = Tracker()
    for frame in range(20):
        missed = frame % 7 in (4, 5)
        numbers = tracker.update(boxes() if missed else boxes((100, 200)), frame * gap_s)
        assert numbers == ([] if missed else [1])
    gone_s = max(LOST_S, FRAMES_LOST * gap_s)
    for frame in range(20, 30):
        tracker.update(boxes(), frame * gap_s)
    assert 10 * gap_s > gone_s
    assert tracker.update(boxes((100, 200)), 30 * gap_s) == [2]


def test_a_class_keeps_its_numbers_at_one_frame_in_2_to_10_seconds() -> None:
    """30 faces that move by up to half of their width from frame to frame; 3 % are missed."""
    random, tracker, time_s = np.random.default_rng(0), Tracker(), 0.0
    places = np.array([(160 * (seat % 6) + 100, 160 * (seat // 6) + 100) for seat in range(30)])
    numbers: dict[int, int] = {}
    changes = 0
    for _ in range(200):
        time_s += random.uniform(2, 10)
        shown = np.flatnonzero(random.random(30) > 0.03)
        moved = places + random.uniform(-20, 20, places.shape)
        found = tracker.update(boxes(*map(tuple, moved[shown].tolist())), time_s)
        for seat, number in zip(shown.tolist(), found, strict=True):
            changes += numbers.get(seat, number) != number
            numbers[seat] = number
    assert changes <= 2
    assert len(set(numbers.values())) == 30


def test_the_time_unseen_can_be_chosen() -> None:
    tracker = Tracker(max_unseen_s=1)
    assert [tracker.update(boxes((100, 200)), time_s) for time_s in (0, 1, 2.1)] == [[1], [1], [2]]
    tracker = Tracker(max_unseen_s=60)
    assert [tracker.update(boxes((100, 200)), time_s) for time_s in (0, 0.1, 60)] == [[1], [1], [1]]


def test_a_number_is_never_used_again() -> None:
    tracker = Tracker(LOST_S)
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
