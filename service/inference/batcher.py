"""Batching across concurrent requests.

One task takes an engine slot, waits for the first face, then until the batch is full, nobody else's faces are
coming or the oldest face has waited `max_delay_s`, and runs the batch as a task of its own while the next one
forms.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from service.arrays import Classification, Faces
from service.deadline import Deadline
from service.errors import (
    Draining,
    EngineContractError,
    EngineUnavailable,
    Internal,
    Overloaded,
    ServiceError,
)
from service.inference.engine import Classifier


def batch_sizes(max_batch_faces: int) -> list[int]:
    """The few sizes that batches are padded to: powers of two, and the largest batch itself."""
    powers = [1 << exponent for exponent in range(max_batch_faces.bit_length())]
    return [size for size in powers if size < max_batch_faces] + [max_batch_faces]


@dataclass(frozen=True, slots=True)
class BatcherLimits:
    """max_batch_faces per call, queue_limit_faces waiting, max_delay_s for company, calls in flight."""

    max_batch_faces: int
    queue_limit_faces: int
    max_delay_s: float
    calls_in_flight: int = 1


@dataclass(slots=True)
class BatcherEvents:
    """What the batcher tells the metrics."""

    batch: Callable[[int], None] = lambda faces: None
    depth: Callable[[int], None] = lambda faces: None


@dataclass(slots=True, eq=False)
class _Ticket:
    """Faces of one request, at most a batch of them, and the future that their waiter awaits."""

    faces: Faces
    deadline: Deadline
    answer: asyncio.Future[Classification]
    arrived_at: float = field(default_factory=time.monotonic)
    waited_s: float = 0.0


class Batcher:
    """Groups faces of many requests into calls of one classifier.

    Every face that is admitted is answered or its waiter gets an error: a failing batch fails its own waiters
    and nobody else's, and closing answers or fails all that is left.
    """

    def __init__(self, classifier: Classifier, limits: BatcherLimits, events: BatcherEvents) -> None:
        self._classifier = classifier
        self._limits = limits
        self._sizes = batch_sizes(limits.max_batch_faces)
        self._events = events
        self._queue: deque[_Ticket] = deque()
        self._depth_faces = 0
        self._coming = 0
        self._arrived = asyncio.Event()
        self._slots = asyncio.Semaphore(limits.calls_in_flight)
        self._calls: set[asyncio.Task[None]] = set()
        self._runner: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def alive(self) -> bool:
        """Whether faces that are submitted now will be worked on."""
        return self._runner is not None and not self._runner.done() and not self._closing

    def start(self) -> None:
        self._runner = asyncio.create_task(self._run(), name="batcher")

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Announce faces that are being looked for: only for such does a batch wait, up to `max_delay_s`."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1
            self._arrived.set()

    async def classify(self, faces: Faces, deadline: Deadline) -> tuple[Classification, float]:
        """faces: uint8 [N,3,S,S], N >= 1 -> (their classification, seconds that the last of them waited).

        Cancelling the call takes its waiting faces out of the queue, and stops the engine's call if nobody
        else waits for it. Raises `Overloaded` at once when the
        queue is full, and what the engine raised when their batch failed.
        """
        if not self.alive:
            raise self._stopped()
        # A request of more faces than the queue holds is let in alone, or it never could be.
        if self._depth_faces and self._depth_faces + len(faces) > self._limits.queue_limit_faces:
            raise Overloaded(f"{self._depth_faces} faces are waiting already")
        loop = asyncio.get_running_loop()
        step = self._limits.max_batch_faces
        tickets = [
            _Ticket(faces[i : i + step], deadline, loop.create_future()) for i in range(0, len(faces), step)
        ]
        self._queue.extend(tickets)
        self._count(len(faces))
        self._arrived.set()
        try:
            parts = await asyncio.gather(*(ticket.answer for ticket in tickets))
        except BaseException:
            for ticket in tickets:
                ticket.answer.cancel()
            self._drop_gone()
            raise
        waited_s = max(ticket.waited_s for ticket in tickets)
        if len(parts) == 1:
            return parts[0], waited_s
        return Classification.joined(parts), waited_s

    async def close(self) -> None:
        """Answer what was admitted, then stop."""
        self._closing = True
        self._arrived.set()
        if self._runner is not None:
            await asyncio.gather(self._runner, return_exceptions=True)
        await asyncio.gather(*self._calls, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while True:
                await self._slots.acquire()
                batch = await self._next_batch()
                if not batch:
                    return
                call = asyncio.create_task(self._call(batch))
                self._calls.add(call)
                call.add_done_callback(self._finished)
                if self._classifier.cancellable:
                    for ticket in batch:
                        ticket.answer.add_done_callback(partial(_stop_if_all_gone, call, batch))
        finally:
            # Whatever ended this task, nobody may be left waiting for it.
            self._fail(self._queue, self._stopped())
            self._drop_gone()

    def _stopped(self) -> ServiceError:
        if self._closing:
            return Draining("the service is shutting down")
        return EngineUnavailable("the batcher has stopped")

    def _finished(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._slots.release()

    async def _next_batch(self) -> list[_Ticket]:
        """Whole tickets up to the largest batch; empty only when closing and nothing is left."""
        while True:
            self._drop_gone()
            wait_s: float | None = None
            if self._queue:
                wait_s = self._queue[0].arrived_at + self._limits.max_delay_s - time.monotonic()
                full = self._depth_faces >= self._limits.max_batch_faces
                if wait_s <= 0 or full or not self._coming or self._closing:
                    return self._take()
            elif self._closing:
                return []
            self._arrived.clear()
            try:
                async with asyncio.timeout(wait_s):
                    await self._arrived.wait()
            except TimeoutError:
                pass

    def _take(self) -> list[_Ticket]:
        batch: list[_Ticket] = []
        room = self._limits.max_batch_faces
        for ticket in self._queue:
            if len(ticket.faces) > room:
                break
            ticket.waited_s = time.monotonic() - ticket.arrived_at
            room -= len(ticket.faces)
            batch.append(ticket)
        # Counted before they leave the queue: should an observer raise, `_run` still finds them there.
        self._count(room - self._limits.max_batch_faces)
        for _ in batch:
            self._queue.popleft()
        return batch

    def _drop_gone(self) -> None:
        gone = [ticket for ticket in self._queue if ticket.answer.done()]
        if gone:
            self._queue = deque(ticket for ticket in self._queue if not ticket.answer.done())
            self._count(-sum(len(ticket.faces) for ticket in gone))

    def _count(self, faces: int) -> None:
        self._depth_faces += faces
        self._events.depth(self._depth_faces)

    async def _call(self, batch: list[_Ticket]) -> None:
        try:
            faces = np.concatenate([ticket.faces for ticket in batch])
            self._events.batch(len(faces))
            padded = self._padded(faces)
            last = max((ticket.deadline for ticket in batch), key=lambda deadline: deadline.at)
            result = await self._classifier.classify(padded, last)
            _check(result, len(faces), len(padded))
        except ServiceError as error:
            self._fail(batch, error)
            return
        except Exception as error:
            failure = Internal("the classifier failed")
            failure.__cause__ = error
            self._fail(batch, failure)
            return
        except BaseException:
            # Cancelled, or what no handler of errors catches: the waiters must hear of it all the same.
            self._fail(batch, self._stopped())
            raise
        start = 0
        for ticket in batch:
            end = start + len(ticket.faces)
            if not ticket.answer.done():
                ticket.answer.set_result(result[start:end])
            start = end

    def _padded(self, faces: Faces) -> Faces:
        """Rows added up to the next of few sizes, so that the engine meets only shapes that are warm."""
        missing = next(size for size in self._sizes if size >= len(faces)) - len(faces)
        if not missing:
            return faces
        return np.concatenate([faces, np.zeros((missing, *faces.shape[1:]), faces.dtype)])

    @staticmethod
    def _fail(batch: list[_Ticket] | deque[_Ticket], error: Exception) -> None:
        for ticket in batch:
            if not ticket.answer.done():
                ticket.answer.set_exception(error)


def _stop_if_all_gone(
    call: asyncio.Task[None], batch: list[_Ticket], _: asyncio.Future[Classification]
) -> None:
    if all(ticket.answer.cancelled() for ticket in batch):
        call.cancel()


def _check(result: Classification, count: int, asked: int) -> None:
    """Wrong shapes and values must not become wrong answers. Values of padding rows are not looked at."""
    shapes = result.probabilities.shape, result.gates.shape, result.occlusion.shape
    if any(shape[:1] != (asked,) for shape in shapes) or shapes[2][1:] != (1,):
        raise EngineContractError(f"probabilities, gates and occlusion {shapes} for {asked} faces")
    result = result[:count]
    # Written so that a NaN fails every one of them.
    probabilities, occlusion = result.probabilities, result.occlusion
    if not (probabilities.min() >= 0 and abs(probabilities.sum(axis=1) - 1).max() <= 1e-3):
        raise EngineContractError("probabilities are not finite, negative or do not sum to 1")
    if not 0 <= occlusion.min() <= occlusion.max() <= 1:
        raise EngineContractError("occlusion is not finite or not between 0 and 1")
