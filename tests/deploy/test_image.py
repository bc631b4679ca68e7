"""Builds the image `gateway` from the Dockerfile and starts it, without Docker."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import Gateway, eventually, free_port
from tests.deploy.compose import ROOT
from tests.deploy.image import Buildah, missing, with_base
from tests.triton.server import TritonServer

USER = 10001
MODELS = sorted(path.parent.name for path in ROOT.glob("model_repository/*/manifest.json"))

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def buildah() -> Iterator[Buildah]:
    if reason := missing():
        pytest.skip(reason)
    with with_base() as program:
        yield program


@pytest.fixture(scope="module")
def image(buildah: Buildah) -> str:
    return buildah.build(ROOT, "gateway")


@pytest.fixture(scope="module")
def container(buildah: Buildah, image: str) -> str:
    return buildah("from", "--pull-never", image)


def run_in(container: str, *command: str) -> tuple[str, ...]:
    """The arguments of buildah that run a command in the container."""
    return ("run", "--isolation", "chroot", "--network", "host", container, "--", *command)


def test_the_started_image_answers_a_photo_and_ends_at_sigterm(
    buildah: Buildah, container: str, hardened_triton: TritonServer, astronaut_jpeg: bytes, tmp_path: Path
) -> None:
    config = json.loads(buildah("inspect", container))["Docker"]["config"]
    port = free_port()
    refused = subprocess.run(
        buildah.command(*run_in(container, *config["Cmd"])), capture_output=True, text=True, timeout=60
    )
    assert refused.returncode != 0
    assert "EXPRESSNET_KEYS_FILE" in refused.stderr
    buildah("config", "--env", "EXPRESSNET_ALLOW_ANONYMOUS=true", container)
    buildah("config", "--env", f"EXPRESSNET_PORT={port}", container)
    buildah("config", "--env", f"EXPRESSNET_TRITON_URL={hardened_triton.url}", container)
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(buildah.command(*run_in(container, *config["Cmd"])), stderr=file)
    gateway = Gateway(f"http://127.0.0.1:{port}")
    try:
        eventually(lambda: process.poll() is not None or answers(gateway), 60)
        assert process.poll() is None, log.read_text()
        (face,) = gateway.post(astronaut_jpeg).json()["faces"]
        assert face["emotion"] == "happiness"
        buildah(*run_in(container, *config["Healthcheck"]["Test"][1:]))
        server = psutil.Process(process.pid).children(recursive=True)[-1]
        assert "expressnet" in " ".join(server.cmdline())
        assert set(server.uids()) == {USER}
        server.terminate()
        assert process.wait(60) == 0
    finally:
        gateway.client.close()
        # The child processes of buildah do not end with it.
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        process.wait()


def answers(gateway: Gateway) -> bool:
    try:
        return gateway.ready
    except httpx.TransportError:
        return False


CONTENTS = """
import importlib.util, json, os, pathlib, shutil
packages = ("onnxruntime", "av", "torch", "training", "pip", "setuptools", "wheel")
programs = ("pip", "gcc", "cc", "make")
writable = [str(path) for path in pathlib.Path("/opt").rglob("*") if os.access(path, os.W_OK)]
print(json.dumps({
    "packages": [name for name in packages if importlib.util.find_spec(name)],
    "programs": [name for name in programs if shutil.which(name)],
    "models": sorted(str(path) for path in pathlib.Path("/opt").glob("**/model_repository/**/*.*")),
    "writable": [path for path in writable if not os.path.islink(path)],
}))
"""


def test_the_image_has_no_engine_no_model_no_build_tool_and_no_writable_file(
    buildah: Buildah, container: str
) -> None:
    assert json.loads(buildah(*run_in(container, "python", "-c", CONTENTS))) == {
        "packages": [],
        "programs": [],
        "models": [f"/opt/model_repository/{name}/manifest.json" for name in MODELS],
        "writable": [],
    }
