"""One of several serving processes: the server, with its connections from the supervisor."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import socket
import threading
from pathlib import Path

import structlog
from fastapi import FastAPI

from service.app import create_app
from service.errors import ModelFileError
from service.keys import KeysFileError
from service.link import Link
from service.logs import configure_logs
from service.memory import bound_heap
from service.metrics import Metrics
from service.server import Server, server_config
from service.settings import Settings, SettingsError
from service.shared_metrics import share_metrics

BEAT_S = 0.5


class Share(Server):
    """A server that listens nowhere: it is handed its share of the connections.

    Twice a second it says how many it has: by that the supervisor knows that it serves, and what to hand it.
    """

    def __init__(self, app: FastAPI, settings: Settings, handed: socket.socket, link: Link) -> None:
        super().__init__(server_config(app, settings), app.state.readiness, settings.grace_s)
        self.handed = handed
        self.link = link
        self._opening: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.link.open()
        await super().startup([])
        asyncio.get_running_loop().add_reader(self.handed, self._take)
        self._beats = asyncio.create_task(self._beat())

    def _take(self) -> None:
        try:
            _, descriptors, _, _ = socket.recv_fds(self.handed, 1, 1)
        except BlockingIOError:
            return
        for descriptor in descriptors:
            opening = asyncio.create_task(self._open(socket.socket(fileno=descriptor)))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connection.setblocking(False)
        try:
            await loop.connect_accepted_socket(self._protocol, connection, ssl=self.config.ssl)
        except (OSError, asyncio.CancelledError):  # the client has left, does not speak TLS, or is too late
            connection.close()

    def _protocol(self) -> asyncio.Protocol:
        """As uvicorn makes it for a connection that it accepts."""
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    async def _beat(self) -> None:
        while True:
            self.link.tell(connections=len(self.server_state.connections))
            await asyncio.sleep(BEAT_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.link.tell(draining=True)
        asyncio.get_running_loop().remove_reader(self.handed)
        self.handed.close()
        for opening in self._opening:
            opening.cancel()
        await super().shutdown()


def run(settings: Settings, number: int, folder: Path, handed: socket.socket, end: socket.socket) -> None:
    """Serve until SIGTERM, or until the supervisor is gone. Runs in a new process.

    handed: where connections come from; end: of the talk with the supervisor.
    """
    configure_logs(settings)
    structlog.contextvars.bind_contextvars(process=number)
    bound_heap()
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    handed.setblocking(False)
    link = Link(end)
    try:
        app = create_app(settings, metrics=Metrics(share_metrics(folder, number)), counts=link)
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
