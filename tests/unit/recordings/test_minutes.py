"""The time of faces by minute."""

from __future__ import annotations

import numpy as np
import pytest

from service.core.seen import Verdict
from service.recordings.minutes import Minutes
from service.tracking.record import Followed

LABELS = ("calm", "glad")


def face(glad: float, verdict: Verdict = "certain") -> Followed:
    return Followed(1, False, np.array([1 - glad, glad]), verdict)


def test_the_time_between_two_frames_counts_for_the_earlier_one() -> None:
    minutes = Minutes(LABELS, 1.0)
    for time_s, faces in ((0.0, [face(1)]), (1.0, [face(0), face(1, "uncertain")]), (1.5, []), (2.0, [])):
        minutes.add(time_s, faces)
    minutes.end()
    whole = minutes.whole()
    assert (whole.frames, whole.seen_s, minutes.duration_s) == (4, 2.0, 2.5)
    assert whole.time_share == {"calm": 0.25, "glad": 0.75}
    assert (whole.certain, whole.absent) == (0.75, 0.4)


def test_a_span_over_the_end_of_a_minute_counts_for_both() -> None:
    minutes = Minutes(LABELS, 1.0)
    for time_s in (0.0, 1.0, 59.5, 60.5):
        minutes.add(time_s, [face(float(time_s > 1))])
    minutes.end()
    first, second = minutes.minutes()
    # After the gap, the frame of 1.0 s counts for 2 s.
    assert (first.seen_s, second.seen_s) == (3.5, 1.5)
    assert (first.start_s, first.end_s, second.start_s, second.end_s) == (0, 60, 60, 61.5)
    assert first.time_share is not None
    assert first.time_share["glad"] == pytest.approx(0.5 / 3.5, abs=1e-4)


def test_minutes_without_a_frame_are_left_out() -> None:
    minutes = Minutes(LABELS, 1.0)
    for time_s in (0.0, 1e9):
        minutes.add(time_s, [])
    minutes.end()
    assert [minute.absent for minute in minutes.minutes()] == [1.0, 1.0]
    assert minutes.whole().time_share is None


def test_a_video_of_one_frame_lasts_as_long_as_a_frame() -> None:
    minutes = Minutes(LABELS, 0.2)
    minutes.add(0.0, [face(1)])
    minutes.end()
    assert (minutes.whole().seen_s, minutes.duration_s) == (0.2, 0.2)
