"""The server process: uvicorn, with a shutdown that answers what was admitted and exits 0."""

from __future__ import annotations

import math
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.app import create_app
from service.http.health import Readiness
from service.logs import configure_logs, log
from service.memory import bound_heap
from service.settings import Settings, SettingsError


class Server(uvicorn.Server):
    """Turns readiness off at the first signal; unlike uvicorn's it does not die of it once all is done."""

    def __init__(self, config: uvicorn.Config, readiness: Readiness) -> None:
        super().__init__(config)
        self.readiness = readiness

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            log.info("listening", url=f"http://{f'[{host}]' if ':' in host else host}:{port}")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.readiness.drain()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals; whoever runs us elsewhere stops us otherwise
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def make_server(app: FastAPI, settings: Settings) -> Server:
    """A server for an application of `create_app`; run it with `server.run(sockets=[...])`."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.grace_s),
    )
    return Server(config, app.state.readiness)


def bind(settings: Settings) -> socket.socket:
    """The socket to listen on, bound but not listening: nobody connects before the models are warm.

    Raises `SettingsError` when the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        raise SettingsError(f"cannot listen on {settings.host} port {settings.port}: {reason}.") from error
    return listener


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises `SettingsError` or `ModelFileError` when the address or a model cannot be used.
    """
    configure_logs(settings)
    bound_heap()
    with bind(settings) as listener:
        make_server(create_app(settings), settings).run(sockets=[listener])
