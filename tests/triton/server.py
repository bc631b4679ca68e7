"""A real tritonserver for the tests: the binary of a wheel, with the models of the project."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

from service.settings import Settings
from tests.conftest import eventually, free_port
from tests.processes import stop

TORCHSCRIPT, ONNX = (Path(__file__).with_name(f"{name}_model.py") for name in ("torchscript", "onnx"))
PLATFORM, BACKEND = 'platform: "pytorch_libtorch"', 'backend: "python"'
# On a busy machine some servers never end after SIGTERM, although `--exit-timeout-secs` is much shorter.
STOP_LIMIT_S = 30
# The models of a gateway with default settings.
DEFAULT_MODELS = (Settings().classifier, Settings().detector)


class TritonServer:
    """One server on fixed ports: after `kill`, `start` starts it again at the same addresses."""

    def __init__(self, repository: Path, folder: Path, options: Sequence[str]) -> None:
        self.repository = repository
        self._options = options
        self._folder = folder
        self.http_port, self.grpc_port, self.metrics_port = free_port(), free_port(), free_port()
        self._region_prefix = f"expressnet_test_{self.grpc_port}_"  # names of shared memory begin with it
        self._process: subprocess.Popen[bytes] | None = None
        self._stubs: list[psutil.Process] = []  # children of a server that `stop` has signalled

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def start(self) -> None:
        wheel = Path(sysconfig.get_paths()["purelib"])
        server = wheel / "pytriton" / "tritonserver"
        backends = self._folder / "backends"
        if not backends.is_dir():
            shutil.copytree(server / "backends", backends)
            stub = f"{sys.version_info.major}.{sys.version_info.minor}/triton_python_backend_stub"
            shutil.copy(server / "python_backend_stubs" / stub, backends / "python")
            (backends / "python" / "triton_python_backend_stub").chmod(0o755)
        binary = self._folder / "tritonserver"
        if not binary.exists():
            shutil.copy(server / "bin" / "tritonserver", binary)
            binary.chmod(0o755)
        environment = os.environ | {
            "LD_LIBRARY_PATH": str(wheel / "nvidia_pytriton.libs"),
            "PYTHONPATH": str(wheel),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self._log = (self._folder / "log").open("ab")
        self._process = subprocess.Popen(
            [
                binary,
                f"--model-repository={self.repository}",
                f"--backend-directory={backends}",
                f"--backend-config=python,shm-region-prefix-name={self._region_prefix}",
                "--model-control-mode=none",
                "--allow-gpu-metrics=false",
                "--exit-timeout-secs=5",
                *(f"--{kind}-address=127.0.0.1" for kind in ("http", "grpc", "metrics")),
                f"--http-port={self.http_port}",
                f"--grpc-port={self.grpc_port}",
                f"--metrics-port={self.metrics_port}",
                *self._options,
            ],
            env=environment,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        eventually(lambda: self.ready or self._process is None or self._process.poll() is not None, 120)
        assert self.ready, (self._folder / "log").read_text()[-4000:]
        # The server opens this port last, after it has reported that it is ready.
        eventually(lambda: _answers(f"http://127.0.0.1:{self.metrics_port}/metrics"))

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        total = 0.0
        text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", verify=False).text
        for line in text.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.startswith(f"{name}{{") and all(f'{k}="{v}"' in sample for k, v in labels.items()):
                total += float(value)
        return total

    @property
    def ready(self) -> bool:
        return _answers(f"http://127.0.0.1:{self.http_port}/v2/health/ready")

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Send SIGTERM and return at once. A server that does not end in `STOP_LIMIT_S` is killed."""
        assert self._process is not None
        self._stubs = self._children()
        threading.Thread(target=stop, args=(self._process, STOP_LIMIT_S), daemon=True).start()

    def signal(self, sig: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(sig)

    def kill(self) -> None:
        """Kill the server, as the kernel does when memory is short. Then kill its orphaned stubs."""
        if self._process is None:
            return
        children = self._stubs + self._children()
        self._process.kill()
        self._process.wait()
        self._process = None
        self._log.close()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        # Some systems take seconds to reap an orphan that has ended.
        eventually(lambda: not any(map(_runs, children)))
        self._stubs = []
        for region in Path("/dev/shm").glob(f"{self._region_prefix}*"):
            region.unlink(missing_ok=True)

    def _children(self) -> list[psutil.Process]:
        assert self._process is not None
        with contextlib.suppress(psutil.NoSuchProcess):  # the server may have ended already
            return psutil.Process(self._process.pid).children(recursive=True)
        return []


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1, verify=False).status_code == 200
    except httpx.TransportError:
        return False


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def triton(
    models: Path, *options: str, names: Iterable[str] = DEFAULT_MODELS, torchscript: bool = False
) -> Iterator[TritonServer]:
    """Run a ready server with a copy of the models: same names, shapes, policies and files, run in Python.

    names: the models to load. Name only what the test needs, since each model runs in its own process.
    torchscript: run the TorchScript files, as a server in production does. Each model then loads torch, which
    takes seconds. The default is the ONNX files, which give the same answers.
    """
    folder = Path(tempfile.mkdtemp(prefix="triton-"))
    repository = folder / "models"
    for name in names:
        shutil.copytree(models / name, repository / name)
    for config in repository.glob("*/config.pbtxt"):
        text = config.read_text()
        assert PLATFORM in text
        config.write_text(text.replace(PLATFORM, BACKEND))
        for version in config.parent.glob("[1-9]*"):
            shutil.copy(TORCHSCRIPT if torchscript else ONNX, version / "model.py")
    server = TritonServer(repository, folder, options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def add_parameter(models: Path, name: str, key: str, value: object) -> None:
    """Add a parameter to the configuration of one model, for example `delay_s`."""
    with (models / name / "config.pbtxt").open("a") as config:
        config.write(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n')
