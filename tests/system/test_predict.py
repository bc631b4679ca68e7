"""`expressnet predict` as its own process: interrupted, killed, and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from tests.conftest import eventually
from tests.scenes import video

# A busy machine takes long to start three processes.
pytestmark = pytest.mark.timeout(300)

PHOTOS = 60
# The real command with slow engines, so that a test can stop it before its end.
SLOW = """
import sys
from service import assembly
from service.cli import main
from tests.fake_engine import Engines, FakeClassifier, FakeDetector
assembly.make_engines = lambda *_: Engines(FakeClassifier(), FakeDetector(delay_s=0.1))
main()
"""
# A detector that reports each call and then waits for 600 s.
ENDLESS = """
import sys
from service import assembly
from service.cli import main
from tests.fake_engine import Engines, FakeClassifier, FakeDetector

class Endless(FakeDetector):
    async def detect(self, *arguments):
        print("searching", file=sys.stderr, flush=True)
        return await super().detect(*arguments)

assembly.make_engines = lambda *_: Engines(FakeClassifier(), Endless(delay_s=600))
main()
"""
# The kernel may deliver a signal to any thread. Here another thread gets SIGINT, so the signal interrupts no
# system call of the first thread.
SIGNALS_TO_ANOTHER_THREAD = """
import signal, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
"""
REAL = "from service.cli import main; main()"


@contextmanager
def started(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The process, killed at the end of the block if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"EXPRESSNET_WORKER_THREADS": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def photos(tmp_path: Path, astronaut_jpeg: bytes) -> Path:
    folder = tmp_path / "photos"
    for number in range(PHOTOS):
        path = folder / f"{number % 7}" / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(astronaut_jpeg)
    return folder


def test_a_run_that_is_stopped_and_resumed_answers_each_photo_once(photos: Path) -> None:
    output = photos.parent / "rows.jsonl"

    def lines() -> int:
        return output.read_bytes().count(b"\n") if output.exists() else 0

    command = ("predict", photos, "--output", output)
    with started(SLOW, *command) as process:
        eventually(lambda: lines() >= 5 or process.poll() is not None, 90)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=90)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.splitlines()[-1] == "expressnet: interrupted; the same command resumes"
    assert output.read_bytes().endswith(b"\n")
    interrupted = lines()
    assert 5 <= interrupted < PHOTOS

    with started(SLOW, *command) as process:
        eventually(lambda: lines() >= interrupted + 5 or process.poll() is not None, 90)
        process.kill()
        process.communicate(timeout=90)
    killed = lines()
    assert interrupted + 5 <= killed < PHOTOS
    # The file now ends as after a power failure in the middle of a write.
    with output.open("r+b") as file:
        file.truncate(output.stat().st_size - 10)

    # The last run uses the real models.
    with started(REAL, *command) as process:
        _, stderr = process.communicate(timeout=90)
    assert process.returncode == 0, stderr
    assert f"{killed - 1} more from earlier runs" in stderr
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["path"] for row in rows] == [str(path) for path in sorted(photos.rglob("*.jpg"))]
    assert all(len(row["faces"]) == 1 for row in rows)


@pytest.mark.parametrize(
    "preparation", ["", SIGNALS_TO_ANOTHER_THREAD], ids=["to the first thread", "to another thread"]
)
@pytest.mark.parametrize("name", ["photos/0/000.jpg", "clip.mp4"])
def test_a_second_signal_ends_the_run_at_once(
    preparation: str, name: str, photos: Path, astronaut: NDArray[np.uint8]
) -> None:
    folder = photos.parent
    video(folder / "clip.mp4", dict.fromkeys(range(100), astronaut))
    with started(
        preparation + ENDLESS, "predict", folder / name, "--output", folder / "rows.jsonl"
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "searching\n"
        process.send_signal(signal.SIGINT)
        while (line := process.stderr.readline()) == "searching\n":  # several frames are in flight
            pass
        assert "stopping after the images in flight" in line
        # The event loop must be idle now: two signals at once count as one, and the second signal must wake
        # the loop.
        eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_SLEEPING)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=90)
    assert process.returncode == 130
    assert "Traceback" not in stderr


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_an_interrupted_video_keeps_its_rows(tmp_path: Path, form: str, astronaut: NDArray[np.uint8]) -> None:
    video(tmp_path / "clip.mp4", dict.fromkeys(range(100), astronaut))
    output = tmp_path / f"rows.{form}"

    def lines() -> int:
        return output.read_bytes().count(b"\n") if output.exists() else 0

    command = ("predict", tmp_path / "clip.mp4", "--fps", "25", "--output", output)
    with started(SLOW, *command) as process:
        eventually(lambda: lines() >= 5 or process.poll() is not None, 90)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=90)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert 5 <= lines() < 100
    assert output.with_suffix(".png").stat().st_size > 1000
    advice = "CSV does not resume; JSON lines do" if form == "csv" else "the same command resumes"
    assert stderr.splitlines()[-1] == f"expressnet: interrupted; {advice}"

    with started(SLOW, *command) as process:
        _, stderr = process.communicate(timeout=90)
    if form == "csv":
        assert process.returncode == 2
        return
    assert process.returncode == 0, stderr
    *frames, last = (json.loads(line) for line in output.read_text().splitlines())
    assert [row["time_s"] for row in frames] == [round(number / 25, 3) for number in range(100)]
    assert last["frames"] == 100


def test_a_run_ends_quietly_when_its_reader_closes_the_pipe(photos: Path) -> None:
    with started(SLOW, "predict", photos, "--format", "csv") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(90) == 128 + signal.SIGPIPE
