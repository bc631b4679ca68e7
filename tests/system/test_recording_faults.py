"""Recordings whose gateway or Redis is killed, and the disk after them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.recordings import archive
from tests.conftest import Gateway, eventually
from tests.recordings import RECORDINGS, clip, ended, send, state
from tests.redis_server import Redis
from tests.system.conftest import Process, running

RATE = "1000000/second"  # Redis needs a rate or keys


def open_files(pid: int) -> list[str]:
    return [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]


def test_a_recording_leaves_nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    data = clip(tmp_path, seconds=20)
    with running(recording_memory_bytes=10_000) as gateway:
        for _ in range(2):
            id = _at_work(gateway, data)
            assert [name for name in open_files(gateway.process.pid) if name.startswith(str(folder))]
            assert list(folder.iterdir()) == []
            gateway.client.delete(f"{RECORDINGS}/{id}")
            eventually(lambda: gateway.metric("expressnet_recordings") == 0)
            assert not [name for name in open_files(gateway.process.pid) if name.startswith(str(folder))]
        _at_work(gateway, data)
        gateway.process.kill()
        gateway.process.wait()
    assert list(folder.iterdir()) == []


@pytest.fixture
def pair(redis: Redis) -> Iterator[tuple[Process, Process]]:
    """Two gateways with one Redis."""
    redis.start()
    with ExitStack() as stack:
        one, other = (stack.enter_context(running(redis_url=redis.url, rate_limit=RATE)) for _ in range(2))
        yield one, other


def working(gateway: Gateway, tmp_path: Path, seconds: float = 20, fps: float = 30) -> str:
    """The id of a recording that is at work."""
    return _at_work(gateway, clip(tmp_path, seconds=seconds), fps)


def _at_work(gateway: Gateway, data: bytes, fps: float = 30) -> str:
    id: str = send(gateway, data, fps=fps).json()["id"]
    eventually(lambda: state(gateway, id)["frames"] > 0)
    return id


def test_every_gateway_answers_for_a_recording(pair: tuple[Process, Process], tmp_path: Path) -> None:
    one, other = pair
    id = working(one, tmp_path, seconds=4, fps=5)
    assert state(other, id)["state"] == "working"
    assert ended(other, id)["state"] == "done"
    for rest in ("report", "timeline", "timeline?format=csv", "plot"):
        place = f"{RECORDINGS}/{id}/{rest}"
        assert one.client.get(place).content == other.client.get(place).content
    with other.client.stream("GET", f"{RECORDINGS}/{id}/events") as events:
        assert '"state":"done"' in "".join(events.iter_text())
    assert other.client.delete(f"{RECORDINGS}/{id}").status_code == 204
    assert one.client.get(f"{RECORDINGS}/{id}").status_code == 404


def test_every_gateway_cancels_a_recording(pair: tuple[Process, Process], tmp_path: Path) -> None:
    one, other = pair
    id = working(one, tmp_path)
    assert other.client.delete(f"{RECORDINGS}/{id}").status_code == 204
    assert ended(other, id)["state"] == "cancelled"
    eventually(lambda: one.metric("expressnet_recordings") == 0)


def test_a_repeated_request_reaches_the_same_recording_on_any_gateway(
    pair: tuple[Process, Process], tmp_path: Path
) -> None:
    data = clip(tmp_path)
    ids = {send(gateway, data, {"Idempotency-Key": "a"}).json()["id"] for gateway in pair}
    assert len(ids) == 1


@pytest.mark.parametrize("sig", [signal.SIGKILL, signal.SIGTERM])
def test_a_recording_of_a_gateway_that_ends_is_interrupted(
    pair: tuple[Process, Process], tmp_path: Path, sig: signal.Signals
) -> None:
    one, other = pair
    id = working(one, tmp_path)
    one.process.send_signal(sig)
    one.process.wait(60)
    eventually(lambda: state(other, id)["state"] == "interrupted", timeout_s=archive.ALIVE_S + 30)
    assert other.client.get(f"{RECORDINGS}/{id}/report").status_code == 409


def test_a_recording_outlives_a_redis_that_is_killed(
    pair: tuple[Process, Process], redis: Redis, tmp_path: Path
) -> None:
    one, other = pair
    id = working(one, tmp_path, seconds=8, fps=5)
    redis.kill()
    answer = send(other, clip(tmp_path))
    assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert other.client.get(f"{RECORDINGS}/{id}").status_code == 503
    # Its own gateway knows it without Redis.
    assert ended(one, id)["state"] == "done"
    redis.start()
    eventually(lambda: other.client.get(f"{RECORDINGS}/{id}").status_code == 200)
    eventually(lambda: other.client.get(f"{RECORDINGS}/{id}/report").status_code == 200)
    assert state(other, id)["frames"] == 40
