"""When a queue stands, by a clock that the test turns."""

from __future__ import annotations

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
    """Images that come and are answered in their order."""

    def __init__(self, backlog: Backlog, clock: Clock) -> None:
        self.backlog, self.clock = backlog, clock
        self.waiting: deque[AbstractContextManager[None]] = deque()

    def come(self) -> None:
        image = self.backlog.image()
        image.__enter__()
        self.waiting.append(image)

    def answered(self, each_s: float) -> None:
        self.clock.s += each_s
        self.waiting.popleft().__exit__(None, None, None)

    def overload(self, each_s: float, seconds: float) -> int:
        """One is answered every `each_s`, two more would come; the most that were there at once."""
        most = 0
        for _ in range(round(seconds / each_s)):
            for _ in range(2):
                if not self.backlog.full:
                    self.come()
            most = max(most, len(self.waiting))
            self.answered(each_s)
        return most


@pytest.fixture
def callers(backlog: Backlog, clock: Clock) -> Callers:
    return Callers(backlog, clock)


def test_a_burst_is_not_refused_however_large(backlog: Backlog, clock: Clock, callers: Callers) -> None:
    for _ in range(100):
        assert not backlog.full
        callers.come()
        clock.s += STANDING_S / 200


@pytest.mark.parametrize("each_s", [0.002, 0.02, 0.2, 5.0])
def test_a_queue_that_never_empties_is_no_longer_than_keeps_the_workers_busy(
    callers: Callers, each_s: float
) -> None:
    callers.overload(each_s, max(3.0, 60 * each_s))
    while len(callers.waiting) > 3:
        callers.answered(each_s)
    assert callers.overload(each_s, max(3.0, 60 * each_s)) == LIMIT


def test_few_callers_are_never_refused_however_few_the_workers(clock: Clock) -> None:
    callers = Callers(Backlog(workers=1, images_per_worker=1, now=clock), clock)
    for _ in range(1000):
        while len(callers.waiting) < MIN_LIMIT:
            assert not callers.backlog.full
            callers.come()
        callers.answered(0.02)
    callers.come()
    assert callers.backlog.full


def test_workers_that_answer_nothing_let_nobody_wait(
    backlog: Backlog, clock: Clock, callers: Callers
) -> None:
    for _ in range(LIMIT):
        callers.come()
    clock.s += STANDING_S + 0.01
    callers.come()
    assert backlog.full


def test_workers_that_are_all_busy_are_no_queue(backlog: Backlog, clock: Clock, callers: Callers) -> None:
    callers.come()
    callers.come()
    clock.s += 100
    for _ in range(50):
        callers.come()
        assert not backlog.full, "it has waited for less than a moment"


@pytest.mark.parametrize(("workers", "max_images"), [(1, 0), (2, 1), (3, 1), (8, 4)])
def test_sparse_is_when_each_image_could_have_two_cores(workers: int, max_images: int) -> None:
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


def test_a_moment_without_waiting_ends_the_count_but_not_what_was_found(
    backlog: Backlog, clock: Clock, callers: Callers
) -> None:
    callers.overload(0.2, 3)
    while callers.waiting:
        callers.answered(0.2)
    assert not backlog.full
    for _ in range(LIMIT):
        callers.come()
    assert backlog.full, "it was not calm for long enough"
    while callers.waiting:
        callers.answered(0.0)
    clock.s += CALM_S + 0.1
    for _ in range(LIMIT):
        callers.come()
    assert not backlog.full


def test_images_that_fail_are_gone_too(backlog: Backlog, clock: Clock) -> None:
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
