"""The frames of a stream; only the newest frame waits for the model."""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass

from service.core.deadline import Deadline
from service.core.errors import InvalidRequest

_TIME = struct.Struct(">d")
TIME_BYTES = _TIME.size


@dataclass(frozen=True, slots=True)
class Frame:
    """number: index among all sent frames; time_s: on the stream's clock; data: an encoded image."""

    number: int
    time_s: float
    data: bytes
    deadline: Deadline


def split_time(message: bytes) -> tuple[float, bytes]:
    """Split a message into its time in seconds and its image. Raises `InvalidRequest`."""
    if len(message) < TIME_BYTES:
        raise InvalidRequest(f"with clock=sent, a frame must begin with its time of {TIME_BYTES} bytes")
    (time_s,) = _TIME.unpack_from(message)
    if not math.isfinite(time_s):
        raise InvalidRequest("the time of a frame must be a finite number")
    return time_s, message[TIME_BYTES:]


class Inbox:
    """Holds at most one frame: a new frame replaces a waiting one.

    A slow model, or a client that does not read, costs frames but no memory.
    """

    def __init__(self, on_drop: Callable[[Frame], object]) -> None:
        """on_drop: called with each frame that is dropped unread."""
        self._on_drop = on_drop
        self._frame: Frame | None = None
        self._closed = False
        self._changed = asyncio.Event()

    def put(self, frame: Frame) -> None:
        self.clear()
        self._frame = frame
        self._changed.set()

    def clear(self) -> None:
        """Drop the waiting frame."""
        if self._frame is not None:
            self._on_drop(self._frame)
            self._frame = None

    def close(self) -> None:
        """The waiting frame is the last one."""
        self._closed = True
        self._changed.set()

    async def get(self) -> Frame | None:
        """Wait for a frame and return the newest; None if the inbox is closed and empty."""
        while self._frame is None and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        frame, self._frame = self._frame, None
        return frame
