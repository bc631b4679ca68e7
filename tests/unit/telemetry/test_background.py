"""Background tasks: an exception is logged and counted, and the task is restarted."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.access import limiter
from service.access.keys_file import add_key
from service.access.scopes import Scope
from service.http import app
from service.http.app import create_app
from service.http.layers import stack
from service.recordings.jobs import Jobs
from service.serving import server
from service.serving.child import Share
from service.serving.link import Link
from service.serving.supervisor import Supervisor
from service.settings import Settings
from service.telemetry import background
from service.telemetry.background import supervised
from service.telemetry.metrics import BACKGROUND_TASKS, Metrics
from tests.conftest import Gateway, eventually, serving
from tests.fake_engine import fake_engines


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "PAUSE_S", 0.0)


async def test_work_that_ends_is_not_restarted() -> None:
    begun: list[str] = []

    async def work() -> None:
        begun.append("work")

    await supervised("work", work, begun.append)
    assert begun == ["work"]


async def test_work_that_is_cancelled_stays_cancelled() -> None:
    task = asyncio.create_task(supervised("work", asyncio.Event().wait, print))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class Failing:
    """Replaces a function: the first call in each thread fails, and later calls call the function.

    A server of another test may run in this process and call the same function in its own thread.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.calls: Counter[int] = Counter()

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.calls[threading.get_ident()] += 1
        if self.calls[threading.get_ident()] == 1:
            raise OSError("too many open files")
        return self._function(*args, **options)


# The function of each task that fails in the test: the task, or a function that the task calls.
WORK: dict[str, tuple[Any, str]] = {
    "probe": (app, "probe"),
    "memory": (app, "release_at_rest"),
    "keys file": (stack, "watch"),
    "redis": (limiter.Limiter, "run"),
    "recordings": (Jobs, "run"),
    "late clients": (server, "cut_late"),
}


def failures(metrics: Metrics, task: str) -> float | None:
    return metrics.registry.get_sample_value("expressnet_background_failures_total", {"task": task})


@pytest.mark.parametrize("task", WORK)
def test_a_task_that_fails_is_logged_counted_and_restarted(
    task: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "keys.toml"
    add_key(file, "one", [Scope.PREDICT], None, None)
    work = Failing(getattr(*WORK[task]))
    # A lambda, so that a method stays a method.
    monkeypatch.setattr(*WORK[task], lambda *args: work(*args))
    settings = Settings(port=0, keys_file=file, allow_anonymous=True, rate_limit="9/day")
    application = create_app(settings, fake_engines())
    with capture_logs() as lines, serving(settings, app=application, until_ready=False):
        eventually(lambda: work.calls and min(work.calls.values()) > 1)
        eventually(lambda: failures(application.state.metrics, task) == 1)
    failed = [line for line in lines if line["event"] == "background task failed"]
    assert {(line["task"], line["log_level"]) for line in failed} == {(task, "error")}


def test_a_process_continues_its_beats_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Failing(Share._tell_ended)
    monkeypatch.setattr(Share, "_tell_ended", lambda share: work(share))
    settings = Settings(port=0)
    application = create_app(settings, fake_engines())
    ends = [*socket.socketpair(), *socket.socketpair()]
    ends[0].setblocking(False)
    share = Share(application, settings, ends[0], Link(ends[2]))
    thread = threading.Thread(target=share.run)
    with capture_logs() as lines:
        thread.start()
        eventually(lambda: work.calls.total() > 1)
        share.should_exit = True
        thread.join(30)
    for end in ends:
        end.close()
    assert [line["task"] for line in lines if line["event"] == "background task failed"] == ["beats"]


async def test_a_supervisor_continues_its_watch_after_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    work = Failing(Supervisor._watch)
    monkeypatch.setattr(Supervisor, "_watch", lambda supervisor: work(supervisor))
    watched = asyncio.Event()

    async def keep(_: Supervisor, number: int) -> None:
        await watched.wait()

    monkeypatch.setattr(Supervisor, "_keep", keep)
    metrics = Metrics()
    with capture_logs() as lines:
        running = asyncio.create_task(Supervisor(Settings(processes=2), (), tmp_path, metrics).run())
        async with asyncio.timeout(10):
            while work.calls.total() < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        watched.set()
        await running
    assert [line["task"] for line in lines] == ["processes"]
    labels = {"task": "processes"}
    assert metrics.registry.get_sample_value("expressnet_background_failures_total", labels) == 1


def test_every_task_is_in_the_tests_above() -> None:
    assert {*WORK, "beats", "supervisor link", "processes"} == set(BACKGROUND_TASKS)


def test_failures_are_counted_from_0(tmp_path: Path) -> None:
    with serving(Settings(port=0), fake_engines()) as gateway:
        assert isinstance(gateway, Gateway)
        for task in BACKGROUND_TASKS:
            assert gateway.metric(f'expressnet_background_failures_total{{task="{task}"}}') == 0
