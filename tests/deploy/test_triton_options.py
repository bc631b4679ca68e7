"""With the options of the GPU overlay, Triton allows the calls of the gateway and no others."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tests.conftest import Gateway
from tests.deploy.compose import service, triton_arguments
from tests.triton.server import TritonServer

RESTRICTED = {
    "server metadata": lambda client: client.get_server_metadata(),
    "model metadata": lambda client: client.get_model_metadata("yunet"),
    "load": lambda client: client.load_model("yunet"),
    "unload": lambda client: client.unload_model("yunet"),
    "list": lambda client: client.get_model_repository_index(),
    "shared memory": lambda client: client.register_system_shared_memory("region", "/region", 8),
    "shared memory of a GPU": lambda client: client.get_cuda_shared_memory_status(),
    "statistics": lambda client: client.get_inference_statistics(),
    "trace": lambda client: client.get_trace_settings(),
    "logging": lambda client: client.update_log_settings({"log_verbose_level": 1}),
}


def test_the_gateway_answers_a_photo(gateway: Gateway, astronaut_jpeg: bytes) -> None:
    (face,) = gateway.post(astronaut_jpeg).json()["faces"]
    assert face["emotion"] == "happiness"


@pytest.mark.parametrize("call", RESTRICTED.values(), ids=RESTRICTED)
def test_calls_that_the_gateway_does_not_need_are_refused(
    hardened_triton: TritonServer, call: object
) -> None:
    assert callable(call)
    with InferenceServerClient(hardened_triton.url) as client:
        assert client.is_model_ready("yunet")
        with pytest.raises(InferenceServerException, match="restricted"):
            call(client)


def test_http_answers_only_the_health_check(hardened_triton: TritonServer) -> None:
    url = f"http://127.0.0.1:{hardened_triton.http_port}"
    assert httpx.get(f"{url}/v2/health/ready").status_code == 200
    for path in (
        "/v2",
        "/v2/models/yunet",
        "/v2/models/yunet/config",
        "/v2/models/yunet/stats",
        "/v2/logging",
    ):
        assert httpx.get(f"{url}{path}").status_code == 403
    assert httpx.post(f"{url}/v2/models/yunet/infer", content=b"{}").status_code == 403
    assert httpx.post(f"{url}/v2/repository/models/yunet/unload").status_code == 403
    assert httpx.post(f"{url}/v2/systemsharedmemory/region/a/register", content=b"{}").status_code == 403


def test_the_key_of_restricted_calls_is_new_at_every_start(tmp_path: Path) -> None:
    def keys() -> set[str]:
        arguments = triton_arguments(tmp_path)
        found = {argument.rpartition("=")[2] for argument in arguments if "restricted" in argument}
        assert all(len(key) == 36 for key in found)
        return found

    first, second = keys(), keys()
    assert len(first) == 1
    assert first.isdisjoint(second)


def test_only_metrics_and_grpc_are_reachable_from_outside_the_container(tmp_path: Path) -> None:
    arguments = triton_arguments(tmp_path)
    assert "--http-address=127.0.0.1" in arguments
    assert "--metrics-address=0.0.0.0" in arguments
    assert not any(argument.startswith("--grpc-address") for argument in arguments)
    assert service("triton")["healthcheck"]["test"][-1] == "http://127.0.0.1:8000/v2/health/ready"
