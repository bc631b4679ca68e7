"""The gateway with a real tritonserver that dies, hangs, or restarts with another model."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from service.core.manifest import manifest_path
from service.settings import Settings
from tests.conftest import Gateway, eventually, free_port, serving
from tests.triton.server import TritonServer, triton

MODELS = Settings().model_repository
# A server loads its models before it is ready, which takes long on a busy machine.
pytestmark = pytest.mark.timeout(300)

CALLERS = 50


@pytest.fixture(scope="module")
def server() -> Iterator[TritonServer]:
    """A server that every test leaves running and unchanged."""
    with triton(MODELS) as running:
        yield running


def settings_for(server: TritonServer, **settings: object) -> Settings:
    return Settings(**{"port": 0, "engine": "triton", "triton_url": server.url} | settings)  # type: ignore[arg-type]


def circuits(gateway: Gateway) -> dict[str, str]:
    found = {}
    for engine in ("yunet", "expressnet_moe"):
        for state in ("closed", "open", "half-open"):
            if gateway.metric(f'expressnet_circuit_state{{engine="{engine}",state="{state}"}}'):
                found[engine] = state
    return found


class Load:
    """Callers that send one request after another until the block ends. Counts codes and request ids."""

    def __init__(self, gateway: Gateway, image: bytes) -> None:
        self.codes: Counter[str] = Counter()
        self.request_ids: Counter[str] = Counter()
        self.sent = 0
        self._gateway, self._image = gateway, image
        self._lock, self._stop = threading.Lock(), threading.Event()

    def _send(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                self.sent += 1
            answer = self._gateway.post(self._image)
            body = answer.json()
            with self._lock:
                self.codes[body.get("code", "ok")] += 1
                self.request_ids[body["request_id"]] += 1

    def __enter__(self) -> Load:
        self._pool = ThreadPoolExecutor(CALLERS)
        self._callers = [self._pool.submit(self._send) for _ in range(CALLERS)]
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        for caller in self._callers:
            caller.result()


# This test is first, since it is not `alone`: no other worker waits while its fixture starts the server.
def test_each_model_has_its_own_engine_setting(server: TritonServer, astronaut_jpeg: bytes) -> None:
    def inferences() -> list[float]:
        return [server.metric("nv_inference_count", model=name) for name in ("expressnet_moe", "yunet")]

    for setting, changes in (("classifier_engine", [1, 0]), ("detector_engine", [0, 1])):
        before = inferences()
        settings = Settings(**{"port": 0, "triton_url": server.url, setting: "triton"})  # type: ignore[arg-type]
        with serving(settings) as gateway:
            assert gateway.post(astronaut_jpeg).json()["faces"][0]["emotion"] == "happiness"
        assert [after - earlier for earlier, after in zip(before, inferences(), strict=True)] == changes


@pytest.mark.alone
def test_killing_the_server_under_load_costs_no_answer(server: TritonServer, astronaut_jpeg: bytes) -> None:
    with serving(settings_for(server, max_images_per_worker=1000)) as gateway:
        with Load(gateway, astronaut_jpeg) as load:
            eventually(lambda: load.codes["ok"] > 5, 60)
            server.kill()
            eventually(lambda: not gateway.ready, 2)
            server.start()
            eventually(lambda: gateway.ready, 5)
            before = load.codes["ok"]
            eventually(lambda: load.codes["ok"] > before + 5, 60)
        assert set(load.codes) <= {"ok", "overloaded", "engine_unavailable", "deadline_exceeded"}
        assert load.codes["engine_unavailable"] > 0
        assert load.codes.total() == load.sent == len(load.request_ids)
        assert set(circuits(gateway).values()) == {"closed"}


@pytest.mark.alone
def test_a_hanging_server_is_late_and_then_gets_no_calls(server: TritonServer, astronaut_jpeg: bytes) -> None:
    # A lower limit of images would make the gateway refuse waiting callers while no request is answered.
    with serving(settings_for(server, timeout_s=1, max_images_per_worker=1000)) as gateway:
        assert gateway.post(astronaut_jpeg).status_code == 200
        server.signal(signal.SIGSTOP)
        try:
            started = time.monotonic()
            late = gateway.post(astronaut_jpeg)
            assert late.json()["code"] == "deadline_exceeded"
            assert 0.9 < time.monotonic() - started < 2
            memory = psutil.Process().memory_info().rss
            codes: Counter[str] = Counter()
            with ThreadPoolExecutor(8) as pool:
                while codes["engine_unavailable"] < 20:
                    assert codes["deadline_exceeded"] < 100, "the circuit never opened"
                    for answer in pool.map(gateway.post, [astronaut_jpeg] * 8):
                        codes[answer.json().get("code", "ok")] += 1
            assert set(codes) == {"deadline_exceeded", "engine_unavailable"}
            assert not gateway.ready
            assert circuits(gateway)["yunet"] in ("open", "half-open")
            assert "yunet" in gateway.client.get("/readyz").json()["engines"]
            assert psutil.Process().memory_info().rss - memory < 50e6
        finally:
            server.signal(signal.SIGCONT)
        # An unready gateway gets no requests, so it must detect the recovery by itself.
        eventually(lambda: gateway.ready, 5)
        assert gateway.post(astronaut_jpeg).status_code == 200
        assert circuits(gateway)["yunet"] == "closed"


def test_old_and_new_gateways_refuse_a_server_that_restarts_with_another_model(
    server: TritonServer, astronaut_jpeg: bytes
) -> None:
    config = server.repository / "expressnet_moe" / "config.pbtxt"
    own = config.read_text()
    sha256 = json.loads(manifest_path(MODELS, "expressnet_moe").read_text())["sha256"]["model.pt"]

    def refuses(gateway: Gateway) -> bool:
        answer = gateway.post(astronaut_jpeg)
        return (answer.status_code, answer.json()["code"]) == (503, "engine_unavailable")

    with serving(settings_for(server)) as old:
        assert old.post(astronaut_jpeg).status_code == 200
        server.kill()
        config.write_text(own.replace(sha256, "0" * 64))
        try:
            # A gateway may start before its server.
            with serving(settings_for(server), until_ready=False) as new:
                assert not new.ready
                assert refuses(new)
                server.start()
                engines = {"expressnet_moe": "down", "yunet": "up"}
                for gateway in (old, new):
                    eventually(lambda g=gateway: g.client.get("/readyz").json()["engines"] == engines)  # type: ignore[misc]
                    assert refuses(gateway)
                server.kill()
                config.write_text(own)
                server.start()
                for gateway in (old, new):
                    eventually(lambda g=gateway: g.ready, 5)  # type: ignore[misc]
                    assert gateway.post(astronaut_jpeg).status_code == 200
        finally:
            if config.read_text() != own:
                server.kill()
                config.write_text(own)
            if not server.running:
                server.start()


def test_a_rollback_is_one_setting(astronaut_jpeg: bytes, server: TritonServer) -> None:
    """The server has versions 1 and 2, and version 2 is the default, as after an export."""
    folder = server.repository / "expressnet_moe"
    one = json.loads((folder / "manifest.json").read_text())
    two = one | {"version": "2"}
    config = (folder / "config.pbtxt").read_text()
    server.kill()
    (folder / "2").mkdir()
    for file in ("model.onnx", "model.pt", "model.py"):
        (folder / "2" / file).write_bytes((folder / "1" / file).read_bytes())
    (folder / "1" / "manifest.json").write_text(json.dumps(one))
    (folder / "manifest.json").write_text(json.dumps(two))
    parameter = f'parameters {{ key: "sha256_2" value {{ string_value: "{one["sha256"]["model.pt"]}" }} }}\n'
    (folder / "config.pbtxt").write_text(config.replace("versions: [ 1 ]", "versions: [ 1, 2 ]") + parameter)
    server.start()
    for setting, expected in (({}, "2"), ({"model_version": "1"}, "1")):
        before = server.metric("nv_inference_count", model="expressnet_moe", version=expected)
        with serving(settings_for(server, model_repository=server.repository, **setting)) as gateway:
            answer = gateway.post(astronaut_jpeg)
            model = {"name": "expressnet_moe", "version": expected, "prior": "balanced"}
            assert answer.json()["model"] == model
        after = server.metric("nv_inference_count", model="expressnet_moe", version=expected)
        assert after == before + 1


def test_without_a_server_the_gateway_is_alive_and_unready() -> None:
    settings = Settings(port=0, engine="triton", triton_url=f"127.0.0.1:{free_port()}")
    with serving(settings, until_ready=False) as gateway:
        assert gateway.client.get("/livez").status_code == 200
        eventually(lambda: gateway.client.get("/readyz").json()["engines"].get("yunet") == "down")
        assert not gateway.ready
