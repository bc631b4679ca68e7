"""A gateway with both models on Triton runs from its own lock file, without ONNX Runtime."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.conftest import running
from tests.triton.server import TritonServer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the dependencies of the gateway and its Triton engine."""
    folder = tmp_path_factory.mktemp("gateway")
    uv = (sys.executable, "-m", "uv", "--quiet")
    subprocess.run([*uv, "venv", "--no-project", "--python", sys.executable, folder], check=True)
    install = (*uv, "pip", "install", "--python", folder, "--require-hashes")
    subprocess.run([*install, "-r", ROOT / "locks" / "gateway.txt"], check=True)
    return folder / "bin" / "python"


@pytest.mark.timeout(600)
def test_the_gateway_answers_without_onnxruntime(
    python: Path, triton_server: TritonServer, astronaut_jpeg: bytes
) -> None:
    absent = subprocess.run([python, "-c", "import onnxruntime"], capture_output=True, text=True)
    assert "No module named 'onnxruntime'" in absent.stderr
    with running(python, engine="triton", triton_url=triton_server.url) as gateway:
        (face,) = gateway.post(astronaut_jpeg).json()["faces"]
        assert face["emotion"] == "happiness"


def test_the_embedded_engine_names_the_missing_package(python: Path) -> None:
    refused = subprocess.run([python, "-m", "service", "serve"], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "onnxruntime is not installed: pip install onnxruntime" in refused.stderr
    assert "Traceback" not in refused.stderr
