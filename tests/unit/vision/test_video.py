"""Videos of every kind to upright frames with their times."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import skimage.data
from numpy.typing import NDArray
from PIL import Image

from service.vision.video import VideoError, _decoded, _opened, is_video, read_frames
from tests.scenes import video

LIMIT = 10**6


def matrix(a: int, b: int, c: int, d: int) -> bytes:
    """A display matrix of MP4, without a shift."""
    return struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)


def portrait() -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = skimage.data.astronaut()
    return pixels


def written(
    file: Path, codec: str, kind: str, *, size: tuple[int, int] = (128, 128), rate: int = 25, frames: int = 25
) -> Path:
    """A video of equal frames by an encoder and a container of FFmpeg. size: width and height in px."""
    with av.open(str(file), "w", format=kind) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            pixels = np.asarray(Image.fromarray(portrait()).resize(size))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


def song(file: Path) -> Path:
    with av.open(str(file), "w") as container:
        sound = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), layout="mono")
        frame.rate = 8000
        container.mux(sound.encode(frame))
        container.mux(sound.encode())
    return file


def read(file: Path, fps: float = 5, **options: float) -> list[tuple[float, NDArray[np.uint8]]]:
    with file.open("rb") as opened:
        return list(read_frames(opened, fps, LIMIT, **options))


def times(file: Path, fps: float = 5, **options: float) -> list[float]:
    return [round(time_s, 3) for time_s, _ in read(file, fps, **options)]


class Unreadable:
    """A container whose first packet cannot be read."""

    def demux(self, stream: object) -> Iterator[object]:
        raise av.error.InvalidDataError(1, "invalid data")
        yield


def test_a_container_without_a_packet_that_can_be_read_has_no_frames() -> None:
    assert list(_decoded(Unreadable(), None, LIMIT)) == []


def test_about_so_many_frames_of_each_second_are_taken(tmp_path: Path) -> None:
    file = video(tmp_path / "v.mp4", dict.fromkeys(range(50), portrait()[:64, :64]))
    assert times(file, 5) == [round(0.2 * number, 3) for number in range(10)]
    assert len(times(file, 10)) == 20
    assert len(times(file, 100)) == 50
    assert times(file, 5, after_s=1.4) == [1.6, 1.8]


def test_frames_keep_their_own_times_however_uneven(tmp_path: Path) -> None:
    numbers = [0, 1, 2, 3, 4, 5, 30, 31, 32, 33, 34, 35, 36]
    file = video(tmp_path / "v.mkv", dict.fromkeys(numbers, portrait()[:64, :64]))
    assert times(file, 5) == [0, 0.2, 1.2, 1.4]


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [
        ("v.mpg", "mpeg2video", "mpeg"),
        ("v.vob", "mpeg2video", "vob"),
        ("v.ts", "mpeg2video", "mpegts"),
        ("v.mts", "mpeg2video", "mpegts"),
        ("v.3gp", "mpeg4", "3gp"),
        ("v.flv", "flv", "flv"),
        ("v.wmv", "wmv2", "asf"),
        ("v.ogv", "libvpx", "ogv"),
        ("v.webm", "libvpx", "webm"),
        ("v.avi", "mpeg4", "avi"),
        ("v.avi", "libx264", "avi"),  # which does not say when each frame is shown
        ("v.mpg", "mpeg1video", "mpeg"),
    ],
)
def test_every_container_has_the_same_times(tmp_path: Path, name: str, codec: str, kind: str) -> None:
    assert times(written(tmp_path / name, codec, kind)) == [0, 0.2, 0.4, 0.6, 0.8]


@pytest.mark.parametrize(("codec", "kind"), [("libx264", "h264"), ("mpeg4", "m4v")])
def test_frames_without_times_follow_the_frame_rate(tmp_path: Path, codec: str, kind: str) -> None:
    """A stream without a container. The rate is not FFmpeg's default of 25."""
    file = written(tmp_path / "v.mp4", codec, kind, rate=10)
    assert times(file) == [round(0.2 * number, 3) for number in range(13)]


def test_joined_recordings_have_one_clock(tmp_path: Path) -> None:
    """The clock of the second part begins anew."""
    part = written(tmp_path / "part.ts", "mpeg2video", "mpegts").read_bytes()
    file = tmp_path / "v.ts"
    file.write_bytes(part + part)
    found = times(file)
    assert len(found) == 10
    assert found == sorted(found)
    assert 1.7 < found[-1] < 2.1


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (matrix(0, 1, -1, 0), lambda pixels: np.rot90(pixels, -1)),
        (matrix(0, -1, 1, 0), lambda pixels: np.rot90(pixels, 1)),
        (matrix(-1, 0, 0, -1), lambda pixels: np.rot90(pixels, 2)),
        (matrix(-1, 0, 0, 1), np.fliplr),
        (matrix(1, 0, 0, -1), np.flipud),
        (matrix(0, 1, 1, 0), lambda pixels: pixels.swapaxes(0, 1)),
        (matrix(0, -1, -1, 0), lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1)),
    ],
    ids=["clockwise", "counterclockwise", "half", "mirrored", "upside down", "transposed", "transverse"],
)
def test_a_video_is_turned_and_mirrored_as_its_matrix_says(
    tmp_path: Path, stored: bytes, shown: object
) -> None:
    assert callable(shown)
    file = video(tmp_path / "v.mp4", {0: portrait()[:256, :192]})
    data = file.read_bytes()
    at = data.index(b"tkhd") + 44
    file.write_bytes(data[:at] + stored + data[at + 36 :])
    ((_, upright),) = read(file)
    expected = shown(portrait()[:256, :192]).astype(int)
    assert upright.shape == expected.shape
    assert np.abs(upright - expected).mean() < 10


def test_wide_pixels_become_square(tmp_path: Path) -> None:
    """DV of 4:3 is stored with 720 x 576 pixels that are wider than high."""
    (_, pixels), *_ = read(written(tmp_path / "v.dv", "dvvideo", "dv", size=(720, 576)))
    assert pixels.shape == (576, 768, 3)


def woven(file: Path, codec: str, kind: str, options: dict[str, str], *, frames: int = 6) -> Path:
    """A portrait that moves to the right by 8 px from each field to the next."""
    with av.open(str(file), "w", format=kind) as container:
        stream: Any = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 720, 576, "yuv420p", 8_000_000
        for number in range(frames):
            pixels = np.full((576, 720, 3), 90, np.uint8)
            for field in (0, 1):
                left = 8 * (2 * number + field)
                pixels[field::2, left : left + 512] = np.vstack([portrait(), portrait()[:64]])[field::2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file


def combing(pixels: NDArray[np.uint8]) -> float:
    """How much lines differ from their neighbours."""
    lines = pixels[:512].astype(int)
    return float(np.abs(lines[1:-1] - (lines[:-2] + lines[2:]) / 2).mean())


INTERLACED = [
    ("mpeg2video", "mpeg", {"flags": "+ildct+ilme"}),
    ("libx264", "mpegts", {"x264-params": "tff=1"}),
    ("libx264", "h264", {"x264-params": "tff=1"}),
    ("dvvideo", "dv", {}),
]


@pytest.mark.parametrize(("codec", "kind", "options"), INTERLACED)
def test_interlaced_frames_show_one_time(
    tmp_path: Path, codec: str, kind: str, options: dict[str, str]
) -> None:
    found = read(woven(tmp_path / "v", codec, kind, options), fps=25)
    assert [round(time_s, 3) for time_s, _ in found] == [0, 0.04, 0.08, 0.12, 0.16, 0.2]
    smooth = combing(portrait())
    assert all(combing(pixels) < smooth + 1 for _, pixels in found)
    for frames in (1, 2):
        assert len(read(woven(tmp_path / "v", codec, kind, options, frames=frames), fps=25)) == frames


def test_frames_that_are_not_interlaced_stay_as_they_are(tmp_path: Path) -> None:
    """The same lines without the mark: a picture may have such lines."""
    found = read(woven(tmp_path / "v.mp4", "mpeg4", "mp4", {}), fps=25)
    assert len(found) == 6
    assert all(combing(pixels) > combing(portrait()) + 3 for _, pixels in found)


def test_interlaced_frames_may_change_their_size(tmp_path: Path) -> None:
    parts = [
        woven(tmp_path / "a", "mpeg2video", "mpeg2video", INTERLACED[0][2], frames=3),
        written(tmp_path / "b", "mpeg2video", "mpeg2video", frames=3),
        written(tmp_path / "c", "mpeg2video", "mpeg2video", size=(16, 8), frames=2),
    ]
    file = tmp_path / "v"
    file.write_bytes(b"".join(part.read_bytes() for part in (*parts, parts[0])))
    found = read(file, fps=25)
    assert [time_s for time_s, _ in found] == sorted(time_s for time_s, _ in found)
    heights = [pixels.shape[0] for _, pixels in found]
    assert [height for height, _ in groupby(heights)] == [576, 128, 8, 576]


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="no video"):
        times(song(tmp_path / "song.wav"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no video at all",
        b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/x.ts\n",
        b"ffconcat version 1.0\nfile other.mp4\n",
    ],
)
def test_what_is_no_video_is_refused_in_one_sentence(tmp_path: Path, data: bytes) -> None:
    video(tmp_path / "other.mp4", {0: portrait()[:64, :64]})
    file = tmp_path / "v.mp4"
    file.write_bytes(data)
    with pytest.raises(VideoError) as caught:
        times(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "AVIF", "BMP"])
def test_a_picture_is_no_video(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "picture"
    Image.fromarray(portrait()).save(file, kind)
    with file.open("rb") as opened:
        assert not is_video(opened)
    with pytest.raises(VideoError):
        times(file)


def test_a_video_without_an_ending_is_a_video(tmp_path: Path) -> None:
    file = written(tmp_path / "v", "mpeg2video", "mpeg")
    with file.open("rb") as opened:
        assert is_video(opened)


CODECS = [
    ("mpeg2video", "mpeg"),
    ("mpeg1video", "vob"),
    ("mpeg2video", "mpegts"),
    ("libx264", "mpegts"),
    ("libx264", "h264"),
    ("mpeg4", "m4v"),
    ("mpeg4", "mp4"),
    ("mpeg4", "avi"),
    ("flv", "flv"),
    ("wmv2", "asf"),
    ("libvpx-vp9", "webm"),
]


@pytest.mark.parametrize(("codec", "kind"), CODECS)
def test_frames_of_too_many_pixels_are_not_decoded(tmp_path: Path, codec: str, kind: str) -> None:
    file = written(tmp_path / "v", codec, kind, size=(1024, 1024), frames=2)
    with pytest.raises(VideoError, match=r"its frames have .* pixels; at most 1000000 pixels"):
        times(file)


@pytest.mark.parametrize(("codec", "kind"), CODECS)
def test_no_frame_is_decoded_to_learn_what_a_file_is(tmp_path: Path, codec: str, kind: str) -> None:
    file = written(tmp_path / "v", codec, kind, frames=2)
    with file.open("rb") as opened, _opened(opened) as container:
        assert container.streams.video[0].pix_fmt is None  # only a decoder knows it


@pytest.mark.parametrize(
    ("codec", "kind"), [each for each in CODECS if each[1] not in ("mp4", "flv", "asf", "avi")]
)
def test_a_video_whose_frames_become_too_large_is_refused_there(
    tmp_path: Path, codec: str, kind: str
) -> None:
    file, large = (
        written(tmp_path / name, codec, kind, size=(side, side), frames=4)
        for name, side in (("v", 128), ("large", 1024))
    )
    file.write_bytes(file.read_bytes() + large.read_bytes())
    found: list[tuple[float, NDArray[np.uint8]]] = []
    with file.open("rb") as opened, pytest.raises(VideoError, match=r"its frames have .* pixels; at most"):
        found += read_frames(opened, 25, LIMIT)
    assert {pixels.shape for _, pixels in found} <= {(128, 128, 3)}


@pytest.mark.parametrize("kind", ["avi", "mp4", "matroska", "flv"])
def test_texts_of_a_video_may_have_any_encoding(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "v"
    with av.open(str(file), "w", format=kind) as container:
        container.metadata["title"] = "Name"
        stream: Any = container.add_stream("flv" if kind == "flv" else "mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(portrait()[:64, :64], format="rgb24")))
        container.mux(stream.encode())
    data = file.read_bytes()
    assert b"Name" in data
    file.write_bytes(data.replace(b"Name", "Nämé".encode("latin-1")))
    assert times(file) == [0]


def test_a_damaged_video_is_followed_where_it_is_whole(tmp_path: Path) -> None:
    file = video(tmp_path / "v.mkv", dict.fromkeys(range(50), portrait()[:256, :256]))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    assert 2 <= len(times(file)) < 10
