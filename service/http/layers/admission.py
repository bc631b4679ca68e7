"""Who gets in: draining, requests in flight, the deadline and the size of bodies (pure ASGI)."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.core.backlog import Backlog
from service.core.deadline import Deadline
from service.core.errors import BodyTooLarge, Draining, InvalidRequest, Overloaded, ServiceError
from service.http.problems import problem_response
from service.http.routes.health import Readiness
from service.settings import Settings
from service.telemetry.metrics import Metrics


class Admission:
    """Guards the routes that work on images; all others pass. Sets `scope["state"]["deadline"]`."""

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        readiness: Readiness,
        backlog: Backlog,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._settings = settings
        self._readiness = readiness
        self._backlog = backlog
        self._metrics = metrics
        self._in_flight = 0
        self._received_bytes = 0
        self._memory_limit_bytes = max(
            settings.max_in_flight_requests * settings.body_limit_bytes, settings.batch_body_limit_bytes
        )
        self._body_limits_bytes = {
            "/v1/emotions": settings.body_limit_bytes,
            "/v1/emotions/batch": settings.batch_body_limit_bytes,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._admit_stream(scope, receive, send)
            return
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
        body = _Body(self, receive, limit_bytes)
        try:
            await self._app(scope, body.receive, send)
        finally:
            body.forget()

    async def _admit_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A stream holds nothing by itself: its route takes a place for each frame."""
        if self._readiness.draining:
            error = Draining("the service is shutting down")
            self._metrics.count_rejection(error)
            await problem_response(error, scope["state"]["request_id"])(scope, receive, send)
            return
        scope["state"]["hold"] = self.hold
        await self._app(scope, receive, send)

    def _check_admission(self) -> None:
        if self._readiness.draining:
            raise Draining("the service is shutting down")
        self._check_places()

    def _check_places(self) -> None:
        if self._in_flight >= self._settings.max_in_flight_requests:
            raise Overloaded(f"the limit of {self._in_flight} requests in flight is reached")
        if self._backlog.full:
            raise Overloaded("more images arrive than can be answered")

    def _deadline(self, timeout_ms: str | None) -> Deadline:
        if timeout_ms is None:
            return Deadline.after(self._settings.timeout_s)
        if not timeout_ms.isascii() or not timeout_ms.isdecimal() or not 0 < len(timeout_ms) <= 9:
            raise InvalidRequest("X-Timeout-Ms: must be a whole number of milliseconds")
        if int(timeout_ms) == 0:
            raise InvalidRequest("X-Timeout-Ms: must be greater than 0")
        return Deadline.after(min(int(timeout_ms) / 1e3, self._settings.timeout_s))

    def hold(self, requests: int, received_bytes: int) -> None:
        """Count what is held in memory and worked on from now on, or no more. Raises `Overloaded`."""
        self._received_bytes += received_bytes
        if received_bytes > 0 and self._received_bytes > self._memory_limit_bytes:
            raise Overloaded(f"the limit of {self._memory_limit_bytes} bytes of bodies in flight is reached")
        if requests > 0:
            self._check_places()
        self._in_flight += requests
        self._metrics.requests_in_flight.set(self._in_flight)


class _Body:
    """Counts what really arrives: Content-Length may be absent, and the client may be chunking for ever.

    A request takes its place when all of its body is there: bodies that trickle in must not keep others out.
    """

    def __init__(self, admission: Admission, receive: Receive, limit_bytes: int) -> None:
        self._admission = admission
        self._receive = receive
        self._limit_bytes = limit_bytes
        self._received_bytes = 0
        self._placed = False

    async def receive(self) -> Message:
        message = await self._receive()
        arrived_bytes = len(message.get("body", b""))
        self._received_bytes += arrived_bytes
        self._admission.hold(0, arrived_bytes)
        if self._received_bytes > self._limit_bytes:
            raise _too_large(self._limit_bytes)
        if message["type"] == "http.request" and not message.get("more_body") and not self._placed:
            self._admission.hold(1, 0)
            self._placed = True
        return message

    def forget(self) -> None:
        self._admission.hold(-self._placed, -self._received_bytes)


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body must not exceed {limit_bytes} bytes")
