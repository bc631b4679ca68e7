"""What counts as a difference between two answers."""

from __future__ import annotations

from typing import Any

from tests.bench.answers import Pair, paired

EMOTIONS = ("neutral", "happiness")


def face(
    x: float = 10, *, width: float = 40, happiness: float = 0.75, verdict: str = "certain"
) -> dict[str, Any]:
    probabilities = dict(zip(EMOTIONS, (1 - happiness, happiness), strict=True))
    return {
        "box": {"x": x, "y": 20.0, "width": width, "height": 50.0},
        "emotion": max(probabilities, key=probabilities.__getitem__),
        "verdict": verdict,
        "probabilities": probabilities,
    }


def test_faces_are_paired_by_place_in_any_order() -> None:
    this, other = [face(10), face(100), face(200)], [face(202), face(11), face(400)]
    pairs, this_alone, other_alone = paired(this, other)
    assert sorted((pair.this["box"]["x"], pair.other["box"]["x"]) for pair in pairs) == [(10, 11), (200, 202)]
    assert [alone["box"]["x"] for alone in this_alone] == [100]
    assert [alone["box"]["x"] for alone in other_alone] == [400]


def test_the_face_with_the_larger_overlap_is_paired() -> None:
    pairs, this_alone, _ = paired([face(18), face(10)], [face(11)])
    assert [(pair.this["box"]["x"], pair.other["box"]["x"]) for pair in pairs] == [(10, 11)]
    assert len(this_alone) == 1


def test_answers_without_faces_have_no_pairs() -> None:
    assert paired([], []) == ([], [], [])
    assert paired([face()], []) == ([], [face()], [])


def test_a_change_within_the_tolerance_is_no_difference() -> None:
    assert Pair(face(), face(10.9, happiness=0.758)).differences == {}


def test_each_kind_of_difference_is_named() -> None:
    assert set(Pair(face(), face(11.1)).differences) == {"box"}
    # The left sides are equal, and the right sides differ.
    assert set(Pair(face(), face(width=42)).differences) == {"box"}
    assert set(Pair(face(), face(happiness=0.77)).differences) == {"probabilities"}
    assert set(Pair(face(), face(verdict="uncertain")).differences) == {"verdict"}
    assert Pair(face(), face(happiness=0.4)).differences == {
        "emotion": "emotion happiness, other neutral",
        "probabilities": "a probability off by 0.350",
    }
