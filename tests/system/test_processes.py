"""Several serving processes behind one port. The processes are real, and the tests kill some of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from service.access.keys_file import add_key
from service.access.scopes import Scope
from service.settings import Settings
from service.telemetry.shared_metrics import PREFIX
from tests.conftest import encoded, eventually, free_port, serving
from tests.fake_engine import fake_engines
from tests.recordings import clip
from tests.system.conftest import Caller, Process, command, running, status

TWO: dict[str, Any] = {"processes": 2, "worker_threads": 1}
ROOMY: dict[str, Any] = {
    "max_images_per_worker": 1000,
    "queue_limit_faces": 5000,
    "timeout_s": 60,
    "grace_s": 60,
}
RATE = 7


def starts(gateway: Process) -> int:
    """How many processes have begun to serve since the gateway started."""
    return sum('"event": "ready"' in line for line in gateway.log)


def pids(gateway: Process) -> dict[int, int]:
    """The process id of each serving process, by its number in the service."""
    (pid_file,) = Path(tempfile.gettempdir()).glob(f"{PREFIX}*/supervisor_{gateway.process.pid}.pid")
    named = (file.stem.split("_") for file in pid_file.parent.glob("[0-9]*.pid"))
    return {int(number): int(pid) for number, pid in named}


def kill(gateway: Process, number: int) -> int:
    """Kill a serving process, and return its id once it is gone: until then it may accept a connection."""
    process = psutil.Process(pids(gateway)[number])
    process.kill()
    process.wait(10)
    return process.pid


@contextmanager
def two_processes(**settings: Any) -> Iterator[Process]:
    with running(**TWO, **ROOMY, **settings) as process:
        eventually(lambda: starts(process) == 2)
        yield process


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    add_key(file, "first", [Scope.PREDICT], None, None)
    return file


@pytest.fixture(scope="module")
def admin() -> str:
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def gateway(keys: Path, admin: str) -> Iterator[Process]:
    port = admin.rpartition(":")[2]
    with two_processes(keys_file=keys, allow_anonymous=True, admin_port=port) as process:
        yield process


def post(gateway: Process, image: bytes, key: str | None = None) -> httpx.Response:
    """Send one image on a new connection."""
    headers = {"Content-Type": "image/jpeg"} | ({} if key is None else {"X-API-Key": key})
    return httpx.post(f"{gateway.url}/v1/emotions", content=image, headers=headers, timeout=60, verify=False)


def post_in_parallel(
    gateway: Process, image: bytes, count: int, key: str | None = None
) -> list[httpx.Response]:
    """Send `count` requests from four threads. Every process must answer some of them."""
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: post(gateway, image, key), range(count)))
    assert {process_of(gateway, answer) for answer in answers} == {1, 2}
    return answers


def process_of(gateway: Process, response: httpx.Response) -> int:
    """The number of the process that answered, from its line in the log."""
    request_id = response.headers["X-Request-ID"]
    eventually(lambda: any(request_id in line for line in gateway.log))
    return int(next(json.loads(line)["process"] for line in gateway.log if request_id in line))


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text) if family.samples}


def metrics(url: str) -> dict[str, Metric]:
    return families(httpx.get(f"{url}/metrics", timeout=30, verify=False).text)


def request_count(url: str) -> float:
    """The number of requests to `/v1/emotions`, from `/metrics`."""
    return sum(
        sample.value
        for sample in metrics(url)["expressnet_http_requests"].samples
        if sample.labels["route"] == "/v1/emotions"
    )


def in_flight(url: str) -> float:
    (sample,) = metrics(url)["expressnet_requests_in_flight"].samples
    return float(sample.value)


def test_connections_are_distributed_evenly(gateway: Process, faceless_jpeg: bytes) -> None:
    before = len(gateway.log)
    callers = [Caller(gateway.url, faceless_jpeg).send() for _ in range(16)]
    assert [status(caller.read(12)) for caller in callers] == [200] * 16

    def lines() -> list[dict[str, Any]]:
        return [line for line in map(json.loads, gateway.log[before:]) if line["event"] == "request"]

    eventually(lambda: len(lines()) == 16)
    by_process = Counter(line["process"] for line in lines())
    # A connection of an earlier client may still be open.
    assert sorted(by_process) == [1, 2]
    assert min(by_process.values()) >= 7
    for caller in callers:
        caller.close()


def test_the_log_has_each_address_of_the_service_once(gateway: Process, admin: str) -> None:
    listening = [line["url"] for line in map(json.loads, gateway.log) if line["event"] == "listening"]
    assert listening == [gateway.url, admin]


def test_metrics_look_like_those_of_one_process(gateway: Process, admin: str, faceless_jpeg: bytes) -> None:
    post(gateway, faceless_jpeg)
    with serving(Settings(port=0), fake_engines()) as single:
        single.post(faceless_jpeg)
        expected = families(single.client.get("/metrics").text)
    shown = metrics(admin)
    assert {name: (family.type, family.documentation) for name, family in shown.items()} == {
        name: (family.type, family.documentation) for name, family in expected.items()
    }
    for name, family in shown.items():
        labels = {frozenset(sample.labels) for sample in expected[name].samples}
        if name.startswith("process_"):
            assert {sample.labels["process"] for sample in family.samples} == {"1", "2", "supervisor"}
        else:
            assert {frozenset(sample.labels) for sample in family.samples} == labels


def test_metrics_add_up_and_continue_after_a_kill(gateway: Process, admin: str, faceless_jpeg: bytes) -> None:
    before = request_count(admin)
    post_in_parallel(gateway, faceless_jpeg, 20)
    eventually(lambda: request_count(admin) == before + 20)
    starts_before = starts(gateway)
    killed = kill(gateway, 1)
    # Meanwhile the other process serves. It is ready, and reports the counts of both.
    while starts(gateway) == starts_before:
        assert httpx.get(f"{gateway.url}/readyz", timeout=30).status_code == 200
        assert request_count(admin) == before + 20
    assert pids(gateway)[1] != killed
    post_in_parallel(gateway, faceless_jpeg, 20)
    eventually(lambda: request_count(admin) == before + 40)
    assert in_flight(admin) == 0


def test_after_a_kill_successive_callers_reach_both_processes(gateway: Process, faceless_jpeg: bytes) -> None:
    starts_before = starts(gateway)
    kill(gateway, 2)
    eventually(lambda: starts(gateway) == starts_before + 1)
    answered = Counter(process_of(gateway, post(gateway, faceless_jpeg)) for _ in range(8))
    assert min(answered[1], answered[2]) >= 2


def test_a_new_key_works_in_every_process_and_all_share_its_rate(
    gateway: Process, keys: Path, faceless_jpeg: bytes
) -> None:
    secret = add_key(keys, "second", [Scope.PREDICT], f"{RATE}/day", None)
    eventually(lambda: sum('"keys changed"' in line for line in gateway.log) == 2)
    answers = post_in_parallel(gateway, faceless_jpeg, RATE, secret)
    assert [answer.status_code for answer in answers] == [200] * RATE
    remaining = {answer.headers["RateLimit"].split(";")[1] for answer in answers}
    assert remaining == {f"r={number}" for number in range(RATE)}
    assert [post(gateway, faceless_jpeg, secret).status_code for _ in range(4)] == [429] * 4


def test_every_process_answers_for_a_session(gateway: Process, astronaut_jpeg: bytes) -> None:
    id = httpx.post(f"{gateway.url}/v1/sessions", json={}, timeout=60).raise_for_status().json()["id"]

    def send(number: int) -> httpx.Response:
        query = f"session={id}&participant=p{number % 3}"
        return httpx.post(
            f"{gateway.url}/v1/emotions?{query}",
            content=astronaut_jpeg,
            headers={"Content-Type": "image/jpeg"},
            timeout=60,
        )

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(send, range(12)))
    assert {answer.status_code for answer in answers} == {200}
    assert {process_of(gateway, answer) for answer in answers} == {1, 2}
    for _ in range(4):
        found = httpx.get(f"{gateway.url}/v1/sessions/{id}/report", timeout=60).json()
        assert [each["images"] for each in found["participants"]] == [4, 4, 4]


def test_every_process_answers_for_a_recording(gateway: Process, tmp_path: Path) -> None:
    sent = httpx.post(
        f"{gateway.url}/v1/recordings",
        content=clip(tmp_path),
        headers={"Content-Type": "video/mp4"},
        timeout=60,
    )
    place = f"{gateway.url}/v1/recordings/{sent.raise_for_status().json()['id']}"

    def get(rest: str = "") -> httpx.Response:
        return httpx.get(f"{place}{rest}", timeout=60)

    eventually(lambda: get().json()["state"] == "done")
    for rest in ("", "/report", "/timeline", "/plot"):
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(get, [rest] * 12))
        assert {answer.status_code for answer in answers} == {200}
        assert {process_of(gateway, answer) for answer in answers} == {1, 2}
        assert len({answer.content for answer in answers}) == 1


def test_requests_do_not_wait_for_a_stopped_supervisor(
    gateway: Process, keys: Path, faceless_jpeg: bytes
) -> None:
    secret = add_key(keys, "third", [Scope.PREDICT], "1000/day", None)
    eventually(lambda: sum('"keys changed"' in line for line in gateway.log) == 4)
    with httpx.Client(base_url=gateway.url, timeout=30, headers={"X-API-Key": secret}) as client:

        def remaining() -> str:
            response = client.post(
                "/v1/emotions", content=faceless_jpeg, headers={"Content-Type": "image/jpeg"}
            )
            assert response.status_code == 200
            return str(response.headers["RateLimit"].split(";")[1])

        assert remaining() == "r=999"
        gateway.process.send_signal(signal.SIGSTOP)
        try:
            # The process that has the connection counts by itself.
            assert [remaining() for _ in range(3)] == ["r=999", "r=998", "r=997"]
        finally:
            gateway.process.send_signal(signal.SIGCONT)
        eventually(
            lambda: (
                remaining().startswith("r=99") and any("over all processes" in line for line in gateway.log)
            )
        )


def stream_to(gateway: Process) -> ClientConnection:
    return connect(f"{gateway.url.replace('http', 'ws', 1)}/v1/stream", compression=None, proxy=None)


def is_answered(stream: ClientConnection, image: bytes) -> bool:
    try:
        stream.send(image)
        return "faces" in json.loads(stream.recv(timeout=30))
    except ConnectionClosed:
        return False


@pytest.mark.alone
def test_a_kill_loses_the_requests_and_streams_of_one_process_only(
    gateway: Process, admin: str, astronaut: NDArray[np.uint8], faceless_jpeg: bytes
) -> None:
    montage = encoded(np.tile(astronaut, (5, 5, 1)), quality=30)
    before = len(gateway.log)
    starts_before = starts(gateway)
    with stream_to(gateway) as one, stream_to(gateway) as other:
        assert is_answered(one, faceless_jpeg)
        assert is_answered(other, faceless_jpeg)
        callers = [Caller(gateway.url, montage).send(0.999) for _ in range(12)]
        for caller in callers:
            caller.send()
        eventually(lambda: in_flight(admin) == 12)
        kill(gateway, 2)
        assert sorted([is_answered(one, faceless_jpeg), is_answered(other, faceless_jpeg)]) == [False, True]
        answers = Counter(status(caller.read()) for caller in callers)
        # The killed process may have answered some requests before.
        assert set(answers) == {200, 0}
        survivors = [
            line
            for line in map(json.loads, gateway.log[before:])
            if line.get("route") == "/v1/emotions" and line["process"] == 1
        ]
        assert {line["status"] for line in survivors} == {200}
        assert 5 <= len(survivors) <= 7
        eventually(lambda: starts(gateway) == starts_before + 1)
        # The new process has the fewest connections, so the next ones go to it.
        eventually(lambda: process_of(gateway, post(gateway, faceless_jpeg)) == 2)
    for caller in callers:
        caller.close()
    endings = [line for line in map(json.loads, gateway.log[before:]) if line["event"] == "process ended"]
    assert [(line["process"], line["exit_code"]) for line in endings] == [(2, -signal.SIGKILL)]


def test_a_process_that_hangs_is_replaced(gateway: Process, faceless_jpeg: bytes) -> None:
    starts_before = starts(gateway)
    hanging = pids(gateway)[1]
    os.kill(hanging, signal.SIGSTOP)
    eventually(lambda: starts(gateway) == starts_before + 1, timeout_s=60)
    assert not psutil.pid_exists(hanging)
    post_in_parallel(gateway, faceless_jpeg, 8)


@pytest.mark.alone
def test_sigterm_answers_what_each_process_has_admitted(astronaut: NDArray[np.uint8]) -> None:
    montage = encoded(np.tile(astronaut, (5, 5, 1)), quality=30)
    with two_processes() as gateway:
        processes = pids(gateway).values()
        callers = [Caller(gateway.url, montage).send(0.999) for _ in range(12)]
        for caller in callers:
            caller.send()
        eventually(lambda: in_flight(gateway.url) == 12)
        exit_code = gateway.stop()
        assert [status(caller.read()) for caller in callers] == [200] * 12
        assert exit_code == 0
        assert not any(map(psutil.pid_exists, processes))
    for caller in callers:
        caller.close()
    stopped = [line for line in map(json.loads, gateway.log) if line["event"] == "stopped"]
    assert sorted(line["process"] for line in stopped) == [1, 2]


def test_without_their_supervisor_processes_finish_and_end(astronaut_jpeg: bytes) -> None:
    with two_processes() as gateway:
        processes = pids(gateway).values()
        caller = Caller(gateway.url, astronaut_jpeg).send(0.999)
        eventually(lambda: metrics(gateway.url)["expressnet_connections"].samples[0].value >= 2)
        gateway.process.kill()
        assert status(caller.send().read(12)) == 200
        eventually(lambda: not any(map(psutil.pid_exists, processes)))
        caller.close()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"model_repository": "/nowhere"}, "/nowhere"), ({"port": "{taken}"}, "address already in use")],
)
def test_a_start_that_fails_says_why_in_one_sentence(settings: dict[str, str], expected: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        chosen = {name: text.format(taken=taken.getsockname()[1]) for name, text in settings.items()}
        process = command(
            {f"EXPRESSNET_{name.upper()}": str(value) for name, value in {"port": 0, **TWO, **chosen}.items()}
        )
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2
    assert expected in stderr
    assert len(stderr.splitlines()) == 1


def test_ctrl_c_reaches_every_process_and_all_stop_in_good_order(astronaut_jpeg: bytes) -> None:
    with two_processes() as gateway:
        assert gateway.post(astronaut_jpeg).status_code == 200
        gateway.process.send_signal(signal.SIGINT)
        processes = pids(gateway).values()
        while any(map(psutil.pid_exists, processes)):
            for pid in processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)
            time.sleep(0.01)  # without a pause the processes would only handle signals
        assert gateway.process.wait(60) == 0
    events = Counter(line["event"] for line in map(json.loads, gateway.log))
    assert events["stopped"] == 2
    assert events["process ended"] == 0
    assert "Traceback" not in "".join(gateway.log)
