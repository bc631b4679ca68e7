"""The image without torch: really built from the Dockerfile and really started, without Docker."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.conftest import Gateway, eventually, free_port
from tests.deploy.compose import ROOT
from tests.deploy.programs import need
from tests.triton.server import TritonServer

BASE = "localhost/python:3.11-slim-bookworm"
IMAGE = "localhost/expressnet-gateway"
# Python, and what runs its wheels and the build's commands.
PACKAGES = "python3-venv,ca-certificates,coreutils,dash,findutils,libstdc++6"
USER = 10001

pytestmark = pytest.mark.timeout(900)


class Buildah:
    """buildah with a store of its own."""

    def __init__(self, folder: Path) -> None:
        self._store = ("--root", str(folder / "store"), "--runroot", str(folder / "run"))

    def command(self, *arguments: object) -> list[str]:
        return ["buildah", *self._store, *(str(argument) for argument in arguments)]

    def __call__(self, *arguments: object) -> str:
        """What it prints; fails where it fails."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout.strip()


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    need("buildah", "mmdebstrap")
    if os.getuid() != 0:
        pytest.skip("buildah without containers needs root")
    folder = tmp_path_factory.mktemp("buildah")
    program = Buildah(folder)
    yield program
    program("rm", "--all")
    program("rmi", "--all", "--force")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def image(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> str:
    system = tmp_path_factory.mktemp("base") / "system"
    made = ["mmdebstrap", "--quiet", "--variant=extract", f"--include={PACKAGES}", "bookworm", str(system)]
    subprocess.run(made, check=True)
    (system / "usr" / "bin" / "python").symlink_to("python3.11")
    scratch = buildah("from", "scratch")
    buildah("add", scratch, system, "/")
    buildah("config", "--env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", scratch)
    buildah("commit", "--rm", scratch, BASE)
    shutil.rmtree(system)
    # pip finds what it finds on this machine: its certificates and, if there is one, its index.
    given = [path for path in ("/etc/ssl/certs", "/etc/pip.conf") if Path(path).exists()]
    buildah(
        "bud",
        *("--isolation", "chroot", "--network", "host", "--format", "docker", "--pull-never"),
        *(part for path in given for part in ("--volume", f"{path}:{path}:ro")),
        *("--build-arg", f"BASE_IMAGE={BASE}", "--target", "gateway", "--tag", IMAGE, ROOT),
    )
    return IMAGE


@pytest.fixture(scope="module")
def container(buildah: Buildah, image: str) -> str:
    return buildah("from", "--pull-never", image)


def inside(container: str, *command: str) -> tuple[str, ...]:
    return ("run", "--isolation", "chroot", "--network", "host", container, "--", *command)


def test_the_started_image_answers_a_photo_and_ends_when_told(
    buildah: Buildah, container: str, hardened_triton: TritonServer, astronaut_jpeg: bytes, tmp_path: Path
) -> None:
    config = json.loads(buildah("inspect", container))["Docker"]["config"]
    port = free_port()
    refused = subprocess.run(
        buildah.command(*inside(container, *config["Cmd"])), capture_output=True, text=True, timeout=60
    )
    assert refused.returncode != 0
    assert "keys_file" in refused.stderr
    buildah("config", "--env", "EXPRESSNET_ALLOW_ANONYMOUS=true", container)
    buildah("config", "--env", f"EXPRESSNET_PORT={port}", container)
    buildah("config", "--env", f"EXPRESSNET_TRITON_URL={hardened_triton.url}", container)
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(buildah.command(*inside(container, *config["Cmd"])), stderr=file)
    gateway = Gateway(f"http://127.0.0.1:{port}")
    try:
        eventually(lambda: process.poll() is not None or answers(gateway), 60)
        assert process.poll() is None, log.read_text()
        (face,) = gateway.post(astronaut_jpeg).json()["faces"]
        assert face["emotion"] == "happiness"
        buildah(*inside(container, *config["Healthcheck"]["Test"][1:]))
        served = psutil.Process(process.pid).children(recursive=True)[-1]
        assert "expressnet" in " ".join(served.cmdline())
        assert set(served.uids()) == {USER}
        served.terminate()
        assert process.wait(60) == 0
    finally:
        gateway.client.close()
        # What buildah started outlives it.
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
packages = ("torch", "pip", "setuptools", "wheel")
programs = ("pip", "gcc", "cc", "make")
writable = [str(path) for path in pathlib.Path("/opt").rglob("*") if os.access(path, os.W_OK)]
print(json.dumps({
    "packages": [name for name in packages if importlib.util.find_spec(name)],
    "programs": [name for name in programs if shutil.which(name)],
    "models": sorted(str(path) for path in pathlib.Path("/opt/model_repository").rglob("*.*")),
    "writable": [path for path in writable if not os.path.islink(path)],
}))
"""


def test_the_image_holds_no_torch_no_model_no_build_tool_and_nothing_to_write_to(
    buildah: Buildah, container: str
) -> None:
    assert json.loads(buildah(*inside(container, "python", "-c", CONTENTS))) == {
        "packages": [],
        "programs": [],
        "models": [f"/opt/model_repository/{name}/manifest.json" for name in ("expressnet_moe", "yunet")],
        "writable": [],
    }
