"""ONNX Runtime's telemetry, which its wheels turn on by default: a device id, a cache on disk, uploads."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio
from service.assembly import assemble
from service.settings import Settings

async def main():
    async with assemble(Settings()):
        pass

asyncio.run(main())
"""


def test_the_engine_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    # ONNX Runtime turns telemetry off on a machine that it takes for a test machine. So this environment has
    # only these variables.
    environment = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=True)
    assert list(tmp_path.rglob("*")) == []
