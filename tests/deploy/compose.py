"""Reads the compose files, so that the tests start services with the shipped options."""

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
    """The entry of a service. A key of a later file replaces the same key of an earlier file."""
    found: dict[str, Any] = {}
    for file in COMPOSE_FILES:
        found |= yaml.safe_load(file.read_text(encoding="utf-8"))["services"].get(name, {})
    return found


def triton_arguments(folder: Path) -> list[str]:
    """The arguments that the command of the GPU overlay passes to `tritonserver`.

    The command runs with a stub in place of `tritonserver`. The stub prints its arguments.
    """
    stub = folder / "tritonserver"
    stub.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stub.chmod(0o755)
    # In a compose file, `$$` means one dollar sign.
    command = [part.replace("$$", "$") for part in service("triton")["command"]]
    run = subprocess.run(
        command,
        env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
        check=True,
        capture_output=True,
        text=True,
    )
    return run.stdout.splitlines()
