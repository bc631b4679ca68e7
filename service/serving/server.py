"""The server process: uvicorn, with a shutdown that answers all admitted requests and exits with 0."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import os
import signal
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import cast

import uvicorn
from fastapi import FastAPI

from service.core.errors import SettingsError, reason_of
from service.http.app import create_app
from service.http.readiness import Readiness
from service.http.routes.frames import TIME_BYTES
from service.http.transport.connections import Connection, ConnectionLimits, cut_late
from service.http.transport.sockets import Socket
from service.process.memory import bound_heap
from service.serving.announce import announce
from service.settings import Settings
from service.telemetry.background import supervised
from service.telemetry.logs import configure_logs, log
from service.telemetry.metrics import Metrics

# Time after the grace to close batcher and engines.
CLOSING_S = 5.0
CUT_INTERVAL_S = 0.5


class Server(uvicorn.Server):
    """Turns readiness off at the first signal. Unlike uvicorn's server, it ends with 0, not by the signal.

    A thread that hangs inside a model cannot be stopped and would keep the process alive. So a timer ends the
    process after the grace and the time for closing.
    """

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(server_config(app, settings))
        self.readiness: Readiness = app.state.readiness
        self.metrics: Metrics = app.state.metrics
        self._last_moment = threading.Timer(math.ceil(settings.grace_s) + CLOSING_S, _end)
        self._last_moment.daemon = True
        self._background: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        log_listening(sockets or (), "https" if self.config.is_ssl else "http")

        self.run_in_background("late clients", self._cut_late)

    def run_in_background(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run something for as long as the event loop runs."""
        self._background.append(asyncio.create_task(supervised(name, work, self.metrics.background_failed)))

    async def _cut_late(self) -> None:
        while True:
            cut_late(self.server_state.connections, asyncio.get_running_loop().time())
            await asyncio.sleep(CUT_INTERVAL_S)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        first = not self.readiness.draining
        self.readiness.drain()
        # Another signal may arrive while the thread starts.
        if first:
            self._last_moment.start()
        super().handle_exit(sig, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals; other threads stop the server another way
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def log_listening(listeners: Iterable[socket.socket], scheme: str) -> None:
    for listener in listeners:
        host, port = listener.getsockname()[:2]
        log.info("listening", url=f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")


def _end() -> None:
    log.error("did not stop in time; something hangs")
    for handler in logging.getLogger().handlers:
        handler.flush()
    os._exit(1)


def make_server(app: FastAPI, settings: Settings) -> Server:
    """A server for an application of `create_app`; run it with `server.run(sockets=[...])`.

    Raises `SettingsError` when the certificate or its key cannot be used.
    """
    return Server(app, settings)


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Raises `SettingsError` when the certificate or its key cannot be used."""
    check_certificate(settings)
    limits = ConnectionLimits(settings.max_connections, settings.client_timeout_s)
    return uvicorn.Config(
        app,
        # uvicorn's type is a class, but uvicorn only calls it.
        http=cast(
            type[asyncio.Protocol], functools.partial(Connection, limits=limits, metrics=app.state.metrics)
        ),
        log_config=None,
        access_log=False,
        server_header=False,
        ws=cast(
            type[asyncio.Protocol],
            functools.partial(Socket, client_timeout_s=settings.client_timeout_s, metrics=app.state.metrics),
        ),
        ws_max_size=settings.body_limit_bytes + TIME_BYTES,
        # JPEG does not get smaller, and inflating hostile data could fill the memory.
        ws_per_message_deflate=False,
        # uvicorn's default trusts this machine and an environment variable of its own.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_private_key,
        timeout_graceful_shutdown=math.ceil(settings.grace_s),
    )


def check_certificate(settings: Settings) -> None:
    """Raises `SettingsError` when the certificate or its key cannot be used."""
    if settings.tls_certificate is None:
        return
    try:
        # The empty password is for an encrypted key, which would open a prompt and block the start.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.tls_certificate, settings.tls_private_key, password=""
        )
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or error.strerror or str(error)
        raise SettingsError(f"the TLS certificate and its key cannot be used: {reason.lower()}.") from error


def bind(settings: Settings) -> socket.socket:
    """The socket to listen on, bound but not listening: no client connects before the models are warm.

    Raises `SettingsError` when the address is not available.
    """
    return _bound(settings.host, settings.port)


def bind_admin(settings: Settings) -> socket.socket | None:
    """Like `bind`, for the admin port; None without an admin port."""
    return None if settings.admin_port is None else _bound(settings.admin_host, settings.admin_port)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(f"cannot listen on {host} port {port}: {reason_of(error)}.") from error
    return listener


def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises `SettingsError`, `KeysFileError` or `ModelFileError` if a setting or a file cannot be used.
    """
    configure_logs(settings.log_level, settings.log_format)
    bound_heap()
    with ExitStack() as closing:
        sockets = [
            closing.enter_context(listener) for listener in (bind(settings), bind_admin(settings)) if listener
        ]
        server = make_server(create_app(settings), settings)
        # Announced last: a refused start writes one sentence with the reason, and nothing else.
        announce(settings.declaration)
        server.run(sockets=sockets)
