"""Timelines of videos of every kind, with scripted engines."""

from __future__ import annotations

import csv
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from service.core.backlog import Backlog
from service.core.manifest import ClassifierManifest, read_manifest
from service.core.query import Query
from service.inference.batcher import Batcher, BatcherEvents, BatcherLimits
from service.pipeline.pipeline import Pipeline
from service.predict.timeline import (
    COLOURS,
    GAP_PX,
    LEFT_PX,
    PANEL_PX,
    PLOT_PX,
    TOP_PX,
    VideoError,
    _decoded,
    read_frames,
    read_timeline,
    write_timeline,
)
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.fake_engine import FakeClassifier, FakeDetector
from tests.scenes import video

# The matrix of an iPhone video: the frames are stored lying, and a player turns them a quarter clockwise.
CLOCKWISE = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 512 << 16, 0, 1 << 30)


@pytest.fixture
def classifier() -> ClassifierManifest:
    manifest = read_manifest(Settings().model_repository, "expressnet_moe")
    assert isinstance(manifest, ClassifierManifest)
    return manifest


@pytest.fixture
async def pipeline(classifier: ClassifierManifest) -> AsyncIterator[Pipeline]:
    events = BatcherEvents(lambda _: None, lambda _: None)
    batcher = Batcher(FakeClassifier(), BatcherLimits(8, 64, 0.0), events)
    made = Pipeline(
        FakeDetector(),
        batcher,
        classifier,
        Metrics(),
        workers=2,
        decode_budget_s=5,
        pixel_limit=10**7,
        backlog=Backlog(2, 60),
    )
    await made.start()
    yield made
    await made.close()


def portrait() -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = skimage.data.astronaut()
    return pixels


def sound_file(file: Path) -> Path:
    with av.open(str(file), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), layout="mono")
        frame.rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return file


def times(file: Path, fps: float) -> list[float]:
    return [round(time_s, 3) for time_s, _ in read_frames(file, fps)]


class Unreadable:
    """A container whose first packet cannot be read."""

    def demux(self, stream: object) -> Iterator[object]:
        raise av.error.InvalidDataError(1, "invalid data")
        yield


def test_a_container_without_a_readable_packet_has_no_frames() -> None:
    assert list(_decoded(Unreadable(), None)) == []


def test_about_fps_frames_of_each_second_are_read(tmp_path: Path) -> None:
    file = video(tmp_path / "v.mp4", dict.fromkeys(range(50), portrait()[:64, :64]))
    assert times(file, 5) == [round(0.2 * number, 3) for number in range(10)]
    assert len(times(file, 10)) == 20
    assert len(times(file, 100)) == 50


def test_frames_at_uneven_times_keep_their_times(tmp_path: Path) -> None:
    numbers = [0, 1, 2, 3, 4, 5, 30, 31, 32, 33, 34, 35, 36]
    file = video(tmp_path / "v.mkv", dict.fromkeys(numbers, portrait()[:64, :64]))
    assert times(file, 5) == [0, 0.2, 1.2, 1.4]


def test_a_rotated_video_is_read_upright(tmp_path: Path) -> None:
    file = video(tmp_path / "v.mp4", {0: np.ascontiguousarray(np.rot90(portrait()))})
    data = file.read_bytes()
    matrix = data.index(b"tkhd") + 44
    file.write_bytes(data[:matrix] + CLOCKWISE + data[matrix + 36 :])
    ((_, upright),) = read_frames(file, 5)
    difference = np.abs(upright.astype(int) - portrait())
    assert difference.mean() < 10


def test_a_file_with_sound_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no video"):
        times(sound_file(tmp_path / "song.wav"), 5)


@pytest.mark.parametrize("data", [b"", b"no video at all", b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/x.ts\n"])
def test_a_file_that_is_no_video_is_refused_in_one_sentence(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "v.mp4"
    file.write_bytes(data)
    with pytest.raises(VideoError, match=r"v\.mp4 ") as caught:
        times(file, 5)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no such file"):
        times(tmp_path / "v.mp4", 5)


def test_a_truncated_video_is_read_up_to_its_end(tmp_path: Path) -> None:
    file = video(tmp_path / "v.mkv", dict.fromkeys(range(50), portrait()[:256, :256]))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    assert 2 <= len(times(file, 5)) < 10


async def test_a_face_becomes_rows_and_a_picture(
    tmp_path: Path, pipeline: Pipeline, classifier: ClassifierManifest
) -> None:
    empty = np.zeros((512, 512, 3), np.uint8)
    shown = {number: empty if 10 <= number < 15 else portrait() for number in range(25)}
    file = video(tmp_path / "v.mp4", shown)
    timeline = await write_timeline(pipeline, classifier, file, tmp_path / "t.csv", tmp_path / "t.png")
    assert [len(moment.followed) for moment in timeline.moments] == [1, 1, 0, 1, 1]
    with (tmp_path / "t.csv").open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert [row["time_s"] for row in rows] == ["0.0", "0.2", "0.6", "0.8"]
    assert {row["track"] for row in rows} == {"1"}
    assert {row["emotion"] for row in rows} == {row["frame_emotion"] for row in rows} == {"happiness"}
    for row in rows:
        probabilities = [float(row[label]) for label in classifier.labels]
        assert sum(probabilities) == pytest.approx(1, abs=1e-4)
        assert float(row["confidence"]) == max(probabilities)
    assert 178 < float(rows[0]["x"]) < 184
    with Image.open(tmp_path / "t.png") as picture:
        assert picture.width == 1000


async def test_the_picture_is_white_while_there_is_no_face(
    tmp_path: Path, pipeline: Pipeline, classifier: ClassifierManifest
) -> None:
    empty = np.zeros((512, 512, 3), np.uint8)
    file = video(tmp_path / "v.mp4", {n: empty if 10 <= n < 40 else portrait() for n in range(50)})
    await write_timeline(pipeline, classifier, file, tmp_path / "t.csv", tmp_path / "t.png")
    with Image.open(tmp_path / "t.png") as picture:
        middle = TOP_PX + (PANEL_PX - GAP_PX) // 2
        shown = [picture.getpixel((LEFT_PX + round(PLOT_PX * s / 1.8), middle)) for s in (0.1, 1.0, 1.7)]
    happiness = tuple(COLOURS[classifier.labels.index("happiness")])
    assert shown == [happiness, (255, 255, 255), happiness]


async def test_a_video_without_faces_has_a_timeline_without_rows(
    tmp_path: Path, pipeline: Pipeline, classifier: ClassifierManifest
) -> None:
    file = video(tmp_path / "v.mp4", dict.fromkeys(range(10), np.zeros((64, 64, 3), np.uint8)))
    await write_timeline(pipeline, classifier, file, tmp_path / "t.csv", tmp_path / "t.png")
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 1
    assert (tmp_path / "t.png").stat().st_size > 1000


async def test_the_error_of_a_frame_is_raised(
    tmp_path: Path, pipeline: Pipeline, classifier: ClassifierManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(pipeline, "run", fail)
    file = video(tmp_path / "v.mp4", dict.fromkeys(range(50), portrait()[:64, :64]))
    with pytest.raises(RuntimeError, match="broken"):
        await read_timeline(pipeline, classifier, file, Query())
