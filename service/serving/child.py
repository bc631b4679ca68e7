"""One of several serving processes: a server that gets its connections from the supervisor."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
from fastapi import FastAPI

from service.access.keys import KeysFileError
from service.core.errors import ModelFileError, SettingsError
from service.http.app import create_app
from service.process.memory import bound_heap
from service.serving.link import Link
from service.serving.server import Server
from service.serving.shared_store import SharedStore
from service.settings import Settings
from service.telemetry.logs import configure_logs
from service.telemetry.metrics import Metrics
from service.telemetry.shared_metrics import share_metrics

BEAT_S = 0.5


class Connections(set[Any]):
    """uvicorn's set of open connections; calls `ended` for each connection that ends."""

    def __init__(self, ended: Callable[[], object]) -> None:
        super().__init__()
        self._ended = ended

    def discard(self, connection: Any) -> None:
        super().discard(connection)
        self._ended()

    remove = discard


class Share(Server):
    """A server that does not listen: the supervisor hands it a share of the connections.

    It reports the number of ended connections at each change, and twice a second as a sign of life.
    """

    def __init__(self, app: FastAPI, settings: Settings, handed: socket.socket, link: Link) -> None:
        super().__init__(app, settings)
        self.handed = handed
        self.link = link
        self.server_state.connections = Connections(self._ended)
        self._taken = 0
        self._opening: set[asyncio.Task[None]] = set()
        self._telling: asyncio.Handle | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.link.open()
        await super().startup([])
        asyncio.get_running_loop().add_reader(self.handed, self._take)
        self.run_in_background("beats", self._beat)
        self.run_in_background("supervisor link", self.link.run)

    def _take(self) -> None:
        try:
            _, descriptors, _, _ = socket.recv_fds(self.handed, 1, 1)
        except BlockingIOError:
            return
        self._taken += 1
        for descriptor in descriptors:
            opening = asyncio.create_task(self._open(socket.socket(fileno=descriptor)))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        try:
            await loop.connect_accepted_socket(self._protocol, connection, ssl=self.config.ssl)
        except (OSError, asyncio.CancelledError):  # the client left, speaks no TLS, or came at shutdown
            connection.close()

    def _protocol(self) -> asyncio.Protocol:
        """The protocol that uvicorn makes for each accepted connection."""
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def _ended(self) -> None:
        if self._telling is None:
            # Not at once: a WebSocket leaves the set and joins it again.
            self._telling = asyncio.get_running_loop().call_soon(self._tell_ended)

    def _tell_ended(self) -> None:
        self._telling = None
        self.link.tell(ended=self._taken - len(self._opening) - len(self.server_state.connections))

    async def _beat(self) -> None:
        while True:
            self._tell_ended()
            await asyncio.sleep(BEAT_S)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGTERM:
            super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.link.tell(draining=True)
        asyncio.get_running_loop().remove_reader(self.handed)
        self.handed.close()
        for opening in self._opening:
            opening.cancel()
        await super().shutdown()
        self.link.close()


def run(settings: Settings, number: int, folder: Path, handed: socket.socket, end: socket.socket) -> None:
    """Serve until SIGTERM, or until the supervisor is gone. Runs in a new process.

    handed: socket that brings connections; end: this process's end of the link to the supervisor.
    """
    # Ctrl-C reaches all processes of a terminal; this one waits for the supervisor's SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logs(settings.log_level, settings.log_format)
    structlog.contextvars.bind_contextvars(process=number)
    bound_heap()
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    handed.setblocking(False)
    link = Link(end)
    try:
        app = create_app(
            settings,
            metrics=Metrics(share_metrics(folder, number)),
            counts=link,
            store=SharedStore(link) if settings.redis_url is None else None,
        )
        server = Share(app, settings, handed, link)
    except (SettingsError, ModelFileError, KeysFileError) as error:
        link.refuse(str(error))
        raise SystemExit(2) from None
    server.run()


def _end_with_supervisor() -> None:
    supervisor = multiprocessing.parent_process()
    assert supervisor is not None
    supervisor.join()
    os.kill(os.getpid(), signal.SIGTERM)
