"""Decode a video to upright RGB frames. Only this module parses video files.

The file is read through an open file object: FFmpeg opens no other file and no network address. No frame is
decoded until the size in the header is checked. The decoder refuses larger frames, which may follow.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from itertools import groupby
from typing import Any, BinaryIO

import numpy as np

from service.core.arrays import Image
from service.core.errors import reason_of

# A jump by more than this is not a pause but a new clock, as where parts of a recording were joined.
MAX_BACK_S, MAX_GAP_S = 0.2, 10.0
DEFAULT_RATE = 25
MICROSECONDS = 1_000_000
# Pixels are rarely more than twice as wide as high. A wilder value is an error in the file.
MAX_PIXEL_ASPECT = 4
# The filter needs a few lines and columns.
MIN_INTERLACED_PX = 16
# FFmpeg shows texts and single pictures as videos too.
NOT_VIDEOS = ("tty", "gif", "apng", "image2", "bin", "xbin", "adf", "idf")
PICTURE_BRANDS = ("avif", "avis", "heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1")


class VideoError(Exception):
    """The data cannot be read as a video. The message is the reason, without the name of the file."""


def read_frames(
    file: BinaryIO, fps: float, pixel_limit: int, after_s: float = -1.0
) -> Generator[tuple[float, Image], None, None]:
    """Seconds since the first frame and upright pixels, uint8 [H,W,3], of about `fps` frames a second.

    Frames are chosen by their own times, which may be uneven. Frames without times follow the frame rate of
    the file. Damaged parts are skipped. Frames up to `after_s` are not returned. Raises `VideoError`.
    """
    with _opened(file) as container:
        stream = _video_of(container)
        _check_size(stream, pixel_limit)
        stream.thread_type = "AUTO"
        stream.codec_context.options = {"max_pixels": str(pixel_limit)}
        clock = _Clock(container, stream)
        due_s = None
        for frame in _deinterlaced(_in_order(_decoded(container, stream, pixel_limit))):
            time_s = clock.time_of(frame)
            # Half a millisecond allows for rounded times.
            if due_s is not None and time_s < due_s - 5e-4:
                continue
            due_s = time_s + 1 / fps if due_s is None else due_s + 1 / fps
            if due_s <= time_s:  # after a gap
                due_s = time_s + 1 / fps
            if time_s > after_s:
                aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
                yield time_s, _upright(frame, aspect, pixel_limit)
        if due_s is None:
            raise VideoError("no frame can be decoded")


def check_video(file: BinaryIO, pixel_limit: int) -> float | None:
    """How long the data says that its video is, in seconds. Raises `VideoError` if it cannot be read."""
    with _opened(file) as container:
        stream = _video_of(container)
        _check_size(stream, pixel_limit)
        # For an AVI that is cut short FFmpeg corrects the duration, but not the number of frames.
        if container.format.name == "avi" and stream.frames and stream.average_rate:
            return float(stream.frames / stream.average_rate)
        if stream.duration is not None and stream.time_base is not None:
            return float(stream.duration * stream.time_base)
        return None if container.duration is None else container.duration / MICROSECONDS


def is_video(file: BinaryIO) -> bool:
    """Whether the data is a video, by its content."""
    try:
        with _opened(file) as container:
            _video_of(container)
    except VideoError:
        return False
    return True


def _opened(file: BinaryIO) -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise VideoError("videos need PyAV: pip install av") from error
    try:
        # No protocol: without this, a playlist could make the decoder open other files and addresses.
        # No codec: without this, FFmpeg decodes frames of any size to learn what a file is.
        options = {"protocol_whitelist": "none", "codec_whitelist": "none"}
        return av.open(file, options=options, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(reason_of(error)) from error


def _video_of(container: Any) -> Any:
    """The first stream of frames. Raises `VideoError` if the data is a picture, a text or only sound."""
    from av.stream import Disposition

    name = container.format.name
    if (
        name in NOT_VIDEOS
        or name.endswith("_pipe")
        or container.metadata.get("major_brand") in PICTURE_BRANDS
    ):
        raise VideoError("it is a picture or a text, not a video")
    for stream in container.streams.video:
        # For the decoder, the cover picture of a song is a video of one frame.
        if not stream.disposition & Disposition.attached_pic:
            return stream
    raise VideoError("it has no video, only sound or pictures")


def _decoded(container: Any, stream: Any, pixel_limit: int) -> Iterator[Any]:
    """Every frame that can be decoded, in the order in which frames are shown.

    Raises `VideoError` at the first frame of too many pixels.
    """
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):  # a truncated file ends with an error
            return
        try:
            frames = packet.decode()
        except av.error.EOFError:
            return
        except av.error.FFmpegError as error:
            # A decoder that refuses a size keeps it, forgets it or, for AV1, says that it is out of range.
            _check_size(stream, pixel_limit)
            forgot = isinstance(error, av.error.ArgumentError) and not stream.width
            if forgot or isinstance(error, av.error.OverflowError):
                raise _too_large(pixel_limit) from error
            continue  # damaged packets are skipped
        yield from frames


def _in_order(frames: Iterator[Any]) -> Iterator[Any]:
    """The frames with times that rise: the time of decoding if the time of showing goes back more often.

    FFmpeg has the same rule. Times of showing are wrong in an AVI of H.264, for example.
    """
    faults, shown, decoded = 0, -math.inf, -math.inf
    for frame in frames:
        if frame.pts is not None and frame.dts is not None:
            faults += (frame.pts <= shown) - (frame.dts <= decoded)
            shown, decoded = frame.pts, frame.dts
            if faults > 0:
                frame.pts = frame.dts
        yield frame


def _deinterlaced(frames: Iterator[Any]) -> Iterator[Any]:
    """All frames. Every second line of an interlaced frame shows another time, and is computed anew."""
    for (width, height, _), group in groupby(
        frames, lambda each: (each.width, each.height, each.format.name)
    ):
        graph = None
        for frame in group:
            if graph is None and frame.interlaced_frame and min(width, height) >= MIN_INTERLACED_PX:
                graph = _deinterlacer(frame)
            yield from _filtered(graph, frame) if graph else (frame,)
        if graph:
            yield from _filtered(graph, None)


def _deinterlacer(frame: Any) -> Any:
    """A graph that changes interlaced frames only. The next frame completes each frame."""
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    graph.link_nodes(source, graph.add("bwdif", "send_frame:deint=interlaced"), graph.add("buffersink"))
    graph.configure()
    return graph


def _filtered(graph: Any, frame: Any) -> Iterator[Any]:
    """The frames that are complete after `frame`, or after the last frame if it is None."""
    import av

    graph.push(frame)
    while True:
        try:
            yield graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return


class _Clock:
    """The time of each frame in seconds since the first frame. It never goes back."""

    def __init__(self, container: Any, stream: Any) -> None:
        from av.format import Flags

        self._step_s = float(1 / (stream.guessed_rate or stream.average_rate or DEFAULT_RATE))
        # In these formats a clock may begin anew in the middle of a file.
        self._may_jump = bool(container.format.flags & Flags.ts_discont.value)
        self._zero_s: float | None = None
        self._last_s = 0.0
        self._started = False

    def time_of(self, frame: Any) -> float:
        expected_s = self._last_s + self._step_s if self._started else 0.0
        now_s = expected_s
        if frame.time is not None:
            if self._zero_s is None or self._jumped(frame.time - self._zero_s):
                self._zero_s = frame.time - expected_s
            now_s = frame.time - self._zero_s
        self._started = True
        self._last_s = max(self._last_s, now_s)
        return self._last_s

    def _jumped(self, now_s: float) -> bool:
        off_s = now_s - self._last_s
        return off_s < -MAX_BACK_S or (self._may_jump and off_s > MAX_GAP_S)


def _upright(frame: Any, pixel_aspect: Any, pixel_limit: int) -> Image:
    """The pixels as a player shows them: square, turned and mirrored. Raises `VideoError`."""
    width, height, aspect = frame.width, frame.height, float(pixel_aspect or 1)
    if 1 < aspect <= MAX_PIXEL_ASPECT:
        width = round(width * aspect)
    elif 1 / MAX_PIXEL_ASPECT <= aspect < 1:
        height = round(height / aspect)
    if width * height > pixel_limit:
        raise _too_large(pixel_limit, width, height)
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
    if "DISPLAYMATRIX" in {data.type.name for data in frame.side_data}:
        matrix = np.frombuffer(frame.side_data["DISPLAYMATRIX"], np.int32)
        pixels = _placed(pixels, *matrix[[0, 1, 3, 4]].tolist())
    return np.ascontiguousarray(pixels)


def _placed(pixels: Image, a: int, b: int, c: int, d: int) -> Image:
    """The pixels placed by a display matrix, to the nearest quarter turn: x' = ax + cy, y' = bx + dy."""
    across, down = a, d
    if abs(b) > abs(a):
        pixels, across, down = pixels.swapaxes(0, 1), c, b
    return pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def _check_size(stream: Any, pixel_limit: int) -> None:
    if stream.width * stream.height > pixel_limit:
        raise _too_large(pixel_limit, stream.width, stream.height)


def _too_large(pixel_limit: int, width: int = 0, height: int = 0) -> VideoError:
    found = f"{width} x {height} pixels" if width else "too many pixels"
    return VideoError(f"its frames have {found}; at most {pixel_limit} pixels are accepted")
