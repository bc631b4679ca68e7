"""Programs that a benchmark starts: each runs until its block ends, or raises an error with the reason."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from tests.bench.process import NotRunning, started
from tests.bench.versus import DETECTOR_SCRIPT, MIN_FACE_PX
from tests.processes import stop


def python_program(code: str, folder: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return started(
        [sys.executable, "-c", code],
        (folder / "ready").exists,
        folder=folder,
        environment={"REASON": "the reason"},
        limit_s=30,
    )


def test_a_program_runs_in_its_folder_until_the_block_ends(tmp_path: Path) -> None:
    code = "import pathlib, signal; pathlib.Path('ready').touch(); signal.pause()"
    with python_program(code, tmp_path) as process:
        assert process.poll() is None
    assert process.returncode == -signal.SIGTERM


def test_a_program_that_ends_before_it_is_ready_reports_its_last_line(tmp_path: Path) -> None:
    code = "import os, sys; print('first'); sys.exit(os.environ['REASON'])"
    with (
        pytest.raises(NotRunning, match=r"^does not run: the reason$"),
        python_program(code, tmp_path),
    ):
        raise AssertionError("the program never becomes ready")


def test_a_program_that_ignores_sigterm_is_killed_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ignores_sigterm = "import pathlib, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    with python_program(
        f"{ignores_sigterm}; pathlib.Path('ready').touch(); signal.pause()", tmp_path
    ) as process:
        assert stop(process, limit_s=0.1) == -signal.SIGKILL
    assert "did not end within 0.1 s of SIGTERM and is killed" in capsys.readouterr().err


def test_a_detector_reports_its_faces_and_then_the_time_of_each_round(tmp_path: Path) -> None:
    portrait = Image.fromarray(skimage.data.astronaut()).resize((128, 128))
    np.save(tmp_path / "image.npy", np.array(portrait))
    done = subprocess.run(
        [sys.executable, "-P", DETECTOR_SCRIPT, tmp_path / "image.npy", str(MIN_FACE_PX)],
        input="\n\n\n",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    faces, *times_ms = done.stdout.split()
    assert faces == "1"
    assert len(times_ms) == 2
    assert all(float(ms) > 0 for ms in times_ms)
