"""Batching across concurrent requests.

Due calls start at every change: faces arrive, the last image leaves detection, a call ends, or the oldest
face has waited `max_delay_s`. Each call is a task, so the next batch forms during the call.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from service.core.arrays import Classification, Faces
from service.core.deadline import Deadline
from service.core.errors import (
    Draining,
    EngineContractError,
    EngineUnavailable,
    Internal,
    Overloaded,
    ServiceError,
)
from service.inference.engine import Classifier


@dataclass(frozen=True, slots=True)
class BatcherLimits:
    """Faces per call, faces in the queue, seconds that a face waits for more faces, calls at a time."""

    max_batch_faces: int
    queue_limit_faces: int
    max_delay_s: float
    calls_in_flight: int = 1


@dataclass(slots=True)
class BatcherEvents:
    """Callbacks for the metrics."""

    batch: Callable[[int], None] = lambda faces: None
    depth: Callable[[int], None] = lambda faces: None


@dataclass(slots=True, eq=False)
class _Ticket:
    """Faces of one request, at most one batch, and the future of their classification."""

    faces: Faces
    deadline: Deadline
    answer: asyncio.Future[Classification]
    arrived_at: float = field(default_factory=time.monotonic)
    waited_s: float = 0.0


class Batcher:
    """Groups faces of many requests into calls of one classifier.

    Every admitted face gets an answer or an error. A failed batch fails only its own requests. `close`
    answers or fails all remaining faces.
    """

    def __init__(self, classifier: Classifier, limits: BatcherLimits, events: BatcherEvents) -> None:
        self._classifier = classifier
        self._limits = limits
        self._events = events
        self._queue: deque[_Ticket] = deque()
        self._depth_faces = 0
        self._images_in_detection = 0
        self._calls: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None  # set while the oldest face waits for more faces
        self._started = False
        self._closing = False

    @property
    def alive(self) -> bool:
        """Whether new faces are accepted."""
        return self._started and not self._closing

    def start(self) -> None:
        self._started = True

    @contextmanager
    def image_in_detection(self) -> Iterator[None]:
        """Announce faces that may follow. A batch waits for more only while an image is in detection."""
        self._images_in_detection += 1
        try:
            yield
        finally:
            self._images_in_detection -= 1
            if self._queue:
                self._schedule()

    async def classify(self, faces: Faces, deadline: Deadline) -> tuple[Classification, float]:
        """faces: uint8 [N,3,S,S], N >= 1 -> (their classification, the longest wait of a face in seconds).

        Cancelling removes the waiting faces from the queue. It also stops the engine's call if no other
        request waits for that call. Raises `Overloaded` at once when the queue is full, and the engine's
        error when the batch failed.
        """
        if not self.alive:
            raise self._refusal("the batcher has not started")
        # An empty queue admits any request, or a request larger than the queue could never run.
        if self._depth_faces and self._depth_faces + len(faces) > self._limits.queue_limit_faces:
            raise Overloaded(f"{self._depth_faces} faces are already waiting for the classifier")
        loop = asyncio.get_running_loop()
        step = self._limits.max_batch_faces
        tickets = [
            _Ticket(faces[i : i + step], deadline, loop.create_future()) for i in range(0, len(faces), step)
        ]
        try:
            self._queue.extend(tickets)
            self._count(len(faces))
            self._schedule()
            answers = [ticket.answer for ticket in tickets]
            parts = [await answers[0]] if len(answers) == 1 else await asyncio.gather(*answers)
        except BaseException:
            for ticket in tickets:
                ticket.answer.cancel()
            self._drop_cancelled()
            raise
        waited_s = max(ticket.waited_s for ticket in tickets)
        if len(parts) == 1:
            return parts[0], waited_s
        return Classification.joined(parts), waited_s

    async def close(self) -> None:
        """Answer what was admitted, then stop."""
        self._closing = True
        self._schedule()
        while self._calls:
            await asyncio.wait(self._calls)

    def _refusal(self, reason: str) -> ServiceError:
        if self._closing:
            return Draining("the service is shutting down")
        return EngineUnavailable(reason)

    def _schedule(self) -> None:
        """Start every call that is due now, and set the timer for the next call."""
        try:
            self._begin_due_calls()
        except Exception as error:
            # No request may wait forever, whatever the error.
            self._fail(self._queue, error)
            self._queue.clear()
            self._depth_faces = 0

    def _begin_due_calls(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._drop_cancelled()
        while self._queue and len(self._calls) < self._limits.calls_in_flight:
            wait_s = self._queue[0].arrived_at + self._limits.max_delay_s - time.monotonic()
            full = self._depth_faces >= self._limits.max_batch_faces
            if wait_s > 0 and self._images_in_detection and not full and not self._closing:
                self._timer = asyncio.get_running_loop().call_later(wait_s, self._schedule)
                return
            self._begin(self._take())

    def _begin(self, batch: list[_Ticket]) -> None:
        call = asyncio.create_task(self._call(batch))
        self._calls.add(call)
        call.add_done_callback(self._finished)
        if self._classifier.cancellable:
            for ticket in batch:
                ticket.answer.add_done_callback(partial(_stop_if_all_gone, call, batch))

    def _finished(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        self._schedule()

    async def _call(self, batch: list[_Ticket]) -> None:
        try:
            faces = np.concatenate([ticket.faces for ticket in batch])
            self._events.batch(len(faces))
            last = max((ticket.deadline for ticket in batch), key=lambda deadline: deadline.at)
            result = await self._classifier.classify(faces, last)
            _check(result, len(faces))
        except Exception as error:
            self._fail(batch, error)
            return
        except BaseException:
            # The requests of a cancelled call need an answer, too.
            self._fail(batch, self._refusal("the call of the classifier was interrupted"))
            raise
        self._answer(batch, result)

    @staticmethod
    def _answer(batch: list[_Ticket], result: Classification) -> None:
        start = 0
        for ticket in batch:
            end = start + len(ticket.faces)
            if not ticket.answer.done():
                ticket.answer.set_result(result[start:end])
            start = end

    def _take(self) -> list[_Ticket]:
        """Remove the next tickets that fit into one batch from the queue."""
        batch: list[_Ticket] = []
        room = self._limits.max_batch_faces
        for ticket in self._queue:
            if len(ticket.faces) > room:
                break
            ticket.waited_s = time.monotonic() - ticket.arrived_at
            room -= len(ticket.faces)
            batch.append(ticket)
        # Count first: if the callback raises, `_schedule` finds the tickets in the queue and fails them.
        self._count(room - self._limits.max_batch_faces)
        for _ in batch:
            self._queue.popleft()
        return batch

    def _drop_cancelled(self) -> None:
        cancelled = [ticket for ticket in self._queue if ticket.answer.done()]
        if cancelled:
            self._queue = deque(ticket for ticket in self._queue if not ticket.answer.done())
            self._count(-sum(len(ticket.faces) for ticket in cancelled))

    def _count(self, faces: int) -> None:
        self._depth_faces += faces
        self._events.depth(self._depth_faces)

    @staticmethod
    def _fail(batch: Iterable[_Ticket], error: Exception) -> None:
        failure = error
        if not isinstance(error, ServiceError):
            failure = Internal("the classifier failed")
            failure.__cause__ = error
        for ticket in batch:
            if not ticket.answer.done():
                ticket.answer.set_exception(failure)


def _stop_if_all_gone(
    call: asyncio.Task[None], batch: list[_Ticket], _: asyncio.Future[Classification]
) -> None:
    if all(ticket.answer.cancelled() for ticket in batch):
        call.cancel()


def _check(result: Classification, count: int) -> None:
    """Wrong shapes and values must not become wrong answers."""
    hints = {"occlusion": result.occlusion, "face_likeness": result.face_likeness}
    shapes = [part.shape for part in (result.probabilities, result.gates, *hints.values())]
    if any(shape[:1] != (count,) for shape in shapes) or any(shape[1:] != (1,) for shape in shapes[2:]):
        raise EngineContractError(f"probabilities, gates, {' and '.join(hints)} {shapes} for {count} faces")
    # Plain floats are faster than numpy here. Positive comparisons, so that NaN fails them, too.
    if not all(min(row) >= 0 and abs(sum(row) - 1) <= 1e-3 for row in result.probabilities.tolist()):
        raise EngineContractError("probabilities are not finite, negative or do not sum to 1")
    for name, hint in hints.items():
        if not all(0 <= value <= 1 for (value,) in hint.tolist()):
            raise EngineContractError(f"{name} is not finite or not between 0 and 1")
