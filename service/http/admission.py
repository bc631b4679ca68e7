"""Who gets in: draining, requests in flight, the deadline and the size of bodies (pure ASGI)."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.deadline import Deadline
from service.errors import BodyTooLarge, Draining, InvalidRequest, Overloaded, ServiceError
from service.http.health import Readiness
from service.http.problems import problem_response
from service.metrics import Metrics
from service.settings import Settings


class Admission:
    """Guards the routes that work on images; all others pass. Sets `scope["state"]["deadline"]`."""

    def __init__(self, app: ASGIApp, settings: Settings, readiness: Readiness, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._readiness = readiness
        self._metrics = metrics
        self._in_flight = 0
        self._body_limits_bytes = {
            "/v1/emotions": settings.body_limit_bytes,
            "/v1/emotions/batch": settings.batch_body_limit_bytes,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit_bytes = self._body_limits_bytes.get(scope["path"]) if scope["type"] == "http" else None
        if limit_bytes is None or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_admission()
            scope["state"]["deadline"] = self._deadline(headers.get("x-timeout-ms"))
            if int(headers.get("content-length", "0")) > limit_bytes:
                raise _too_large(limit_bytes)
        except ServiceError as error:
            self._metrics.count_rejection(error)
            await problem_response(error, scope["state"]["request_id"])(scope, receive, send)
            return
        self._count(1)
        try:
            await self._app(scope, _limited(receive, limit_bytes), send)
        finally:
            self._count(-1)

    def _check_admission(self) -> None:
        if self._readiness.draining:
            raise Draining("the service is shutting down")
        if self._in_flight >= self._settings.max_in_flight_requests:
            raise Overloaded(f"the limit of {self._in_flight} requests in flight is reached")

    def _deadline(self, timeout_ms: str | None) -> Deadline:
        if timeout_ms is None:
            return Deadline.after(self._settings.timeout_s)
        if not timeout_ms.isascii() or not timeout_ms.isdecimal() or not 0 < len(timeout_ms) <= 9:
            raise InvalidRequest("X-Timeout-Ms: must be a whole number of milliseconds")
        if int(timeout_ms) == 0:
            raise InvalidRequest("X-Timeout-Ms: must be greater than 0")
        return Deadline.after(min(int(timeout_ms) / 1e3, self._settings.timeout_s))

    def _count(self, change: int) -> None:
        self._in_flight += change
        self._metrics.requests_in_flight.set(self._in_flight)


def _limited(receive: Receive, limit_bytes: int) -> Receive:
    """Counts what really arrives: Content-Length may be absent, and the client may be chunking for ever."""
    received_bytes = 0

    async def limited() -> Message:
        nonlocal received_bytes
        message = await receive()
        received_bytes += len(message.get("body", b""))
        if received_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        return message

    return limited


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body must not exceed {limit_bytes} bytes")
