"""A circuit breaker: requests do not call an engine that is down.

closed     calls pass; `failures` errors in a row open the circuit
open       calls fail at once, until `rest_s` have passed
half-open  one call passes as a probe: success closes the circuit, failure opens it again

Overload is not a failure: a full queue shows that the engine works. A late answer is a failure only if the
engine answers no other call.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal, get_args

from service.core.errors import DeadlineExceeded, EngineUnavailable, ServiceError

State = Literal["closed", "open", "half-open"]
STATES: tuple[State, ...] = get_args(State)


class Breaker:
    """silent: whether the engine has answered no call for long. changed: called with every new state."""

    def __init__(
        self,
        *,
        failures: int = 5,
        rest_s: float = 1.0,
        silent: Callable[[], bool] = lambda: False,
        changed: Callable[[State], None] = lambda state: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = failures
        self._rest_s = rest_s
        self._silent = silent
        self._changed = changed
        self._now = now
        self._failures = 0
        self._opened_at = 0.0
        self.state: State = "closed"

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """Around one call. Raises `EngineUnavailable` before the call while the circuit is open."""
        if self.state == "open" and self._now() - self._opened_at >= self._rest_s:
            self._become("half-open")
        elif self.state != "closed":
            raise EngineUnavailable("the inference server failed recently; it is tried again soon")
        try:
            yield
        except EngineUnavailable:
            self._failed()
            raise
        except (DeadlineExceeded, asyncio.CancelledError):
            self._given_up()
            raise
        except ServiceError:
            self._answered()
            raise
        except BaseException:
            self._failed()
            raise
        self._answered()

    def _answered(self) -> None:
        self._failures = 0
        self._become("closed")

    def _failed(self) -> None:
        self._failures += 1
        if self.state == "half-open" or self._failures >= self._limit:
            self._opened_at = self._now()
            self._become("open")

    def _given_up(self) -> None:
        # The caller no longer waits. This is a failure only if the engine answers no call at all.
        if self._silent():
            self._failed()
        elif self.state == "half-open":
            self._become("open")  # the next call is the probe

    def _become(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._changed(state)
