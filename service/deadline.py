"""A monotonic deadline, made at admission and checked at every stage."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from service.errors import DeadlineExceeded


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment, in `time.monotonic()` seconds, after which nobody waits for the answer."""

    at: float
    timeout_s: float

    @classmethod
    def after(cls, timeout_s: float) -> Deadline:
        return cls(time.monotonic() + timeout_s, timeout_s)

    def remaining_s(self) -> float:
        """Seconds left; negative once it has passed."""
        return self.at - time.monotonic()

    def check(self, stage: str) -> None:
        """Raise `DeadlineExceeded` if it has passed."""
        if self.remaining_s() <= 0:
            raise self._exceeded(stage)

    @asynccontextmanager
    async def within(self, stage: str) -> AsyncIterator[None]:
        """Cancel what runs inside at the deadline and raise `DeadlineExceeded` instead."""
        self.check(stage)
        try:
            async with asyncio.timeout(self.remaining_s()) as limit:
                yield
        except TimeoutError:
            if limit.expired():
                raise self._exceeded(stage) from None
            raise

    def _exceeded(self, stage: str) -> DeadlineExceeded:
        return DeadlineExceeded(f"the deadline of {self.timeout_s:g} s passed during {stage}")


NEVER = Deadline(math.inf, math.inf)
"""For work that nobody waits for, such as a warm-up."""
