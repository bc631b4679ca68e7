"""Threads that work on images. A thread that works on one image for too long is abandoned and replaced."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from enum import Enum, auto
from queue import SimpleQueue
from typing import Any, TypeVar

from service.core.errors import HostBusy, ImageTooComplex, ServiceError

T = TypeVar("T")

# An image that got a smaller share of a core was not too complex: the machine was busy.
MIN_CPU_SHARE = 0.5


def _cpu_clock(multithreaded: bool) -> int | None:
    """A clock for `time.clock_gettime`: this thread's, or the process's if the decoder has its own threads.

    None if threads have no clock, as on macOS. Then every slow image counts as too complex.
    """
    if multithreaded:
        # The threads of a HEIC decoder end with each tile, and so do their clocks.
        return time.CLOCK_PROCESS_CPUTIME_ID
    if sys.platform != "linux":
        return None
    return time.pthread_getcpuclockid(threading.get_ident())


class _State(Enum):
    running = auto()
    done = auto()
    abandoned = auto()


class GivenUp(Exception):
    """No caller waits for this thread's result any more."""


class _Job:
    """One function on one thread, and the future of its result."""

    def __init__(
        self, function: Callable[[], Any], multithreaded: bool, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.function = function
        self.multithreaded = multithreaded
        self.loop = loop
        self.answer: asyncio.Future[Any] = loop.create_future()
        self.state = _State.running
        self.slot_released = False
        self.budget: asyncio.TimerHandle | None = None
        self.thread: threading.Thread | None = None
        self.began_at: float | None = None  # by `time.monotonic`, once a thread has started the job
        self.cpu_clock: int | None = None
        self.cpu_began_s = 0.0


class Slot:
    """The right to work on one image, now or next. Call `release` once, after errors, too."""

    def __init__(self, workers: Workers, multithreaded: bool) -> None:
        self._workers = workers
        self._multithreaded = multithreaded
        self._job: _Job | None = None

    async def run(self, function: Callable[[], T]) -> T:
        """Run `function` on a thread. Returns or raises what `function` does.

        Raises `ImageTooComplex` or `HostBusy` when `function` takes longer than the budget.
        """
        self._job = self._workers.begin(function, self._multithreaded)
        answer: T = await self._job.answer
        return answer

    def check(self) -> None:
        """Called by the running function between its steps. Raises `GivenUp` if no caller waits any more."""
        if self._job is not None and self._job.answer.done():
            raise GivenUp

    def release(self) -> None:
        """Give the slot to the next image, once no thread works on this image any more."""
        job, self._job = self._job, None  # a job holds an image's pixels
        if job is not None and job.state is _State.running:
            job.slot_released = True
        else:
            self._workers.free()


class Workers:
    """`count` threads with one slot each, and `ahead` more slots.

    An image in one of the other slots waits for a thread, so that no thread waits for a busy event loop.

    A thread cannot be stopped from outside. A thread that overruns `budget_s` is abandoned: its image gets an
    error, another thread takes over, and the thread ends after its function. At most `count` threads may be
    abandoned at a time, as each still holds a core and its pixels. Beyond that limit the image gets an
    error, but its slot stays taken until the thread is free.
    """

    def __init__(self, count: int, *, budget_s: float, overran: Callable[[], None], ahead: int = 0) -> None:
        self._count = count
        self._budget_s = budget_s
        self._overran = overran
        self._slots = asyncio.Semaphore(count + ahead)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._at_work = 0  # abandoned threads included
        self._abandoned = 0
        self._threads: set[threading.Thread] = set()

    def start(self) -> None:
        for _ in range(self._count):
            self._add_thread()

    async def close(self) -> None:
        """End the threads after their work, without waiting for threads over their budget."""
        for _ in range(self._count):
            self._jobs.put(None)
        await asyncio.to_thread(self._join, time.monotonic() + self._budget_s)

    def _join(self, until: float) -> None:
        for thread in self._threads.copy():
            thread.join(max(0.0, until - time.monotonic()))

    async def acquire(self, *, multithreaded: bool = False) -> Slot:
        """multithreaded: whether the image's decoder has threads of its own."""
        await self._slots.acquire()
        return Slot(self, multithreaded)

    def free(self) -> None:
        self._slots.release()

    def begin(self, function: Callable[[], Any], multithreaded: bool) -> _Job:
        loop = asyncio.get_running_loop()
        job = _Job(function, multithreaded, loop)
        job.budget = loop.call_later(self._budget_s, self._overrun, job)
        self._jobs.put(job)
        return job

    def _add_thread(self) -> None:
        # Daemons, so that the process can end while an abandoned thread still works.
        thread = threading.Thread(target=self._work, name="vision", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.thread = threading.current_thread()
            with self._lock:
                self._at_work += 1
            job.cpu_clock = _cpu_clock(job.multithreaded)
            if job.cpu_clock is not None:
                job.cpu_began_s = time.clock_gettime(job.cpu_clock)
            # Not by the loop's clock: uvloop's clock stands still while the loop waits.
            job.began_at = time.monotonic()
            answer, error = None, None
            try:
                if job.answer.done():
                    raise GivenUp
                answer = job.function()
            except BaseException as raised:
                error = raised
            with self._lock:
                self._at_work -= 1
                abandoned = job.state is _State.abandoned
                if not abandoned:
                    job.state = _State.done
            # The loop may be closed. Then no caller waits.
            with suppress(RuntimeError):
                job.loop.call_soon_threadsafe(self._ended, job, answer, error)
            if abandoned:
                return
            # Otherwise an idle thread would hold the last image's pixels.
            del job, answer, error

    def _overrun(self, job: _Job) -> None:
        """Runs on the event loop: abandons the thread, or waits until its budget is spent."""
        now = time.monotonic()
        began_at = now if job.began_at is None else job.began_at
        if (left_s := began_at + self._budget_s - now) > 0:
            job.budget = job.loop.call_later(left_s, self._overrun, job)
            return
        with self._lock:
            if job.state is not _State.running:
                return
            # Read here, where the thread is certainly alive.
            cpu_s = self._budget_s
            if job.cpu_clock is not None:
                cpu_s = time.clock_gettime(job.cpu_clock) - job.cpu_began_s
            if job.multithreaded:
                cpu_s /= self._at_work
            if replaced := self._abandoned < self._count:
                job.state = _State.abandoned
                self._abandoned += 1
                if job.thread is not None:
                    self._threads.discard(job.thread)
        self._overran()
        if not job.answer.done():
            job.answer.set_exception(self._too_slow(cpu_s))
        if replaced:
            self._add_thread()
            if job.slot_released:
                self.free()

    def _too_slow(self, cpu_s: float) -> ServiceError:
        """Why an image took longer than the budget."""
        if cpu_s >= MIN_CPU_SHARE * self._budget_s:
            return ImageTooComplex(
                f"the image takes more than {self._budget_s:g} s to process; send a smaller image"
            )
        return HostBusy(
            f"the image was not processed within {self._budget_s:g} s because the machine is busy"
        )

    def _ended(self, job: _Job, answer: object, error: BaseException | None) -> None:
        """Runs on the event loop when a thread has finished a job."""
        if job.budget is not None:
            job.budget.cancel()
        if job.state is _State.abandoned:
            self._abandoned -= 1
            return
        if not job.answer.done():
            if error is not None:
                job.answer.set_exception(error)
            else:
                job.answer.set_result(answer)
        if job.slot_released:
            self.free()
