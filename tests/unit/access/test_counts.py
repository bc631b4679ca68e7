"""What a caller may spend, counted in memory."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from service.access import counts
from service.access.counts import LocalCounts
from service.access.rates import Caller, Rate
from service.http.layers.quotas import address_of

RATE = Rate(10, 86400)
ONE, OTHER = Caller("key", "one"), Caller("key", "other")


def set_clock(monkeypatch: pytest.MonkeyPatch, now_s: float) -> None:
    """For the counts alone: the event loop has the same clock."""
    monkeypatch.setattr(counts, "time", SimpleNamespace(monotonic=lambda: now_s))


async def test_a_rate_is_spent_and_no_further() -> None:
    limiter = LocalCounts()
    spent = [await limiter.spend(RATE, ONE, 4) for _ in range(3)]
    assert [(each.allowed, each.remaining) for each in spent] == [(True, 6), (True, 2), (False, 2)]
    assert all(0 < each.reset_s <= 86400 for each in spent)
    # What was refused was not spent.
    assert (await limiter.spend(RATE, ONE, 2)).remaining == 0
    assert (await limiter.spend(RATE, OTHER, 10)).allowed


async def test_what_comes_at_once_is_not_let_in_twice() -> None:
    limiter = LocalCounts()
    spent = await asyncio.gather(*(limiter.spend(RATE, ONE, 1) for _ in range(50)))
    assert sum(each.allowed for each in spent) == 10


async def test_keys_and_addresses_of_one_name_do_not_share() -> None:
    limiter = LocalCounts()
    assert (await limiter.spend(RATE, Caller("key", "10.0.0.1"), 10)).allowed
    assert (await limiter.spend(RATE, Caller("address", "10.0.0.1"), 10)).allowed


async def test_after_the_window_there_is_more() -> None:
    limiter = LocalCounts()
    rate = Rate(2, 1)
    assert [(await limiter.spend(rate, ONE, 1)).allowed for _ in range(2)] == [True, True]
    async with asyncio.timeout(10):
        while not (await limiter.spend(rate, ONE, 1)).allowed:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_strangers_never_share_a_count() -> None:
    limiter = LocalCounts()
    callers = [Caller("address", f"10.0.{number // 256}.{number % 256}") for number in range(5_000)]
    for images in (4, 6):
        for caller in callers:
            spent = await limiter.spend(RATE, caller, images)
            assert (spent.allowed, spent.remaining) == (True, 6 if images == 4 else 0)


async def test_the_window_slides(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter, rate = LocalCounts(), Rate(10, 60)

    async def at(now_s: float, images: int) -> tuple[bool, int, int]:
        set_clock(monkeypatch, now_s)
        spent = await limiter.spend(rate, ONE, images)
        return spent.allowed, spent.remaining, spent.reset_s

    assert await at(6000.0, 10) == (True, 0, 60)
    assert await at(6059.0, 1) == (False, 0, 1)
    # A quarter of the window is out of reach: of its 10 images 7.5 still count.
    assert await at(6075.0, 4) == (False, 3, 3)
    assert await at(6075.0, 3) == (True, 0, 3)
    assert await at(6078.1, 1) == (True, 0, 6)
    # Two windows later nothing counts any more.
    assert await at(6240.0, 10) == (True, 0, 60)


async def test_the_count_of_who_is_idle_for_longest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MAX_CALLERS", 8)
    limiter = LocalCounts()
    assert (await limiter.spend(RATE, ONE, 10)).remaining == 0
    for number in range(100):
        await limiter.spend(RATE, Caller("address", f"10.0.0.{number}"), 1)
        assert len(limiter) <= 8
        # Who calls all the time is never forgotten.
        assert not (await limiter.spend(RATE, ONE, 1)).allowed
    assert (await limiter.spend(RATE, Caller("address", "10.0.0.0"), 10)).allowed
    assert not (await limiter.spend(RATE, Caller("address", "10.0.0.99"), 10)).allowed


async def test_counts_without_effect_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter = LocalCounts()
    set_clock(monkeypatch, 1000.0)
    for number in range(100):
        await limiter.spend(Rate(10, 60), Caller("address", f"10.0.0.{number}"), 1)
    set_clock(monkeypatch, 1200.0)
    for _ in range(50):
        await limiter.spend(Rate(10, 60), ONE, 0)
    assert len(limiter) == 1


@pytest.mark.parametrize(
    "text", ["", "10", "0/minute", "-1/minute", "1.5/minute", "10/week", "10 / minute", "٣/minute"]
)
def test_a_rate_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="600/minute"):
        Rate.parse(text)


def test_a_rate_is_read() -> None:
    assert [Rate.parse(f"7/{window}") for window in ("second", "minute", "hour", "day")] == [
        Rate(7, seconds) for seconds in (1, 60, 3600, 86400)
    ]


@pytest.mark.parametrize(
    ("client", "stands_for"),
    [
        (("10.0.0.1", 80), "10.0.0.1"),
        (("2001:db8:1:2:3:4:5:6", 80), "2001:db8:1:2::"),
        (("::ffff:10.0.0.1", 80), "10.0.0.1"),
        (("unix", 0), "unix"),
        (None, ""),
    ],
)
def test_whom_an_address_stands_for(client: object, stands_for: str) -> None:
    assert address_of({"client": client}) == stands_for
