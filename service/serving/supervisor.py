"""Runs several serving processes as one service: hands them connections, and watches and replaces them.

The kernel gives connections to the process that wakes first, often all of them, and they stay there. So the
supervisor accepts each connection and hands it to the process with the fewest.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import multiprocessing
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import astuple
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

from service.access.counts import LocalCounts
from service.access.rates import Caller, Rate
from service.core.errors import SettingsError
from service.serving.announce import announce
from service.serving.child import BEAT_S, run
from service.serving.link import LINE_BYTES, line
from service.serving.server import CLOSING_S, bind, bind_admin, log_listening
from service.serving.shared_store import answer
from service.settings import Settings
from service.state.store import MemoryStore
from service.telemetry.background import supervised
from service.telemetry.logs import configure_logs, log
from service.telemetry.metrics import Metrics
from service.telemetry.shared_metrics import metrics_folder, process_shown, share_metrics

BACKLOG = 2048
# Missed beats: after the first number a process gets connections last, after the second it is replaced.
BUSY_BEATS, HUNG_BEATS = 4, 20
RETRY_S, MAX_RETRY_S = 1.0, 30.0
SUPERVISOR = 0  # its process number; serving processes count from 1

# Networks and their threads do not survive a fork.
spawn = multiprocessing.get_context("spawn")


class Child:
    """The supervisor's view of a serving process."""

    def __init__(self, settings: Settings, number: int, folder: Path) -> None:
        self.number = number
        self.given = self.ended = 0
        """Connections that the process was handed, and how many of them have ended."""
        self.last_turn = 0
        """Number of its latest connection, among all connections of the service."""
        self.serving = self.served = False
        self.missed_beats = 0
        self.refused: str | None = None
        self.handed, handed = socket.socketpair()
        self.end, end = socket.socketpair()
        self.handed.setblocking(False)
        with handed, end:
            # Settings travel through a pipe, so that no secret is in the arguments of the process.
            self.process = spawn.Process(
                target=run, args=(settings, number, folder, handed, end), daemon=True
            )
            self.process.start()

    def burden(self) -> tuple[bool, int, int]:
        """Sort key: the process with the smallest burden gets the next connection; equals alternate."""
        return self.missed_beats >= BUSY_BEATS, self.given - self.ended, self.last_turn


class Supervisor:
    def __init__(
        self, settings: Settings, listeners: Sequence[socket.socket], folder: Path, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._folder = folder
        self._metrics = metrics
        self._counts = LocalCounts()
        self._store = MemoryStore()
        self._children: dict[int, Child] = {}
        self._turns = itertools.count(1)
        self._announced = False
        self._stopping = asyncio.Event()
        self.exit_code = 0
        self.refused: str | None = None
        """Why no process could start."""

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT, or until no process serves and none can start."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        watching = asyncio.create_task(supervised("processes", self._watch, self._metrics.background_failed))
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(1, self._settings.processes + 1):
                    group.create_task(self._keep(number))
        finally:
            watching.cancel()

    def _stop(self) -> None:
        if self._stopping.is_set():
            return
        self._stopping.set()
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()
        for child in self._children.values():
            child.process.terminate()
        # Each process ends itself earlier, unless it is suspended or never handled the signal.
        asyncio.get_running_loop().call_later(math.ceil(self._settings.grace_s) + CLOSING_S + 1, self._kill)

    def _interrupted(self) -> None:
        """The first Ctrl-C stops the service, a second Ctrl-C kills its processes."""
        if self._stopping.is_set():
            self._kill()
        self._stop()

    def _kill(self) -> None:
        for child in self._children.values():
            child.process.kill()

    async def _keep(self, number: int) -> None:
        """Run a process with this number, and replace it whenever it ends."""
        retry_s = RETRY_S
        while not self._stopping.is_set():
            child = self._children[number] = Child(self._settings, number, self._folder)
            with child.handed, process_shown(self._folder, str(number), child.process.pid or 0):
                await self._listen(child)
                await asyncio.to_thread(child.process.join)
            mark_process_dead(number, str(self._folder))  # type: ignore[no-untyped-call]
            exit_code = child.process.exitcode
            if self._stopping.is_set():
                # SIGTERM ends a process that has not begun to serve.
                if exit_code not in (0, -signal.SIGTERM):
                    self.exit_code = self.exit_code or 1
            elif not child.served and not self._serving():
                self.refused, self.exit_code = child.refused, max(1, exit_code or 1)
                self._stop()
            else:
                log.error("process ended", process=number, exit_code=exit_code, detail=child.refused)
                if child.served:
                    retry_s = RETRY_S
                else:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._stopping.wait(), retry_s)
                    retry_s = min(2 * retry_s, MAX_RETRY_S)

    async def _listen(self, child: Child) -> None:
        """Handle the messages of a process until it ends."""
        reader, writer = await asyncio.open_connection(sock=child.end, limit=LINE_BYTES)
        with suppress(ConnectionError):
            async for received in reader:
                child.missed_beats = 0
                match json.loads(received):
                    case {"spend": [images, window_s, kind, name, spent], "number": number}:
                        spent = await self._counts.spend(Rate(images, window_s), Caller(kind, name), spent)
                        writer.write(line(number=number, spent=astuple(spent)))
                    case {"store": call, "number": number}:
                        writer.write(line(number=number, **await answer(self._store, call)))
                    case {"ended": ended}:
                        child.ended = ended
                        self._serves(child)
                    case {"draining": True}:
                        child.serving = False
                    case {"refused": sentence}:
                        child.refused = sentence
        writer.close()
        child.serving = False
        self._accept_or_not()

    def _serving(self) -> list[Child]:
        return [child for child in self._children.values() if child.serving]

    def _serves(self, child: Child) -> None:
        if child.served:
            return
        child.serving = child.served = True
        if not self._announced and not self._stopping.is_set():
            self._announced = True
            announce(self._settings.declaration)
            for listener in self._listeners:
                listener.setblocking(False)
                listener.listen(BACKLOG)
            log_listening(self._listeners, "http" if self._settings.tls_certificate is None else "https")
        self._accept_or_not()

    def _accept_or_not(self) -> None:
        """While no process serves, connections wait in the kernel."""
        if self._stopping.is_set():
            return
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            if self._serving():
                loop.add_reader(listener, self._accept, listener)
            else:
                loop.remove_reader(listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionError):
            return
        except OSError:
            # The system has no more descriptors or memory: the connection waits, without a busy loop.
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            loop.call_later(RETRY_S, self._accept_or_not)
            return
        with connection:
            for child in sorted(self._serving(), key=Child.burden):
                # The process may have just ended, or hang with a full socket.
                with suppress(OSError):
                    socket.send_fds(child.handed, [b"\0"], [connection.fileno()])
                    child.given += 1
                    child.last_turn = next(self._turns)
                    return

    async def _watch(self) -> None:
        """Kill processes that hang. Counts beats, not seconds: a pause of the whole service is one beat."""
        while True:
            await asyncio.sleep(BEAT_S)
            for child in self._serving():
                child.missed_beats += 1
                if child.missed_beats > HUNG_BEATS:
                    log.error("process hangs", process=child.number)
                    child.process.kill()


def supervise(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT and return the exit code.

    Raises `SettingsError` if a setting or a file cannot be used.
    """
    configure_logs(settings.log_level, settings.log_format)
    with ExitStack() as closing:
        listeners = [
            closing.enter_context(listener) for listener in (bind(settings), bind_admin(settings)) if listener
        ]
        try:
            folder = closing.enter_context(metrics_folder())
            closing.enter_context(process_shown(folder, "supervisor", os.getpid()))
            metrics = Metrics(share_metrics(folder, SUPERVISOR))
        except OSError as error:
            raise SettingsError(
                f"cannot make a folder for the metrics of several processes: {error}."
            ) from error
        supervisor = Supervisor(settings, listeners, folder, metrics)
        asyncio.run(supervisor.run())
    if supervisor.refused is not None:
        raise SettingsError(supervisor.refused)
    return supervisor.exit_code
