"""uvicorn's WebSocket connection, with more limits and a last message at shutdown."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request
from websockets.server import ServerProtocol

from service.telemetry.metrics import Metrics

# A message may come in pieces. Empty pieces do not count for the size limit, so their number is limited.
PIECES = 4096


def is_handshake(url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether the head of a GET request opens a WebSocket. The service refuses all others itself.

    The library's refusals are not problem documents, and it leaves connections with invalid heads open.
    """
    lines = [b"GET ", url, b" HTTP/1.1\r\n", *(b"%b: %b\r\n" % header for header in headers), b"\r\n"]
    protocol = ServerProtocol()
    protocol.receive_data(b"".join(lines))
    requests = [event for event in protocol.events_received() if isinstance(event, Request)]
    return bool(requests) and protocol.accept(requests[0]).status_code == HTTPStatus.SWITCHING_PROTOCOLS


class Socket(WebSocketsSansIOProtocol):
    """Reads the next message once the last was taken. `cut_if_late` must be called about twice a second."""

    def __init__(self, *args: Any, client_timeout_s: float, metrics: Metrics, **options: Any) -> None:
        super().__init__(*args, **options)
        self.close_timeout = self._client_timeout_s = client_timeout_s
        self._metrics = metrics
        self._stuck_since: float | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._metrics.connections.dec()
        super().connection_lost(exc)

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            # Otherwise uvicorn logs each refusal as an error of the application.
            self.handshake_complete = True

    def handle_ping(self) -> None:
        # A client that sends pings and reads no pongs must not fill the memory.
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < PIECES:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, f"a message must not come in more than {PIECES} pieces")
            self.handle_parser_exception()

    def shutdown(self) -> None:
        """Let the application send its last messages; uvicorn would close the connection at once."""
        if self.handshake_complete and not self.close_sent:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": CloseCode.GOING_AWAY})
        else:
            super().shutdown()

    def cut_if_late(self, now: float) -> None:
        """Close the connection if its client does not read what was sent."""
        stuck = not self.writable.is_set() or (
            self.transport.is_closing() and self.transport.get_write_buffer_size() > 0
        )
        if not stuck:
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since > self._client_timeout_s:
            self._metrics.cut_connections.labels("unread").inc()
            self.transport.abort()
