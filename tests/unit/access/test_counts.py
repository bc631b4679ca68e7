"""Rate limits that are counted in memory."""

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
    """Set the clock of the counts only. The event loop uses the same clock, and must not see this time."""
    monkeypatch.setattr(counts, "time", SimpleNamespace(monotonic=lambda: now_s))


async def test_a_caller_cannot_spend_more_than_the_rate() -> None:
    limiter = LocalCounts()
    spent = [await limiter.spend(RATE, ONE, 4) for _ in range(3)]
    assert [(each.allowed, each.remaining) for each in spent] == [(True, 6), (True, 2), (False, 2)]
    assert all(0 < each.reset_s <= 86400 for each in spent)
    # A refused request is not counted.
    assert (await limiter.spend(RATE, ONE, 2)).remaining == 0
    assert (await limiter.spend(RATE, OTHER, 10)).allowed


async def test_concurrent_requests_cannot_exceed_the_rate() -> None:
    limiter = LocalCounts()
    spent = await asyncio.gather(*(limiter.spend(RATE, ONE, 1) for _ in range(50)))
    assert sum(each.allowed for each in spent) == 10


async def test_a_key_and_an_address_with_one_name_have_separate_counts() -> None:
    limiter = LocalCounts()
    assert (await limiter.spend(RATE, Caller("key", "10.0.0.1"), 10)).allowed
    assert (await limiter.spend(RATE, Caller("address", "10.0.0.1"), 10)).allowed


async def test_after_the_window_requests_are_allowed_again() -> None:
    limiter = LocalCounts()
    rate = Rate(2, 1)
    assert [(await limiter.spend(rate, ONE, 1)).allowed for _ in range(2)] == [True, True]
    async with asyncio.timeout(10):
        while not (await limiter.spend(rate, ONE, 1)).allowed:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_different_callers_never_share_a_count() -> None:
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
    # A quarter of the first window is over: 7.5 of its 10 images still count.
    assert await at(6075.0, 4) == (False, 3, 3)
    assert await at(6075.0, 3) == (True, 0, 3)
    assert await at(6078.1, 1) == (True, 0, 6)
    # Two windows later none of these images counts any more.
    assert await at(6240.0, 10) == (True, 0, 60)


async def test_the_count_of_the_longest_idle_caller_is_dropped_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "MAX_CALLERS", 8)
    limiter = LocalCounts()
    assert (await limiter.spend(RATE, ONE, 10)).remaining == 0
    for number in range(100):
        await limiter.spend(RATE, Caller("address", f"10.0.0.{number}"), 1)
        assert len(limiter) <= 8
        # The count of a caller that calls all the time is never dropped.
        assert not (await limiter.spend(RATE, ONE, 1)).allowed
    assert (await limiter.spend(RATE, Caller("address", "10.0.0.0"), 10)).allowed
    assert not (await limiter.spend(RATE, Caller("address", "10.0.0.99"), 10)).allowed


async def test_counts_without_effect_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_an_invalid_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="600/minute"):
        Rate.parse(text)


def test_a_rate_is_parsed() -> None:
    assert [Rate.parse(f"7/{window}") for window in ("second", "minute", "hour", "day")] == [
        Rate(7, seconds) for seconds in (1, 60, 3600, 86400)
    ]


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (("10.0.0.1", 80), "10.0.0.1"),
        (("2001:db8:1:2:3:4:5:6", 80), "2001:db8:1:2::"),
        (("::ffff:10.0.0.1", 80), "10.0.0.1"),
        (("unix", 0), "unix"),
        (None, ""),
    ],
)
def test_the_address_that_counts_for_a_client(client: object, address: str) -> None:
    assert address_of({"client": client}) == address
