"""The newest frame wins."""

from __future__ import annotations

import asyncio
import struct

import pytest

from service.core.deadline import NEVER
from service.core.errors import InvalidRequest
from service.http.routes.frames import Frame, Inbox, split_time


def frame(number: int) -> Frame:
    return Frame(number, float(number), b"", NEVER)


async def test_a_frame_that_waits_is_replaced_and_told() -> None:
    dropped: list[int] = []
    inbox = Inbox(lambda frame: dropped.append(frame.number))
    for number in range(3):
        inbox.put(frame(number))
    found = await inbox.get()
    assert found is not None
    assert (found.number, dropped) == (2, [0, 1])


async def test_who_waits_for_a_frame_is_woken_by_it_and_by_the_end() -> None:
    inbox = Inbox(lambda frame: None)
    waiting = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    inbox.put(frame(7))
    found = await waiting
    assert found is not None
    assert found.number == 7
    waiting = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    inbox.close()
    assert await waiting is None


async def test_the_frame_that_waits_comes_before_the_end() -> None:
    inbox = Inbox(lambda frame: None)
    inbox.put(frame(1))
    inbox.close()
    assert await inbox.get() is not None
    assert await inbox.get() is None


def test_the_time_stands_before_the_image() -> None:
    assert split_time(struct.pack(">d", 1.5) + b"image") == (1.5, b"image")


@pytest.mark.parametrize(
    "message", [b"", b"1234567", struct.pack(">d", float("nan")), struct.pack(">d", float("-inf"))]
)
def test_what_is_no_time_is_refused(message: bytes) -> None:
    with pytest.raises(InvalidRequest):
        split_time(message)
