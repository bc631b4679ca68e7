"""HTTP connections, with limits that uvicorn lacks: their number, and the time and size of a head."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.api.shaping import to_problem
from service.core.errors import HeadTooLarge, MalformedRequest, Overloaded, RequestTimeout, ServiceError
from service.http.disconnect import DISCONNECTED
from service.http.layers.request_ids import new_request_id
from service.http.layers.security_headers import LOADS_NOTHING, headers_of
from service.http.problems import MEDIA_TYPE
from service.http.route_table import STREAM
from service.http.transport.sockets import Socket, is_handshake
from service.telemetry.metrics import Metrics

# Eight times what a request with a long query and a bearer token needs.
HEAD_LIMIT_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    max_connections: int
    client_timeout_s: float


class Connection(HttpToolsProtocol):
    """One connection of a client. `cut_if_late` must be called about twice a second."""

    def __init__(self, *args: Any, limits: ConnectionLimits, metrics: Metrics, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = limits
        self._metrics = metrics
        self._since = self.loop.time()  # the latest of: opened, a request began, an answer ended
        self._in_head = False
        self._head_bytes = 0
        self._unread_since: float | None = None
        self._running: RequestResponseCycle | None = None
        self._disconnected: asyncio.Future[None] | None = None
        self._opens_stream = self._ignores_upgrade = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._metrics.connections.inc()
        if len(self.connections) > self._limits.max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._metrics.connections.dec()
        # uvicorn reports that the client has left only to the last of pipelined requests.
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        if self._disconnected is not None and not self._disconnected.done():
            self._disconnected.set_result(None)
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        self._disconnected = cycle.scope["state"][DISCONNECTED] = self.loop.create_future()
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_LIMIT_BYTES:
                self._refuse_large_head()
                return
        self._unset_keepalive_if_required()
        unread = memoryview(data)
        try:
            while unread:
                try:
                    self.parser.feed_data(unread)
                    return
                except httptools.HttpParserUpgrade as upgrade:
                    unread = unread[upgrade.args[0] :]
                if self._opens_stream:
                    self.handle_websocket_upgrade()
                    return
                head = self._head_without_upgrade()
                # The old parser reads no more after an upgrade that also closes the connection.
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
                self.parser.feed_data(head)
        except httptools.HttpParserError:
            self._refuse_malformed()

    def _head_without_upgrade(self) -> bytes:
        """The head without `Upgrade`, for a new parser: RFC 9110, 7.8, lets a server ignore an upgrade.

        Clients offer h2c on requests with bodies, too, and a parser that sees an upgrade skips the body.
        """
        version = self.parser.get_http_version().encode()
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", version, b"\r\n"]
        head += [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        return b"".join([*head, b"\r\n"])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes, self._since = True, 0, self.loop.time()
        self._opens_stream = self._ignores_upgrade = False

    def on_header(self, name: bytes, value: bytes) -> None:
        # Headers after a chunked body are trailers. They are ignored, because they could forge a header.
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_LIMIT_BYTES:
            self._head_bytes = HEAD_LIMIT_BYTES + 1
            raise HeadTooLarge("")
        method, is_upgrade = self.parser.get_method(), self.parser.should_upgrade()
        if method == b"CONNECT":  # the parser takes it for an upgrade, whatever its headers
            raise MalformedRequest("")
        self._opens_stream = (
            # Not while an earlier request is answered: two protocols would write at once.
            self._idle
            # A proxy may have kept its prefix: the application checks the whole path.
            and self.url.partition(b"?")[0].removesuffix(b"/").endswith(STREAM.encode())
            and (method, self.parser.get_http_version()) == (b"GET", "1.1")
            and is_upgrade
            and is_handshake(self.url, self.headers)
        )
        self._ignores_upgrade = is_upgrade and not self._opens_stream
        if not self._ignores_upgrade:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self._ignores_upgrade:
            return
        super().on_message_complete()
        # A large body has paused reading, and only reading notices that the client leaves. Pipelined requests
        # stay paused.
        if self.cycle is self._running:
            self.flow.resume_reading()

    def _should_upgrade(self) -> bool:
        return self._opens_stream

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._since = self.loop.time()

    def _refuse_malformed(self) -> None:
        """Refuse a request after an error of the parser or of one of its callbacks."""
        if self._head_bytes > HEAD_LIMIT_BYTES:
            self._refuse_large_head()
        else:
            self._cut("malformed", MalformedRequest("the request is not valid HTTP/1.1"))

    def cut_if_late(self, now: float) -> None:
        """Close the connection if its client is too slow to send a request or to read an answer."""
        if not self.transport.get_write_buffer_size():
            self._unread_since = None
        elif self._unread_since is None:
            self._unread_since = now
        elif now - self._unread_since > self._limits.client_timeout_s:
            self._metrics.cut_connections.labels("unread").inc()
            self.transport.abort()
            return
        if self._idle and now - self._since > self._limits.client_timeout_s:
            self._cut(
                "late", RequestTimeout("the head of the request took too long") if self._in_head else None
            )

    @property
    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    @property
    def _receiving(self) -> bool:
        return not self._idle and self.cycle.more_body

    def _make_room(self) -> None:
        """Close the connection that has waited longest for its client."""
        waiting = [
            other
            for other in self.connections
            if isinstance(other, Connection)
            and other is not self
            and not other.transport.is_closing()
            and (other._idle or other._receiving or other._unread_since is not None)
        ]
        # A connection without a request is closed before one with an upload in progress.
        last = min(waiting, key=lambda other: (other._receiving, other._since), default=self)
        error = Overloaded(f"the limit of {self._limits.max_connections} connections is reached")
        # An idle client waits for no answer, and gets no error.
        last._cut("crowded", None if last._idle and not last._in_head and last is not self else error)

    def _refuse_large_head(self) -> None:
        self._cut("large_head", HeadTooLarge(f"the head must not exceed {HEAD_LIMIT_BYTES} bytes"))

    def _cut(self, reason: str, error: ServiceError | None) -> None:
        """Close the connection; first send the error, unless an answer has begun."""
        if self.transport.is_closing():
            return
        self._metrics.cut_connections.labels(reason).inc()
        if error is not None and (self._idle or not self.cycle.response_started):
            self.transport.write(self._answer(error))
        self.transport.close()

    def _answer(self, error: ServiceError) -> bytes:
        request_id = new_request_id()
        body = to_problem(error, request_id).model_dump_json().encode()
        headers = [
            *self.server_state.default_headers,
            *headers_of(tls=self.scheme == "https", no_store=True),
            LOADS_NOTHING,
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
            *((name.lower().encode(), value.encode()) for name, value in error.headers.items()),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        return STATUS_LINE[error.status] + lines + b"\r\n" + body


def cut_late(connections: Iterable[Any], now: float) -> None:
    """Call `cut_if_late` on every connection of a server."""
    for connection in tuple(connections):
        if isinstance(connection, Connection | Socket):
            connection.cut_if_late(now)
