"""Deadlines: when they pass, and which error they raise."""

from __future__ import annotations

import asyncio
import time

import pytest

from service.core.deadline import Deadline
from service.core.errors import DeadlineExceeded


def passed_deadline() -> Deadline:
    return Deadline(time.monotonic() - 1, 2.5)


def test_remaining_time_may_be_negative() -> None:
    assert 9 < Deadline.after(10).remaining_s() <= 10
    assert passed_deadline().remaining_s() < 0


def test_check_names_the_stage_and_the_timeout() -> None:
    Deadline.after(10).check("decode")
    with pytest.raises(DeadlineExceeded, match=r"the deadline of 2\.5 s passed during decode"):
        passed_deadline().check("decode")


async def test_work_within_the_deadline_is_not_interrupted() -> None:
    async with Deadline.after(10).within(lambda: "detect"):
        await asyncio.sleep(0)


async def test_no_work_begins_after_the_deadline() -> None:
    begun = False
    with pytest.raises(DeadlineExceeded):
        async with passed_deadline().within(lambda: "detect"):
            begun = True
    assert not begun


async def test_work_is_cancelled_at_the_deadline() -> None:
    cancelled = False

    async def work() -> None:
        nonlocal cancelled
        try:
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    with pytest.raises(DeadlineExceeded, match="during detect"):
        async with Deadline.after(0.02).within(lambda: "detect"):
            await work()
    assert cancelled


async def test_a_timeout_of_the_work_itself_is_not_the_deadline() -> None:
    with pytest.raises(TimeoutError, match="an inner one"):
        async with Deadline.after(10).within(lambda: "detect"):
            raise TimeoutError("an inner one")


async def test_a_cancellation_from_outside_stays_a_cancellation() -> None:
    async def work() -> None:
        async with Deadline.after(10).within(lambda: "detect"):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_errors_of_the_work_pass_through() -> None:
    with pytest.raises(KeyError):
        async with Deadline.after(10).within(lambda: "detect"):
            raise KeyError("work")
