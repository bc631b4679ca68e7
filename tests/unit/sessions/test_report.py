"""Counts of a session, and what its report shows of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from service.api.sessions import SessionReport
from service.core.errors import NotFound
from service.core.seen import NO_FACE, Outcome
from service.sessions.report import LATE_S, report
from service.sessions.sessions import Session, Sessions
from service.state.store import MemoryStore

LABELS = ("neutral", "happiness")
NEUTRAL, HAPPY = Outcome(True, "neutral", certain=True), Outcome(True, "happiness", certain=True)
UNSURE, UNREADABLE = Outcome(True, "happiness"), Outcome(face=True)


class Clock:
    def __init__(self) -> None:
        self.s = 1_000_000.0

    def __call__(self) -> float:
        return self.s


class Room:
    """A session with a clock that the test sets, from 0."""

    def __init__(
        self, min_participants: int | None = None, bin_minutes: int = 1, ttl_s: int = 86_400
    ) -> None:
        self.clock = Clock()
        self.sessions = Sessions(MemoryStore(), self.clock)
        self.session = Session("key", "Lesson", bin_minutes, ttl_s, min_participants, started_s=self.clock.s)

    def at(self, time_s: float) -> None:
        self.clock.s = self.session.started_s + time_s

    async def open(self) -> None:
        await self.sessions.add(self.session)

    async def count(self, participant: str, *outcomes: Outcome) -> None:
        for outcome in outcomes:
            await self.sessions.count(self.session, participant, outcome)

    async def report(self) -> SessionReport:
        tallies = await self.sessions.tallies(self.session)
        return report(self.session, tallies, LABELS, self.clock())


def crowd(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


async def test_shares_are_of_each_participant_and_of_each_bin() -> None:
    room = Room(bin_minutes=2)
    await room.open()
    await room.count("anna", HAPPY, HAPPY, HAPPY, NEUTRAL, NO_FACE)
    await room.count("ben", UNSURE, UNREADABLE, UNREADABLE, NO_FACE)
    room.at(119.9)
    await room.count("anna", NEUTRAL)
    room.at(240)
    await room.count("cleo", NO_FACE)
    found = await room.report()
    assert (found.name, found.bin_minutes, found.min_participants) == ("Lesson", 2, None)
    assert [(each.start_s, each.end_s) for each in found.bins] == [(0, 120), (240, 360)]
    first, last = found.bins
    assert first.participants is not None
    assert [each.participant for each in first.participants] == ["anna", "ben"]
    anna, ben = first.participants
    assert (anna.images, anna.absent, anna.unreadable, anna.certain) == (6, 0.1667, 0, 1)
    assert anna.image_share == {"neutral": 0.4, "happiness": 0.6}
    assert (ben.images, ben.absent, ben.unreadable, ben.certain) == (4, 0.25, 0.5, 0)
    # Each participant has the same weight in the group.
    assert first.group is not None
    assert (first.group.participants, first.group.images) == (2, 10)
    assert first.group.image_share == {"neutral": 0.2, "happiness": 0.8}
    assert (first.group.certain, first.group.unreadable, first.group.absent) == (0.5, 0.25, 0.2083)
    # Without a readable image there are no emotions.
    assert last.group is not None
    assert (last.group.image_share, last.group.certain, last.group.absent) == (None, None, 1)
    assert found.group is not None
    assert (found.group.participants, found.group.images) == (3, 11)


async def test_a_session_without_images_has_an_empty_report() -> None:
    for min_participants in (None, 5):
        room = Room(min_participants)
        await room.open()
        found = await room.report()
        assert (found.group, found.bins, found.participants) == (None, [], None if min_participants else [])


async def test_a_session_ends_with_its_time_or_when_it_is_deleted() -> None:
    room = Room(ttl_s=60)
    await room.open()
    await room.count("anna", HAPPY)
    room.at(60)
    with pytest.raises(NotFound):
        await room.count("anna", HAPPY)
    room.at(1)
    await room.sessions.delete(room.session)
    with pytest.raises(NotFound):
        await room.count("anna", HAPPY)
    with pytest.raises(NotFound):
        await room.sessions.find("key", room.session.id)
    # What is counted after the end does not bring the session back.
    assert await room.sessions.tallies(room.session) == {}


async def test_only_the_owner_finds_a_session() -> None:
    room = Room()
    await room.open()
    assert await room.sessions.find("key", room.session.id) == room.session
    for owner, id in (("other", room.session.id), ("", room.session.id), ("key", "0" * 32), ("key", "../x")):
        with pytest.raises(NotFound):
            await room.sessions.find(owner, id)


async def fill(room: Room, names: Sequence[str], minute: int, outcome: Outcome = HAPPY) -> None:
    room.at(60.0 * minute)
    for name in names:
        await room.count(name, outcome, outcome, NO_FACE, UNREADABLE)


async def test_groups_have_enough_participants_coarse_steps_and_no_names() -> None:
    room = Room(min_participants=5)
    await room.open()
    await fill(room, crowd(9), 0)
    await fill(room, crowd(8), 1)
    # Who is never readable does not count: among absent people one emotion would be one person's.
    await fill(room, crowd(8), 2)
    await room.count("p8", NO_FACE)
    room.at(600)
    found = await room.report()
    assert found.participants is None
    assert [each.group is not None for each in found.bins] == [True, False, False]
    group = found.bins[0].group
    assert group is not None
    assert (group.participants, group.images) == (9, None)
    assert group.image_share == {"neutral": 0, "happiness": 1}
    assert (group.absent, group.unreadable, group.certain) == (0.25, 0.25, 1)
    assert found.group == group
    text = found.model_dump_json(exclude_none=True)
    assert "p1" not in text
    assert '"images"' not in text


async def test_a_bin_appears_once_it_is_over_and_never_changes() -> None:
    room = Room(min_participants=5)
    await room.open()
    await fill(room, crowd(12), 0)
    room.at(60 + LATE_S - 0.1)
    assert (await room.report()).bins == []
    room.at(60 + LATE_S)
    first = await room.report()
    assert len(first.bins) == 1
    # A single image more, of a new participant, changes nothing before its bin is over, and nothing then.
    await room.count("late", NEUTRAL)
    assert await room.report() == first
    room.at(600)
    assert (await room.report()).bins[0] == first.bins[0]
    assert (await room.report()).bins[1].group is None
    assert (await room.report()).group == first.group


async def test_the_same_participants_draw_the_same_lot_in_each_bin() -> None:
    room = Room(min_participants=5)
    await room.open()
    for minute in range(20):
        await fill(room, crowd(6), minute, HAPPY)
        await fill(room, [f"q{number}" for number in range(6)], minute, NEUTRAL)
    room.at(6000)
    groups = [each.group for each in (await room.report()).bins]
    assert all(group == groups[0] for group in groups)


async def test_one_participant_who_sends_much_weighs_no_more_than_others() -> None:
    room = Room(min_participants=5)
    await room.open()
    await fill(room, crowd(30), 0, NEUTRAL)
    await room.count("p0", *[HAPPY] * 500)
    room.at(600)
    (only,) = (await room.report()).bins
    assert only.group is not None
    assert only.group.image_share == {"neutral": 0.95, "happiness": 0.05} or only.group.image_share == {
        "neutral": 1.0,
        "happiness": 0.0,
    }


async def test_the_difference_of_two_reports_does_not_name_the_emotion_of_who_leaves() -> None:
    """The worst case: nobody else changes, and the attacker knows who leaves after the first minute."""
    random, trials, correct = np.random.default_rng(0), 120, 0
    for _ in range(trials):
        room = Room(min_participants=5)
        await room.open()
        emotions = random.random(13) < 0.5
        for minute, present in enumerate((13, 12)):
            for name, happy in zip(crowd(present), emotions[:present].tolist(), strict=True):
                room.at(60.0 * minute)
                await room.count(name, HAPPY if happy else NEUTRAL)
        room.at(600)
        before, after = ((each.group and each.group.image_share) or {} for each in (await room.report()).bins)
        fell = before["happiness"] - after["happiness"]
        guess = fell > 0 if abs(fell) > 1e-9 else random.random() < 0.5
        correct += int(guess == emotions[-1])
    # A guess is right in half of the trials. Without the lot all of these would be right.
    assert correct / trials < 0.7
