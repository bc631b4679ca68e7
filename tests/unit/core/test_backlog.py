"""When a backlog refuses images, with a clock that the test sets."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import AbstractContextManager, ExitStack

import pytest

from service.core.backlog import CALM_S, MIN_LIMIT, STANDING_S, Backlog

LIMIT = 10


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def backlog(clock: Clock) -> Backlog:
    return Backlog(workers=2, images_per_worker=LIMIT // 2, now=clock)


class Callers:
    """Sends images to a backlog, and answers them in their order."""

    def __init__(self, backlog: Backlog, clock: Clock) -> None:
        self.backlog, self.clock = backlog, clock
        self.waiting: deque[AbstractContextManager[None]] = deque()

    def send_one(self) -> None:
        image = self.backlog.image()
        image.__enter__()
        self.waiting.append(image)

    def answer_one(self, each_s: float) -> None:
        self.clock.s += each_s
        self.waiting.popleft().__exit__(None, None, None)

    def overload(self, each_s: float, seconds: float) -> int:
        """Offer two images before each answer, one every `each_s`. Returns the max. number of images."""
        max_images = 0
        for _ in range(round(seconds / each_s)):
            for _ in range(2):
                if not self.backlog.full:
                    self.send_one()
            max_images = max(max_images, len(self.waiting))
            self.answer_one(each_s)
        return max_images


@pytest.fixture
def callers(backlog: Backlog, clock: Clock) -> Callers:
    return Callers(backlog, clock)


def test_a_burst_of_any_size_is_accepted(backlog: Backlog, clock: Clock, callers: Callers) -> None:
    for _ in range(100):
        assert not backlog.full
        callers.send_one()
        clock.s += STANDING_S / 200


@pytest.mark.parametrize("each_s", [0.002, 0.02, 0.2, 5.0])
def test_a_queue_that_never_empties_is_limited_to_what_keeps_the_workers_busy(
    callers: Callers, each_s: float
) -> None:
    callers.overload(each_s, max(3.0, 60 * each_s))
    while len(callers.waiting) > 3:
        callers.answer_one(each_s)
    assert callers.overload(each_s, max(3.0, 60 * each_s)) == LIMIT


def test_images_below_the_min_limit_are_never_refused(clock: Clock) -> None:
    callers = Callers(Backlog(workers=1, images_per_worker=1, now=clock), clock)
    for _ in range(1000):
        while len(callers.waiting) < MIN_LIMIT:
            assert not callers.backlog.full
            callers.send_one()
        callers.answer_one(0.02)
    callers.send_one()
    assert callers.backlog.full


def test_a_backlog_of_stuck_workers_is_full(backlog: Backlog, clock: Clock, callers: Callers) -> None:
    for _ in range(LIMIT):
        callers.send_one()
    clock.s += STANDING_S + 0.01
    callers.send_one()
    assert backlog.full


def test_busy_workers_alone_are_no_queue(backlog: Backlog, clock: Clock, callers: Callers) -> None:
    callers.send_one()
    callers.send_one()
    clock.s += 100
    for _ in range(50):
        callers.send_one()
        assert not backlog.full, "no image has waited yet"


@pytest.mark.parametrize(("workers", "max_images"), [(1, 0), (2, 1), (3, 1), (8, 4)])
def test_a_backlog_is_sparse_while_each_image_can_have_two_cores(workers: int, max_images: int) -> None:
    backlog = Backlog(workers, images_per_worker=10)
    with ExitStack() as images:
        for count in range(10):
            assert backlog.sparse == (count <= max_images)
            images.enter_context(backlog.image())


def test_rest_begins_when_the_last_image_is_done(backlog: Backlog, clock: Clock) -> None:
    clock.s += 3
    assert backlog.rest_s == 3
    with backlog.image():
        with backlog.image():
            clock.s += 5
        clock.s += 5
        assert backlog.rest_s == 0
    clock.s += 2
    assert backlog.rest_s == 2


def test_a_backlog_stays_strained_for_calm_s_after_its_queue_is_empty(
    backlog: Backlog, clock: Clock, callers: Callers
) -> None:
    callers.overload(0.2, 3)
    while callers.waiting:
        callers.answer_one(0.2)
    assert not backlog.full
    for _ in range(LIMIT):
        callers.send_one()
    assert backlog.full, "it was calm for less than CALM_S"
    while callers.waiting:
        callers.answer_one(0.0)
    clock.s += CALM_S + 0.1
    for _ in range(LIMIT):
        callers.send_one()
    assert not backlog.full


def test_failed_images_leave_the_backlog(backlog: Backlog, clock: Clock) -> None:
    for _ in range(LIMIT):
        with pytest.raises(KeyError), backlog.image():
            raise KeyError
    with ExitStack() as images:
        for _ in range(LIMIT - 1):
            images.enter_context(backlog.image())
        clock.s += STANDING_S + 0.01
        with backlog.image():
            pass
        with backlog.image():
            assert backlog.full
        assert not backlog.full


async def test_frames_of_streams_wait_in_turn_and_leave_half_of_the_backlog_to_requests(
    backlog: Backlog, clock: Clock, callers: Callers
) -> None:
    callers.overload(0.02, 3.0)
    while len(callers.waiting) > LIMIT // 2 - 1:
        callers.answer_one(0.02)
    await backlog.wait()  # less than half full

    callers.send_one()
    assert not backlog.full
    admitted: list[int] = []

    async def frame(number: int) -> None:
        await backlog.wait()
        admitted.append(number)
        callers.send_one()

    frames = [asyncio.create_task(frame(number)) for number in range(4)]
    await asyncio.sleep(0)
    assert admitted == []
    frames[0].cancel()
    for count in (1, 2, 3):
        callers.answer_one(0.02)
        await asyncio.wait(frames, timeout=0.01)
        assert admitted == [1, 2, 3][:count]


async def test_when_several_images_leave_as_many_frames_follow(
    backlog: Backlog, clock: Clock, callers: Callers
) -> None:
    callers.overload(0.02, 3.0)
    assert len(callers.waiting) > LIMIT // 2
    frames = [asyncio.create_task(backlog.wait()) for _ in range(8)]
    await asyncio.sleep(0)
    while callers.waiting:
        callers.answer_one(0.02)
    await asyncio.wait(frames, timeout=5)
    assert all(frame.done() for frame in frames)


async def test_images_that_leave_at_once_let_in_no_more_frames_than_there_are_places(
    backlog: Backlog, clock: Clock, callers: Callers
) -> None:
    """The faces of several images are classified in one call, and their answers come at the same time."""
    callers.overload(0.02, 3.0)
    refused: list[int] = []
    most = 0

    async def frame(number: int) -> None:
        nonlocal most
        await backlog.wait()
        if backlog.full:
            refused.append(number)
        else:
            with backlog.image():
                most = max(most, backlog.images)
                await asyncio.sleep(0.01)

    frames = [asyncio.create_task(frame(number)) for number in range(3 * LIMIT)]
    await asyncio.sleep(0)
    while callers.waiting:
        callers.answer_one(0.02)
    await asyncio.wait_for(asyncio.gather(*frames), 5)
    assert not refused
    assert most == LIMIT // 2


async def test_without_a_queue_frames_do_not_wait(backlog: Backlog, callers: Callers) -> None:
    for _ in range(3 * LIMIT):
        callers.send_one()
        await backlog.wait()
