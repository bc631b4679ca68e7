"""A monotonic deadline, made at admission and checked at every stage."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from service.core.errors import DeadlineExceeded


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time, in `time.monotonic()` seconds, after which the caller no longer waits."""

    at: float
    timeout_s: float

    @classmethod
    def after(cls, timeout_s: float) -> Deadline:
        return cls(time.monotonic() + timeout_s, timeout_s)

    def remaining_s(self) -> float:
        """Seconds until the deadline; negative after it."""
        return self.at - time.monotonic()

    def check(self, stage: str) -> None:
        """Raise `DeadlineExceeded` if the deadline has passed."""
        if self.remaining_s() <= 0:
            raise self.exceeded(stage)

    def within(self, stage: Callable[[], str]) -> Within:
        """A context that cancels its body at the deadline and raises `DeadlineExceeded`.

        stage: returns the name of the current stage.
        """
        return Within(self, stage)

    def exceeded(self, stage: str) -> DeadlineExceeded:
        return DeadlineExceeded(f"the deadline of {self.timeout_s:g} s passed during {stage}")


class Within:
    """The context of `Deadline.within`. A class, because a generator takes twice as long."""

    __slots__ = ("_deadline", "_limit", "_stage")

    def __init__(self, deadline: Deadline, stage: Callable[[], str]) -> None:
        self._deadline = deadline
        self._stage = stage
        self._limit: asyncio.Timeout

    async def __aenter__(self) -> None:
        self._deadline.check(self._stage())
        self._limit = asyncio.timeout(self._deadline.remaining_s())
        await self._limit.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._limit.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise self._deadline.exceeded(self._stage()) from None


NEVER = Deadline(math.inf, math.inf)
"""For work without a caller, such as a warm-up."""
