"""Admits requests: known routes, requests in flight, deadlines, body sizes (pure ASGI)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.core.deadline import Deadline
from service.core.errors import BodyTooLarge, Draining, InvalidRequest, MethodNotAllowed, NotFound
from service.http.in_flight import InFlight
from service.http.readiness import Readiness
from service.http.request_state import state_of
from service.http.route_table import WEBSOCKET


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """body_bytes: limits by the names of `RoutePolicy.body_limit`."""

    body_bytes: Mapping[str, int]
    timeout_s: float


class Admission:
    """Refuses requests that the route table does not have, and limits requests that process images."""

    def __init__(
        self, app: ASGIApp, limits: AdmissionLimits, readiness: Readiness, in_flight: InFlight
    ) -> None:
        self._app = app
        self._limits = limits
        self._readiness = readiness
        self._in_flight = in_flight

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        state = state_of(scope)
        if state.policy is None:
            if state.allowed_methods:
                method = scope.get("method", WEBSOCKET)
                raise MethodNotAllowed(f"{method} is not allowed here", state.allowed_methods)
            raise NotFound("no resource has this address")
        if state.policy.body_limit is None:
            await self._app(scope, receive, send)
            return
        if self._readiness.draining:
            raise Draining("the service is shutting down")
        if scope["type"] == "websocket":
            # An open stream takes no place: its route takes a place for each frame.
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit_bytes = self._limits.body_bytes[state.policy.body_limit]
        if state.policy.spooled:
            # The route gives the request its place, and reads the body in parts.
            if int(headers.get("content-length", "0")) > limit_bytes:
                raise too_large(limit_bytes)
            await self._app(scope, receive, send)
            return
        self._in_flight.check()
        state.deadline = self._deadline(headers.get("x-timeout-ms"))
        if int(headers.get("content-length", "0")) > limit_bytes:
            raise too_large(limit_bytes)
        body = _Body(self._in_flight, receive, limit_bytes)
        try:
            await self._app(scope, body.receive, send)
        finally:
            body.forget()

    def _deadline(self, timeout_ms: str | None) -> Deadline:
        if timeout_ms is None:
            return Deadline.after(self._limits.timeout_s)
        if not timeout_ms.isascii() or not timeout_ms.isdecimal() or not 0 < len(timeout_ms) <= 9:
            raise InvalidRequest("X-Timeout-Ms: must be a whole number of milliseconds")
        if int(timeout_ms) == 0:
            raise InvalidRequest("X-Timeout-Ms: must be greater than 0")
        return Deadline.after(min(int(timeout_ms) / 1e3, self._limits.timeout_s))


class _Body:
    """Counts the bytes that arrive: Content-Length may be absent, and a chunked body may never end.

    A request takes its place once its whole body is here: slow uploads must not keep other requests out.
    """

    def __init__(self, in_flight: InFlight, receive: Receive, limit_bytes: int) -> None:
        self._in_flight = in_flight
        self._receive = receive
        self._limit_bytes = limit_bytes
        self._received_bytes = 0
        self._placed = False

    async def receive(self) -> Message:
        message = await self._receive()
        arrived_bytes = len(message.get("body", b""))
        self._received_bytes += arrived_bytes
        self._in_flight.hold(0, arrived_bytes)
        if self._received_bytes > self._limit_bytes:
            raise too_large(self._limit_bytes)
        if message["type"] == "http.request" and not message.get("more_body") and not self._placed:
            self._in_flight.hold(1, 0)
            self._placed = True
        return message

    def forget(self) -> None:
        self._in_flight.hold(-self._placed, -self._received_bytes)


def too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body must not exceed {limit_bytes} bytes")
