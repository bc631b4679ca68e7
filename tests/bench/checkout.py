"""A checkout of this project with its own virtual environment, and its gateway as a process."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.bench.process import started
from tests.conftest import free_port

# No request of a benchmark is refused, and no request writes a line to the log.
SETTINGS = {
    "EXPRESSNET_MAX_IN_FLIGHT_REQUESTS": "256",
    "EXPRESSNET_MAX_IMAGES_PER_WORKER": "1000",
    "EXPRESSNET_LOG_LEVEL": "warning",
}
START_LIMIT_S = 90


@dataclass(frozen=True)
class Served:
    """A gateway that is ready."""

    url: str
    pid: int


@dataclass(frozen=True)
class Checkout:
    """A checkout with the settings of its gateway.

    programs: the folder of its `expressnet` and `python`. settings: environment variables of the gateway.
    """

    name: str
    folder: Path
    programs: Path
    settings: Mapping[str, str]

    def __str__(self) -> str:
        command = ["git", "-C", str(self.folder), "describe", "--always", "--dirty", "--exclude=*"]
        commit = subprocess.run(command, capture_output=True, text=True).stdout.strip()
        return ", ".join(
            [f"{self.folder} at {commit}", *(f"{name}={value}" for name, value in self.settings.items())]
        )

    @contextmanager
    def serving(self) -> Iterator[Served]:
        """`expressnet serve` in the checkout's own folder, until the block ends."""
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        environment = {**SETTINGS, **self.settings, "EXPRESSNET_PORT": str(port)}
        with (
            httpx.Client(base_url=url, trust_env=False) as client,
            started(
                [str(self.programs / "expressnet"), "serve"],
                lambda: _ready(client),
                folder=self.folder,
                environment=environment,
                limit_s=START_LIMIT_S,
            ) as process,
        ):
            yield Served(url, process.pid)


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False
