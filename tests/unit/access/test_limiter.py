"""What a caller may spend, counted in memory."""

from __future__ import annotations

import asyncio

import pytest

from service.access import limiter as module
from service.access.limiter import Limiter, Memory
from service.access.rates import Caller, Rate
from service.http.layers.quotas import address_of

RATE = Rate(10, 86400)
ONE, OTHER = Caller("key", "one"), Caller("key", "other")


def ignored(up: bool) -> None:
    pass


async def test_a_rate_is_spent_and_no_further() -> None:
    limiter = Limiter(None, ignored, Memory())
    spent = [await limiter.spend(RATE, ONE, 4) for _ in range(3)]
    assert [(each.allowed, each.left) for each in spent] == [(True, 6), (True, 2), (False, 2)]
    assert all(0 < each.more_in_s <= 86400 for each in spent)
    # What was refused was not spent.
    assert (await limiter.spend(RATE, ONE, 2)).left == 0
    assert (await limiter.spend(RATE, OTHER, 10)).allowed


async def test_what_comes_at_once_is_not_let_in_twice() -> None:
    limiter = Limiter(None, ignored, Memory())
    spent = await asyncio.gather(*(limiter.spend(RATE, ONE, 1) for _ in range(50)))
    assert sum(each.allowed for each in spent) == 10


async def test_keys_and_addresses_of_one_name_do_not_share() -> None:
    limiter = Limiter(None, ignored, Memory())
    assert (await limiter.spend(RATE, Caller("key", "10.0.0.1"), 10)).allowed
    assert (await limiter.spend(RATE, Caller("address", "10.0.0.1"), 10)).allowed


async def test_after_the_window_there_is_more() -> None:
    limiter = Limiter(None, ignored, Memory())
    rate = Rate(2, 1)
    assert [(await limiter.spend(rate, ONE, 1)).allowed for _ in range(2)] == [True, True]
    async with asyncio.timeout(10):
        while not (await limiter.spend(rate, ONE, 1)).allowed:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_crowd_of_addresses_is_bounded_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ADDRESSES", 8)
    monkeypatch.setattr(module, "SWEEP_INTERVAL_S", 0.05)
    memory = Memory()
    limiter, kept = Limiter(None, ignored, memory), memory._storage.storage
    background = asyncio.create_task(limiter.run())
    await asyncio.sleep(0)
    for number in range(100):
        await limiter.spend(Rate(1000, 1), Caller("address", f"10.0.0.{number}"), 1)
    assert 0 < len(kept) <= 3 * 8
    async with asyncio.timeout(20):
        while kept:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    background.cancel()
    assert len(memory._storage.locks) == 0


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
