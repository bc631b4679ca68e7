"""Cases that uvicorn's WebSocket does not handle, with a transport that has no network."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState
from websockets.frames import Frame, Opcode

from service.http.transport.sockets import Socket, is_handshake
from service.telemetry.metrics import Metrics

HANDSHAKE = [
    (b"host", b"here"),
    (b"upgrade", b"websocket"),
    (b"connection", b"keep-alive, Upgrade"),
    (b"sec-websocket-version", b"13"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
]


class Wire(asyncio.Transport):
    """A transport that records the written bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.unread = 0
        self.closing = self.aborted = False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closing = True

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return self.unread


@pytest.fixture
async def wire() -> Wire:
    return Wire()


@pytest.fixture
async def opened(wire: Wire) -> Socket:
    """A socket after its handshake."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.Event().wait()

    config = uvicorn.Config(application, log_config=None, ws_per_message_deflate=False)
    config.load()
    socket = Socket(config, ServerState(), {}, client_timeout_s=5, metrics=Metrics())
    socket.connection_made(wire)
    head = b"".join(b"%b: %b\r\n" % header for header in HANDSHAKE)
    socket.data_received(b"GET /v1/stream HTTP/1.1\r\n" + head + b"\r\n")
    for _ in range(3):  # until the application has accepted
        await asyncio.sleep(0)
    assert wire.written.startswith(b"HTTP/1.1 101 ")
    wire.written = b""
    return socket


def ping() -> bytes:
    return Frame(Opcode.PING, b"x" * 125).serialize(mask=True, extensions=[])


async def test_pings_are_answered_while_the_client_reads(opened: Socket, wire: Wire) -> None:
    opened.data_received(ping())
    assert wire.written == b"\x8a\x7d" + b"x" * 125


async def test_pings_of_a_client_that_does_not_read_are_not_answered(opened: Socket, wire: Wire) -> None:
    opened.pause_writing()
    opened.data_received(ping() * 1000)
    assert wire.written == b""
    opened.resume_writing()
    opened.data_received(ping())
    assert len(wire.written) == 127


async def test_a_client_that_reads_nothing_for_too_long_is_cut(opened: Socket, wire: Wire) -> None:
    opened.pause_writing()
    opened.cut_if_late(100)
    opened.cut_if_late(104.9)
    assert not wire.aborted
    opened.cut_if_late(105.1)
    assert wire.aborted


async def test_a_client_that_reads_something_is_not_cut(opened: Socket, wire: Wire) -> None:
    opened.pause_writing()
    opened.cut_if_late(100)
    opened.resume_writing()
    opened.cut_if_late(103)
    opened.pause_writing()
    opened.cut_if_late(106)
    opened.cut_if_late(110)
    assert not wire.aborted


async def test_a_closing_connection_whose_client_reads_nothing_is_cut(opened: Socket, wire: Wire) -> None:
    wire.closing, wire.unread = True, 10
    opened.cut_if_late(100)
    opened.cut_if_late(106)
    assert wire.aborted


async def test_shutdown_notifies_the_application_and_keeps_the_wire_open(opened: Socket, wire: Wire) -> None:
    opened.shutdown()
    assert await opened.receive() == {"type": "websocket.disconnect", "code": 1001}
    assert not wire.closing
    await opened.send({"type": "websocket.send", "text": "bye"})
    assert wire.written == b"\x81\x03bye"


def test_a_complete_head_is_a_handshake() -> None:
    assert is_handshake(b"/v1/stream?clock=sent", HANDSHAKE)


@pytest.mark.parametrize("missing", range(1, len(HANDSHAKE)))
def test_a_head_that_lacks_a_header_is_no_handshake(missing: int) -> None:
    assert not is_handshake(b"/v1/stream", HANDSHAKE[:missing] + HANDSHAKE[missing + 1 :])


@pytest.mark.parametrize(
    "headers", [[(b"x-long", b"x" * 9000)], [(b"x-many", b"")] * 200, [(b"origin", b"a")] * 2]
)
def test_headers_that_the_library_cannot_read_are_no_handshake(headers: list[tuple[bytes, bytes]]) -> None:
    assert not is_handshake(b"/v1/stream", [*HANDSHAKE, *headers])


def test_an_address_that_the_library_cannot_read_is_no_handshake() -> None:
    assert not is_handshake(b"/v1/stream?" + b"x" * 9000, HANDSHAKE)
