"""The smoothed answer for a face over time, and the totals of all faces at the end."""

from __future__ import annotations

import math

import pytest

from service.core.seen import Seen
from service.tracking import record
from service.tracking.record import Record
from tests.seen import FaceSeen, seen

LABELS = ("neutral", "happiness")


def frame(*happiness: float, x: tuple[float, ...] = (100, 500), certain: bool = True) -> Seen:
    """A frame with a face for each probability of happiness, at `x`."""
    faces = [
        FaceSeen("happiness", share, "certain" if certain else "uncertain", (left, 50, 80, 100))
        for share, left in zip(happiness, x, strict=False)
    ]
    return seen(*faces, labels=LABELS)


def test_a_change_is_smoothed() -> None:
    record = Record(time_constant_s=1.0, threshold=0.6)
    record.update(frame(0.0), 0)
    (face,) = record.update(frame(1.0), 1.0)
    assert face.number == 1
    assert face.probabilities[1] == pytest.approx(1 - math.exp(-1), abs=1e-6)
    assert (LABELS[face.best], face.verdict) == ("happiness", "certain")


def test_below_the_threshold_the_smoothed_verdict_is_uncertain() -> None:
    record = Record(time_constant_s=1.0, threshold=0.7)
    record.update(frame(0.0), 0)
    (face,) = record.update(frame(1.0), 1.0)
    assert face.verdict == "uncertain"


def test_uncertain_frames_do_not_give_a_certain_verdict() -> None:
    record = Record(time_constant_s=1.0, threshold=0.6)
    for number in range(10):
        (face,) = record.update(frame(0.9, certain=False), number / 10)
    assert face.probabilities.max() == pytest.approx(0.9)
    assert face.verdict == "uncertain"


def test_a_face_is_new_only_in_its_first_frame() -> None:
    record = Record(1.0, 0.6)
    (first,) = record.update(frame(1.0), 0)
    again, other = record.update(frame(1.0, 1.0), 0.1)
    assert (first.new, again.new, other.new) == (True, False, True)
    assert (first.number, again.number, other.number) == (1, 1, 2)


def test_the_totals_weigh_emotions_by_time_and_means_by_frames() -> None:
    record = Record(time_constant_s=0, threshold=0.6)
    for time_s, happiness in ((0.0, 1.0), (0.1, 0.9), (0.4, 0.2), (1.0, 0.5)):
        record.update(frame(happiness, certain=happiness > 0.5), time_s)
    # The time after a frame without the face counts for nothing.
    record.update(frame(), 2.0)
    record.update(frame(), 9.0)
    (totals,) = record.totals()
    assert (totals.first_seen_s, totals.last_seen_s, totals.frames) == (0, 1, 4)
    assert totals.probabilities == pytest.approx([0.35, 0.65])
    assert totals.time_share == pytest.approx([0.8, 0.2])
    assert totals.certain == pytest.approx(0.2)


def test_the_one_person_of_a_stream_keeps_the_number_after_any_absence() -> None:
    record = Record(time_constant_s=0, threshold=0.6, one_person=True)
    assert [face.number for face in record.update(frame(1.0), 0)] == [1]
    record.update(frame(), 2)
    (again,) = record.update(frame(0.0, x=(500,)), 600)
    assert (again.number, again.new) == (1, False)
    record.update(frame(), 602)
    (totals,) = record.totals()
    assert totals.time_share == pytest.approx([0.5, 0.5])


def test_a_face_of_one_frame_has_one_emotion_all_the_time() -> None:
    record = Record(0.5, 0.6)
    record.update(frame(1.0), 3)
    (totals,) = record.totals()
    assert totals.time_share.tolist() == [0.0, 1.0]
    assert totals.certain == 1


def test_only_the_last_tracks_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "MAX_TRACKS", 3)
    visitors = Record(0.5, 0.6, max_unseen_s=2)
    for visit in range(5):
        visitors.update(frame(1.0), 10.0 * visit)
    assert [totals.number for totals in visitors.totals()] == [3, 4, 5]
    assert visitors.omitted == 2


def test_a_frame_without_faces_has_no_tracks() -> None:
    assert Record(0.5, 0.6).update(frame(), 0) == []
