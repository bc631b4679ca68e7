"""Properties of tracks and totals that hold for every stream."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.tracking.record import Record
from service.tracking.tracks import LOST_S, Tracker
from tests.seen import FaceSeen, seen

Stream = list[tuple[float, NDArray[np.float64]]]  # the time of each frame, and its boxes [N,4]

gaps_s = st.one_of(st.floats(0, 0.2), st.floats(0, 2 * LOST_S))
seeds = st.integers(0, 2**32 - 1)


@st.composite
def streams(draw: st.DrawFn) -> Stream:
    """Faces that move, overlap and are missing in some frames. No two boxes are equal."""
    random = np.random.default_rng(draw(seeds))
    faces = random.uniform((0, 0, 20, 20), (600, 400, 120, 120), (draw(st.integers(1, 6)), 4))
    time_s, stream = 0.0, []
    for gap_s in draw(st.lists(gaps_s, min_size=1, max_size=12)):
        time_s += gap_s
        faces[:, :2] += random.normal(0, 15, (len(faces), 2))
        found = faces[random.random(len(faces)) < 0.8] + random.normal(0, 1, 4)
        stream.append((time_s, random.permutation(found)))
    return stream


@given(streams())
def test_no_two_faces_of_a_frame_have_the_same_number(stream: Stream) -> None:
    tracker = Tracker()
    for time_s, boxes in stream:
        numbers = tracker.update(boxes, time_s)
        assert len(numbers) == len(boxes) == len(set(numbers))


@given(streams())
def test_a_number_is_new_or_of_a_face_that_was_seen_recently(stream: Stream) -> None:
    tracker, seen_s = Tracker(LOST_S), dict[int, float]()
    for time_s, boxes in stream:
        numbers = tracker.update(boxes, time_s)
        new = [number for number in numbers if number not in seen_s]
        assert sorted(new) == list(range(len(seen_s) + 1, len(seen_s) + len(new) + 1))
        assert all(time_s - seen_s.get(number, time_s) <= LOST_S for number in numbers)
        seen_s |= dict.fromkeys(numbers, time_s)


@given(streams(), seeds)
def test_the_order_of_faces_does_not_change_which_faces_share_a_number(stream: Stream, seed: int) -> None:
    """The same faces share a number, but the number may differ."""
    one, other, random = Tracker(), Tracker(), np.random.default_rng(seed)
    pairs = set()
    for time_s, boxes in stream:
        order = random.permutation(len(boxes))
        numbers = np.array(one.update(boxes, time_s), int)
        pairs |= set(zip(numbers[order].tolist(), other.update(boxes[order], time_s), strict=True))
    assert len(pairs) == len({number for number, _ in pairs}) == len({number for _, number in pairs})


any_rate = st.lists(st.floats(0, LOST_S * 0.999), max_size=20)


@given(any_rate, st.integers(1, 5))
def test_still_faces_keep_their_numbers_at_any_rate(gaps: list[float], count: int) -> None:
    tracker = Tracker()
    boxes = np.array([[90 * place, 0, 80, 80] for place in range(count)], np.float64)
    for time_s in np.cumsum([0.0, *gaps]):
        assert tracker.update(boxes, float(time_s)) == list(range(1, count + 1))


@given(any_rate, st.integers(1, 5), seeds)
@example([0.0, 1.5], 2, 0)
def test_faces_whose_boxes_jitter_keep_their_numbers_at_any_rate(
    gaps: list[float], count: int, seed: int
) -> None:
    """The boxes of a detector jitter by 2 % of the face. At a high frame rate the jitter looks like speed."""
    tracker, random = Tracker(), np.random.default_rng(seed)
    boxes = np.array([[100 * place, 0, 80, 80] for place in range(count)], np.float64)
    for time_s in np.cumsum([0.0, *gaps]):
        jittered = boxes + 80 * random.uniform(-0.02, 0.02, boxes.shape)
        assert tracker.update(jittered, float(time_s)) == list(range(1, count + 1))


@given(
    st.lists(st.tuples(gaps_s, st.floats(0, 1), st.booleans(), st.booleans()), min_size=1, max_size=30),
    st.floats(0, 5),
)
def test_shares_of_a_summary_add_up_to_one(
    frames: list[tuple[float, float, bool, bool]], time_constant_s: float
) -> None:
    record, time_s, shown = Record(time_constant_s, threshold=0.6), 0.0, 0
    for gap_s, happiness, certain, present in frames:
        time_s += gap_s
        faces = [FaceSeen("happiness", happiness, "certain" if certain else "uncertain")] if present else []
        shown += len(record.update(seen(*faces), time_s))
    for totals in record.totals():
        assert totals.time_share.sum() == pytest.approx(1)
        assert totals.probabilities.sum() == pytest.approx(1)
        assert 0 <= totals.certain <= 1
        assert totals.first_seen_s <= totals.last_seen_s <= time_s
    assert sum(totals.frames for totals in record.totals()) == shown
