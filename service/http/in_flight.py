"""Limits the requests in work and the bytes of bodies in memory."""

from __future__ import annotations

from service.core.backlog import Backlog
from service.core.errors import Overloaded
from service.telemetry.metrics import Metrics


class InFlight:
    def __init__(self, max_requests: int, max_bytes: int, backlog: Backlog, metrics: Metrics) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._backlog = backlog
        self._metrics = metrics
        self._requests = 0
        self._bytes = 0

    def check(self) -> None:
        """Raise `Overloaded` if there is no place for one more request."""
        if self._requests >= self._max_requests:
            raise Overloaded(f"the limit of {self._requests} requests in flight is reached")
        if self._backlog.full:
            raise Overloaded("more images arrive than can be answered")

    async def wait(self) -> None:
        """Wait until the frame of a stream may be at work."""
        await self._backlog.wait()

    def hold(self, requests: int, received_bytes: int) -> None:
        """Add to the counts; negative numbers release. Raises `Overloaded`, and the bytes stay counted."""
        self._bytes += received_bytes
        if received_bytes > 0 and self._bytes > self._max_bytes:
            raise Overloaded(f"the limit of {self._max_bytes} bytes of bodies in flight is reached")
        if requests > 0:
            self.check()
        self._requests += requests
        self._metrics.requests_in_flight.set(self._requests)
