"""Raw connections, for requests that an HTTP library does not send."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit


def connect(url: str, *, receive_bytes: int | None = None) -> socket.socket:
    """receive_bytes: the size of the receive buffer, for clients that do not read."""
    address = urlsplit(url)
    connection = socket.socket()
    if receive_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    connection.settimeout(30)
    connection.connect((address.hostname, address.port))
    return connection


def head(*lines: str, method: str = "POST", path: str = "/v1/emotions") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: t", *lines, "", ""]).encode("latin-1")


def read_all(connection: socket.socket, timeout_s: float = 10) -> bytes:
    """All bytes until the other side closes, resets the connection or is silent for `timeout_s`."""
    connection.settimeout(timeout_s)
    found = b""
    try:
        while piece := connection.recv(65536):
            found += piece
    except (TimeoutError, ConnectionError):
        pass
    return found


def exchange(url: str, *pieces: bytes, timeout_s: float = 10) -> bytes:
    """Send the pieces and return the answer. The server may close before it has read all pieces."""
    with connect(url) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except ConnectionError:
            pass
        return read_all(connection, timeout_s)


def statuses(answer: bytes) -> list[int]:
    """The status of each answer in the bytes of a connection."""
    return [int(piece[:3]) for piece in answer.split(b"HTTP/1.1 ")[1:]]


class Trickle:
    """Connections that send one small piece at a time, and reconnect when the server closes them."""

    def __init__(self, url: str, count: int, opening: bytes, piece: bytes) -> None:
        self._url, self._opening, self._piece = url, opening, piece
        self._connections = [self._open() for _ in range(count)]
        self.reconnects = 0

    def _open(self) -> socket.socket:
        connection = connect(self._url)
        connection.sendall(self._opening)
        connection.setblocking(False)
        return connection

    def send_piece(self) -> None:
        for number, connection in enumerate(self._connections):
            try:
                connection.send(self._piece)
                if connection.recv(65536):
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            self.reconnects += 1
            connection.close()
            self._connections[number] = self._open()

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
