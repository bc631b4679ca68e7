"""Threads that work on images, and that are given up and replaced when an image keeps one for too long."""

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

# An image that got less than this of a core shared it: then the machine is slow, not the image.
MIN_CPU_SHARE = 0.5


def _cpu_clock(multithreaded: bool) -> int | None:
    """For `time.clock_gettime`: of this thread, or of the process if the work has threads of its own.

    None where threads have no clock, as on macOS: then the image is to blame.
    """
    if multithreaded:
        # The threads of a HEIC end with each tile, and their own clocks with them.
        return time.CLOCK_PROCESS_CPUTIME_ID
    if sys.platform != "linux":
        return None
    return time.pthread_getcpuclockid(threading.get_ident())


class _State(Enum):
    running = auto()
    done = auto()
    abandoned = auto()


class GivenUp(Exception):
    """Nobody waits any more for what a thread is at."""


class _Job:
    """One function on one thread, and who waits for what it returns."""

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
        self.began_at: float | None = None  # by `time.monotonic`, once a thread is at it
        self.cpu_clock: int | None = None
        self.cpu_began_s = 0.0


class Slot:
    """The right to work on one image, now or next. `release` it once, whatever has come of the image."""

    def __init__(self, workers: Workers, multithreaded: bool) -> None:
        self._workers = workers
        self._multithreaded = multithreaded
        self._job: _Job | None = None

    async def run(self, function: Callable[[], T]) -> T:
        """What `function` returns or raises.

        Raises `ImageTooComplex` or `HostBusy` when it takes longer than the budget.
        """
        self._job = self._workers.begin(function, self._multithreaded)
        answer: T = await self._job.answer
        return answer

    def check(self) -> None:
        """To be called by what runs, between its steps. Raises `GivenUp`, which nobody has to handle."""
        if self._job is not None and self._job.answer.done():
            raise GivenUp

    def release(self) -> None:
        """Give the slot to the next image; not before the thread is free that still works on this one."""
        job, self._job = self._job, None  # which holds an image's pixels
        if job is not None and job.state is _State.running:
            job.slot_released = True
        else:
            self._workers.free()


class Workers:
    """`count` threads, and a slot for each of them; with `ahead`, slots for so many more images.

    An image in one of these waits for a thread, and no thread for the event loop, which may be busy.

    A thread cannot be stopped from outside. One that overruns `budget_s` is abandoned: its image is answered,
    another thread takes over, and it ends with what it is at. At most `count` may be abandoned at a time, as
    each still holds a core and its pixels; beyond that the image is answered, but its slot stays taken until
    the thread is back.
    """

    def __init__(self, count: int, *, budget_s: float, overran: Callable[[], None], ahead: int = 0) -> None:
        self._count = count
        self._budget_s = budget_s
        self._overran = overran
        self._slots = asyncio.Semaphore(count + ahead)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._at_work = 0  # with those that are abandoned
        self._abandoned = 0
        self._threads: set[threading.Thread] = set()

    def start(self) -> None:
        for _ in range(self._count):
            self._add_thread()

    async def close(self) -> None:
        """End the threads once they are done; those over their budget are not waited for."""
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
        # Daemons: the process may end while an abandoned one is still at work.
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
            # Not by the loop's clock: uvloop's stands still while the loop waits.
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
            # The loop may have been closed meanwhile: then nobody waits.
            with suppress(RuntimeError):
                job.loop.call_soon_threadsafe(self._ended, job, answer, error)
            if abandoned:
                return
            # Else an idle thread would hold the last image's pixels.
            del job, answer, error

    def _overrun(self, job: _Job) -> None:
        """The budget is spent, or would be if the job had not waited for a thread; runs on the event loop."""
        now = time.monotonic()
        began_at = now if job.began_at is None else job.began_at
        if (left_s := began_at + self._budget_s - now) > 0:
            job.budget = job.loop.call_later(left_s, self._overrun, job)
            return
        with self._lock:
            if job.state is not _State.running:
                return
            # Now, as the thread certainly lives.
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
        """A thread is done with a job; runs on the event loop."""
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
