"""A real tritonserver with the flags that the Kubernetes manifests give it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from service.settings import Settings
from tests.conftest import serving
from tests.triton.server import TritonServer, triton

MANIFEST = Path(__file__).parents[2] / "deploy" / "kubernetes" / "base" / "triton.yaml"
AGE = "--grpc-max-connection-age"
AGE_S = 0.3  # short, so that connections end during a test


@pytest.fixture(scope="module")
def server() -> Iterator[TritonServer]:
    deployment = next(yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8")))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    options = {name: value for name, _, value in (argument.partition("=") for argument in container["args"])}
    del options["--model-repository"]
    # This option exists from release 26.04 on. The server of the wheel is older.
    del options["--allow-client-shm"]
    assert AGE in options
    options[AGE] = str(int(AGE_S * 1000))
    arguments = [f"{name}={value}" if value else name for name, value in options.items()]
    with triton(
        Settings().model_repository, *(flag.replace("$(POD_UID)", "secret") for flag in arguments)
    ) as running:
        yield running


def test_connections_that_end_cost_no_answer(server: TritonServer, astronaut_jpeg: bytes) -> None:
    with serving(Settings(port=0, engine="triton", triton_url=server.url)) as gateway:
        deadline = time.monotonic() + 10 * AGE_S
        answers = []
        while time.monotonic() < deadline:
            answers.append(gateway.post(astronaut_jpeg).status_code)
        assert set(answers) == {200}
        assert gateway.ready


@pytest.mark.parametrize(
    "call",
    [
        "get_server_metadata",
        "get_system_shared_memory_status",
        "get_cuda_shared_memory_status",
        "get_model_repository_index",
        "get_inference_statistics",
        "get_trace_settings",
        "get_log_settings",
    ],
)
def test_calls_that_the_gateway_does_not_need_are_refused(server: TritonServer, call: str) -> None:
    with InferenceServerClient(server.url) as client:
        assert client.is_server_ready()
        with pytest.raises(InferenceServerException, match="protocol is restricted"):
            getattr(client, call)()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "health/live", 200),
        ("GET", "health/ready", 200),
        ("GET", "models/yunet", 403),
        ("GET", "models/yunet/config", 403),
        ("GET", "models/yunet/stats", 403),
        ("POST", "models/yunet/infer", 403),
        ("POST", "repository/index", 403),
        ("POST", "repository/models/yunet/load", 403),
        ("GET", "systemsharedmemory/status", 403),
        ("GET", "cudasharedmemory/status", 403),
        ("GET", "logging", 403),
        ("GET", "trace/setting", 403),
    ],
)
def test_http_gives_access_to_health_only(server: TritonServer, method: str, path: str, status: int) -> None:
    assert httpx.request(method, f"http://127.0.0.1:{server.http_port}/v2/{path}").status_code == status


def test_the_metrics_of_the_autoscaler_exist(server: TritonServer) -> None:
    text = httpx.get(f"http://127.0.0.1:{server.metrics_port}/metrics").text
    for name in ("nv_inference_queue_duration_us", "nv_inference_request_success"):
        assert f'{name}{{model="yunet",version="1"}}' in text
