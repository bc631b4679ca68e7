"""An upload that is read while it arrives, and one that is given up."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from service.recordings.upload import Upload
from service.vision.video import VideoError, read_frames
from tests.recordings import clip

LIMIT_S = 20


@pytest.fixture
def reader() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def times(upload: Upload) -> list[float]:
    return [time_s for time_s, _ in read_frames(upload.open(), 5, 10**6)]


@pytest.mark.parametrize("memory_bytes", [10**9, 100])
def test_a_thread_reads_what_arrives(reader: ThreadPoolExecutor, tmp_path: Path, memory_bytes: int) -> None:
    data, upload = clip(tmp_path, kind="avi"), Upload(memory_bytes)
    found = reader.submit(times, upload)
    for start in range(0, len(data), 5000):
        upload.write(data[start : start + 5000])
    upload.complete()
    assert len(found.result(LIMIT_S)) == 5
    upload.close()


@pytest.mark.parametrize("share", [0, 0.5])
def test_a_thread_ends_when_the_upload_is_given_up(
    reader: ThreadPoolExecutor, tmp_path: Path, share: float, capfd: pytest.CaptureFixture[str]
) -> None:
    """It says nothing: PyAV prints exceptions of a file to standard error."""
    data, upload = clip(tmp_path, kind="avi"), Upload(10**9)
    found = reader.submit(times, upload)
    upload.write(data[: round(share * len(data))])
    upload.close()
    with suppress(VideoError):
        assert len(found.result(LIMIT_S)) < 5
    assert capfd.readouterr().err == ""
