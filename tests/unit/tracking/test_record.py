"""What is said of a face over time, and of all faces at the end."""

from __future__ import annotations

import math

import pytest

from service.api.schemas import Box, Face
from service.tracking import record
from service.tracking.record import Record


def face(happiness: float, x: float = 100, *, certain: bool = True) -> Face:
    probabilities = {"neutral": 1 - happiness, "happiness": happiness}
    emotion = max(probabilities, key=lambda label: probabilities[label])
    return Face(
        box=Box(x=x, y=50, width=80, height=100),
        detection_confidence=0.95,
        emotion=emotion,
        confidence=probabilities[emotion],
        verdict="certain" if certain else "uncertain",
        probabilities=probabilities,
    )


def test_a_frames_own_answer_stays_beside_the_smoothed_one() -> None:
    record = Record(time_constant_s=1.0, threshold=0.6)
    record.update([face(0.0)], 0)
    (tracked,) = record.update([face(1.0)], 1.0)
    assert (tracked.track, tracked.emotion, tracked.confidence) == (1, "happiness", 1.0)
    assert tracked.detection_confidence == 0.95
    happiness = 1 - math.exp(-1)
    assert tracked.smoothed.probabilities["happiness"] == pytest.approx(happiness, abs=1e-6)
    assert (tracked.smoothed.emotion, tracked.smoothed.verdict) == ("happiness", "certain")


def test_below_the_threshold_the_smoothed_verdict_is_uncertain() -> None:
    record = Record(time_constant_s=1.0, threshold=0.7)
    record.update([face(0.0)], 0)
    (tracked,) = record.update([face(1.0)], 1.0)
    assert tracked.smoothed.verdict == "uncertain"


def test_uncertain_frames_do_not_become_certain_together() -> None:
    record = Record(time_constant_s=1.0, threshold=0.6)
    for number in range(10):
        (tracked,) = record.update([face(0.9, certain=False)], number / 10)
    assert (tracked.smoothed.confidence, tracked.smoothed.verdict) == (0.9, "uncertain")


def test_a_face_is_new_once() -> None:
    record = Record(1.0, 0.6)
    (first,) = record.update([face(1.0)], 0)
    assert record.is_new(first)
    again, other = record.update([face(1.0), face(1.0, x=500)], 0.1)
    assert (record.is_new(again), record.is_new(other)) == (False, True)


def test_the_summary_weighs_emotions_by_time_and_means_by_frames() -> None:
    record = Record(time_constant_s=0, threshold=0.6)
    for time_s, happiness in ((0.0, 1.0), (0.1, 0.9), (0.4, 0.2), (1.0, 0.5)):
        record.update([face(happiness, certain=happiness > 0.5)], time_s)
    record.update([], 9.0)
    (summary,) = record.summary()
    assert (summary.first_seen_s, summary.last_seen_s, summary.frames) == (0, 1, 4)
    assert summary.probabilities == pytest.approx({"neutral": 0.35, "happiness": 0.65})
    assert summary.time_share == pytest.approx({"neutral": 0.6, "happiness": 0.4})
    assert summary.certain == pytest.approx(0.4)


def test_a_face_of_one_frame_showed_one_emotion() -> None:
    record = Record(0.5, 0.6)
    record.update([face(1.0)], 3)
    (summary,) = record.summary()
    assert summary.time_share == {"neutral": 0.0, "happiness": 1.0}
    assert summary.certain == 1


def test_a_crowd_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "MOST_TRACKS", 3)
    crowd = Record(0.5, 0.6)
    for visit in range(5):
        crowd.update([face(1.0)], 10.0 * visit)
    assert [summary.track for summary in crowd.summary()] == [3, 4, 5]
    assert crowd.left_out == 2


def test_a_frame_without_faces_has_no_tracks() -> None:
    assert Record(0.5, 0.6).update([], 0) == []
