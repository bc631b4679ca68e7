"""Whether the difference of two group answers is about one person."""

from __future__ import annotations

import numpy as np
import pytest

from service.pipeline.groups import drawn, in_steps, min_members, new_secret

MIN_GROUP = 5


def names(count: int) -> list[str]:
    return [f"person-{number}" for number in range(count)]


@pytest.mark.parametrize("count", [min_members(MIN_GROUP), 12, 30])
def test_all_but_a_few_members_count(count: int) -> None:
    secret = new_secret()
    counted = drawn(names(count), MIN_GROUP, secret)
    assert len(set(counted)) == count - (MIN_GROUP - 1) >= MIN_GROUP
    assert set(counted) < set(names(count))
    # The order of the members and the number of questions change nothing.
    assert drawn(reversed(names(count)), MIN_GROUP, secret) == counted


def test_who_is_left_out_depends_on_the_secret_and_on_every_member() -> None:
    # Fixed secrets: with fresh ones, two of 30 lots are the same in one of 55 runs.
    secret, members = b"secret", names(30)
    lots = {tuple(drawn(members, MIN_GROUP, b"%d" % number)) for number in range(20)}
    assert len(lots) == 20
    stayed = [
        set(members) - {gone} - set(drawn(set(members) - {gone}, MIN_GROUP, secret)) for gone in members
    ]
    assert len({tuple(sorted(left_out)) for left_out in stayed}) == 30


def guessed(others: int, *, by_lot: bool) -> float:
    """How often the difference of two answers, with a person and without, names this person's emotion.

    The worst case: nobody else changes, and the attacker knows who leaves.
    """
    random, shares = np.random.default_rng(0), np.array([0.4, 0.3, 0.2, 0.1])
    correct = 0
    for trial in range(1000):
        emotions = random.choice(4, p=shares, size=others + 1)
        rows, everybody = np.eye(4)[emotions], [str(number) for number in range(others + 1)]
        answers = []
        for members in (everybody, everybody[:-1]):
            counted = drawn(members, MIN_GROUP, b"%d" % trial) if by_lot else members
            answers.append(in_steps(rows[[int(name) for name in counted]]))
        fell = answers[0] - answers[1]
        best = np.flatnonzero(fell > fell.max() - 1e-9)
        correct += int(best[shares[best].argmax()] == emotions[-1])
    return correct / 1000


@pytest.mark.parametrize("others", [9, 12, 20])
def test_the_difference_of_two_answers_does_not_name_the_emotion_of_who_leaves(others: int) -> None:
    # Always naming the most common emotion is right in 40 % of the trials.
    assert guessed(others, by_lot=True) < 0.55
    assert guessed(others, by_lot=False) > 0.8
