"""What the tests take out of the compose files, so that they start what is shipped."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
COMPOSE_FILES = (ROOT / "docker-compose.yml", ROOT / "deploy" / "compose.gpu.yaml")
COMPOSE_KEYS = ROOT / "deploy" / "compose.keys.yaml"


def service(name: str) -> dict[str, Any]:
    """A service as the last file that names it writes it."""
    found: dict[str, Any] = {}
    for file in COMPOSE_FILES:
        found |= yaml.safe_load(file.read_text(encoding="utf-8"))["services"].get(name, {})
    return found


def triton_arguments(folder: Path) -> list[str]:
    """With what the overlay's command calls `tritonserver`, found by calling it."""
    stub = folder / "tritonserver"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    # Compose reads two dollars as one.
    command = [part.replace("$$", "$") for part in service("triton")["command"]]
    run = subprocess.run(
        command,
        env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
        check=True,
        capture_output=True,
        text=True,
    )
    return run.stdout.splitlines()
