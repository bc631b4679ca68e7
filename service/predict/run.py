"""Answers many images in this process, several at a time, with one row for each, in order."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from service.api.schemas import EmotionQuery
from service.assembly import Assembly
from service.core.arrays import Image
from service.core.deadline import Deadline
from service.core.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    EngineUnavailable,
    HostBusy,
    Internal,
    InvalidImage,
    Overloaded,
    ServiceError,
    reason_of,
)
from service.core.seen import Seen
from service.core.timings import Timings
from service.predict.pictures import target_of, write_picture
from service.predict.rows import Row, RowProblem
from service.predict.sources import STANDARD_INPUT, Source, source
from service.telemetry.logs import log

# Enough for faces of several images to share a call of the classifier while other images are decoded.
IMAGES_PER_THREAD = 4
# Finished rows that may wait for an earlier one: a slow image must not hold up the others.
WAITING_ROWS = 256
# Skipping answered files must not block the event loop, and with it Ctrl-C, for long.
SKIPPED_AT_A_TIME = 200

# No client waits, and the machine may be busy: only a call that hangs is given up.
TIMEOUT_S = 300.0
TRIES = 3
RETRY_S = 0.5
PATIENCE_S = 30.0


class RunStoppedError(Exception):
    """The run cannot answer any more images. The message is one sentence."""


@dataclass(frozen=True, slots=True)
class Options:
    """How each image is answered."""

    query: EmotionQuery
    worker_threads: int
    body_limit_bytes: int
    pixel_limit: int
    pictures: Path | None = None


class Predictor:
    """Answers image files. Setting `stop` ends the run early: images in flight are still answered."""

    def __init__(self, assembly: Assembly, options: Options) -> None:
        """Raises `SettingsError` if the settings allow only groups."""
        self._assembly = assembly
        self._pipeline = assembly.faces
        self._options = options
        self._drawing = asyncio.Semaphore(options.worker_threads)
        self.stop = asyncio.Event()

    async def rows(
        self,
        paths: Iterable[str],
        known: Callable[[int], bool] = lambda key: False,
        skipped: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[Row]:
        """One row for each path, in order. Images whose key is `known` are skipped.

        Raises `RunStoppedError` if an engine stays unavailable, or pictures cannot be written.
        """
        turns = asyncio.Semaphore(IMAGES_PER_THREAD * self._options.worker_threads)
        tasks: deque[asyncio.Task[Row | None]] = deque()
        try:
            async for found in self._sources(paths, known, skipped):
                await turns.acquire()
                if self.stop.is_set():
                    break
                task = asyncio.create_task(self._row(found))
                task.add_done_callback(lambda _: turns.release())
                tasks.append(task)
                while tasks and (tasks[0].done() or len(tasks) >= WAITING_ROWS):
                    if row := await tasks.popleft():
                        yield row
            while tasks:
                if row := await tasks.popleft():
                    yield row
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _sources(
        self, paths: Iterable[str], known: Callable[[int], bool], skipped: Callable[[], None]
    ) -> AsyncGenerator[Source]:
        passed = 0
        for path in paths:
            if self.stop.is_set():
                return
            found = source(path)
            if not known(found.key):
                yield found
                continue
            skipped()
            passed += 1
            if passed % SKIPPED_AT_A_TIME == 0:
                await asyncio.sleep(0)

    async def _row(self, found: Source) -> Row | None:
        """The row of an image; None if the run was stopped before the answer."""
        try:
            data = await asyncio.to_thread(read, found, self._options.body_limit_bytes)
            seen = await self.see(data)
            if self._options.pictures is not None:
                await self._draw(found, data, seen, self._options.pictures)
        except OSError as error:
            return Row(
                found, problem=RowProblem("file_unreadable", "The file cannot be read", reason_of(error))
            )
        except RunStoppedError:
            if self.stop.is_set():
                return None
            raise
        except ServiceError as error:
            if isinstance(error, Internal):
                log.error("internal error", path=found.shown, detail=error.detail, exc_info=error)
            return Row(found, problem=RowProblem.of(error))
        except Exception as error:
            # No image may end the run, whatever its error.
            log.exception("image failed", path=found.shown, error=type(error).__name__)
            return Row(found, problem=RowProblem.of(Internal("")))
        return Row(found, seen)

    async def see(self, image: bytes | Image) -> Seen:
        """Answer an image; retry errors that it did not cause. Raises `ServiceError` or `RunStoppedError`.

        image: an encoded image, or its pixels, uint8 [H,W,3].
        """
        query = self._options.query.to_pipeline()
        if not isinstance(image, bytes):
            query = replace(query, turned=False)  # a video says how its frames are turned
        began = time.monotonic()
        for tries in range(1, sys.maxsize):
            try:
                return await self._pipeline.run(image, query, Deadline.after(TIMEOUT_S), Timings())
            except (DeadlineExceeded, EngineUnavailable, HostBusy, Overloaded) as error:
                gone = await self._gone()
                still_patient = time.monotonic() - began <= PATIENCE_S
                if gone and (self.stop.is_set() or not still_patient):
                    raise RunStoppedError(f"the engine cannot answer: {gone}") from error
                # A full queue empties in time. An engine that answers pings fails because of this image.
                tried = not still_patient if isinstance(error, Overloaded) else tries >= TRIES
                if not gone and (tried or isinstance(error, DeadlineExceeded)):
                    raise
            await asyncio.sleep(RETRY_S)
        raise AssertionError("unreachable")

    async def _gone(self) -> str:
        """Why an engine answers no ping; empty if all engines do."""
        for name, engine in self._assembly.named_engines.items():
            try:
                await engine.ping()
            except ServiceError as error:
                return f"{name}: {error.detail}"
        return ""

    async def _draw(self, found: Source, data: bytes, seen: Seen, folder: Path) -> None:
        path = "stdin.jpg" if found.path == STANDARD_INPUT else found.path
        # Each picture holds all pixels of its image in memory.
        async with self._drawing:
            limit = self._options.pixel_limit
            try:
                await asyncio.to_thread(write_picture, data, seen, limit, target_of(path, folder))
            except OSError as error:
                raise RunStoppedError(
                    f"pictures cannot be written to {folder}: {reason_of(error)}"
                ) from error


def read(found: Source, limit_bytes: int) -> bytes:
    """The bytes of a file. Raises `OSError` and `ServiceError`."""
    if found.path == STANDARD_INPUT:
        data = sys.stdin.buffer.read(limit_bytes + 1)
    elif found.bytes is None and os.path.isdir(found.path):
        raise OSError("this is a folder that cannot be read")
    elif found.bytes is None and os.path.exists(found.path):
        raise InvalidImage("this is not a regular file")
    else:
        with open(found.path, "rb") as file:
            data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise BodyTooLarge(f"the file has more than the {limit_bytes} bytes of EXPRESSNET_BODY_LIMIT_BYTES")
    return data
