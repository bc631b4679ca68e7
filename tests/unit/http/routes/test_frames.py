"""The inbox of a stream keeps only the newest frame. The time of a frame precedes its image."""

from __future__ import annotations

import asyncio
import struct

import pytest

from service.core.deadline import NEVER
from service.core.errors import InvalidRequest
from service.http.routes.frames import Frame, Inbox, split_time


def frame(number: int) -> Frame:
    return Frame(number, float(number), b"", NEVER)


async def test_a_waiting_frame_is_replaced_and_reported_as_dropped() -> None:
    dropped: list[int] = []
    inbox = Inbox(lambda frame: dropped.append(frame.number))
    for number in range(3):
        inbox.put(frame(number))
    found = await inbox.get()
    assert found is not None
    assert (found.number, dropped) == (2, [0, 1])


async def test_get_returns_at_the_next_frame_and_at_the_end() -> None:
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


async def test_a_waiting_frame_is_returned_before_the_end() -> None:
    inbox = Inbox(lambda frame: None)
    inbox.put(frame(1))
    inbox.close()
    assert await inbox.get() is not None
    assert await inbox.get() is None


def test_the_time_precedes_the_image() -> None:
    assert split_time(struct.pack(">d", 1.5) + b"image") == (1.5, b"image")


@pytest.mark.parametrize(
    "message", [b"", b"1234567", struct.pack(">d", float("nan")), struct.pack(">d", float("-inf"))]
)
def test_a_message_without_a_finite_time_is_refused(message: bytes) -> None:
    with pytest.raises(InvalidRequest):
        split_time(message)
