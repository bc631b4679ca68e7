"""Makes a timeline of a video file, tracked and smoothed as in a stream, as CSV and as a picture."""

from __future__ import annotations

import asyncio
import csv
from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pictures
from PIL import ImageDraw, ImageFont

from service.core.arrays import Image, corner_and_size
from service.core.deadline import Deadline
from service.core.errors import reason_of
from service.core.manifest import ClassifierManifest
from service.core.query import Query
from service.core.seen import Seen
from service.core.timings import Timings
from service.pipeline.pipeline import Pipeline
from service.tracking.record import Followed, Record, TrackTotals
from service.tracking.smoothing import TIME_CONSTANT_S
from service.tracking.tracks import LOST_S

# Frames in flight: enough for every worker thread of a small machine.
AHEAD = 4
MAX_DRAWN = 8
DEFAULT_FPS = 5.0
DEFAULT_QUERY = Query()

# Layout of the picture: each face has a panel of PANEL_PX, of which the last GAP_PX are empty.
WIDTH_PX, PLOT_PX, PANEL_PX, GAP_PX, LEFT_PX, TOP_PX = 1000, 780, 160, 16, 70, 40
# The default colours of matplotlib.
COLOURS = np.frombuffer(
    bytes.fromhex("1f77b4 ff7f0e 2ca02c d62728 9467bd 8c564b e377c2 7f7f7f bcbd22 17becf"), np.uint8
).reshape(-1, 3)
TICKS_S = [digit * 10**power for power in range(-1, 7) for digit in (1, 2, 5)]


class VideoError(Exception):
    """The timeline of a file cannot be made. The message is one sentence."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One frame of a video: seconds since its first frame, the faces in it, and the track of each."""

    time_s: float
    seen: Seen
    followed: list[Followed]


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a video showed, frame by frame and face by face."""

    labels: tuple[str, ...]
    moments: list[Moment]
    tracks: list[TrackTotals]
    tracks_omitted: int


async def read_timeline(
    pipeline: Pipeline,
    classifier: ClassifierManifest,
    video: Path,
    query: Query,
    *,
    fps: float = DEFAULT_FPS,
    timeout_s: float = 10.0,
) -> Timeline:
    """Track the faces of a video file in about `fps` frames of each second.

    Raises `VideoError` for a file that is not a video, and `ServiceError` for a frame without answer within
    `timeout_s`.
    """
    record = Record(TIME_CONSTANT_S, classifier.verdict.threshold)
    moments = []
    async with aclosing(_frames_seen(pipeline, video, query, fps, timeout_s)) as frames:
        async for time_s, seen in frames:
            moments.append(Moment(time_s, seen, record.update(seen, time_s)))
    return Timeline(tuple(classifier.labels), moments, record.totals(), record.omitted)


async def write_timeline(
    pipeline: Pipeline,
    classifier: ClassifierManifest,
    video: Path,
    csv_file: Path,
    picture: Path | None = None,
    query: Query = DEFAULT_QUERY,
    *,
    fps: float = DEFAULT_FPS,
    timeout_s: float = 10.0,
) -> Timeline:
    """Write `read_timeline` to a CSV file and, if `picture` is given, to a PNG. Raises `OSError` too."""
    timeline = await read_timeline(pipeline, classifier, video, query, fps=fps, timeout_s=timeout_s)
    await asyncio.to_thread(write_csv, timeline, csv_file)
    if picture is not None:
        await asyncio.to_thread(draw, timeline, picture)
    return timeline


async def _frames_seen(
    pipeline: Pipeline, video: Path, query: Query, fps: float, timeout_s: float
) -> AsyncGenerator[tuple[float, Seen], None]:
    """Time in seconds and faces of each frame, in order, while the next frames are in flight."""
    under_way: deque[tuple[float, asyncio.Task[Seen]]] = deque()
    frames = read_frames(video, fps)
    try:
        while True:
            # Only one thread reads the video at a time: the decoder is not thread-safe.
            found = await asyncio.to_thread(next, frames, None)
            if found is not None:
                time_s, pixels = found
                seeing = pipeline.run(pixels, query, Deadline.after(timeout_s), Timings())
                under_way.append((time_s, asyncio.create_task(seeing)))
            while under_way and (found is None or len(under_way) >= AHEAD):
                time_s, task = under_way.popleft()
                yield time_s, await task
            if found is None:
                return
    finally:
        for _, task in under_way:
            task.cancel()
        await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)
        await asyncio.to_thread(frames.close)


def read_frames(video: Path, fps: float) -> Generator[tuple[float, Image], None, None]:
    """Seconds since the first frame and upright pixels, uint8 [H,W,3], of about `fps` frames a second.

    Frames are chosen by their own times, which may be uneven. Damaged parts are skipped. Raises `VideoError`.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise VideoError("videos need PyAV: pip install av") from error
    try:
        # Without this, a playlist could make the decoder open remote addresses.
        container = av.open(str(video), options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError, UnicodeError) as error:
        raise VideoError(f"{video} cannot be read as a video: {reason_of(error)}") from error
    with container:
        # For the decoder, the cover picture of a song is a video of one frame.
        streams = [
            stream
            for stream in container.streams.video
            if not stream.disposition & av.stream.Disposition.attached_pic
        ]
        if not streams:
            raise VideoError(f"{video} has no video, only sound or pictures")
        streams[0].thread_type = "AUTO"
        first_s = due_s = None
        for frame in _decoded(container, streams[0]):
            if first_s is None or due_s is None:
                first_s = due_s = frame.time
            # Half a millisecond allows for rounded times.
            if frame.time < due_s - 5e-4:
                continue
            due_s += 1 / fps
            if due_s <= frame.time:  # after a gap
                due_s = frame.time + 1 / fps
            upright = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
            yield frame.time - first_s, np.ascontiguousarray(upright)
        if first_s is None:
            raise VideoError(f"{video} cannot be read as a video: no frame can be decoded")


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Every frame that has a time and can be decoded."""
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
        except av.error.FFmpegError:  # damaged packets are skipped
            continue
        yield from (frame for frame in frames if frame.time is not None)


def write_csv(timeline: Timeline, file: Path) -> None:
    """One row for each face of each frame. All answers are smoothed, except those in `frame_*`."""
    with file.open("w", newline="", encoding="utf-8") as text:
        rows = csv.writer(text)
        place = ("x", "y", "width", "height")
        answer = ("emotion", "verdict", "confidence")
        rows.writerow(
            ["time_s", "track", *place, *answer, *timeline.labels, *(f"frame_{name}" for name in answer)]
        )
        for moment in timeline.moments:
            seen = moment.seen
            boxes = corner_and_size(seen.boxes).tolist()
            for face, (track, box) in enumerate(zip(moment.followed, boxes, strict=True)):
                smoothed = [round(value, 6) for value in track.probabilities.tolist()]
                rows.writerow(
                    [round(moment.time_s, 3), track.number]
                    + [round(value, 2) for value in box]
                    + [timeline.labels[track.best], track.verdict, smoothed[track.best]]
                    + smoothed
                    + [seen.emotions[face], seen.verdict(face), round(seen.confidences[face], 6)]
                )


def draw(timeline: Timeline, file: Path) -> None:
    """Draw the smoothed probabilities over time to a PNG, of the `MAX_DRAWN` faces with most frames."""
    longest = sorted(timeline.tracks, key=lambda track: -track.frames)[:MAX_DRAWN]
    shown = sorted(longest, key=lambda track: track.number)
    end_s = max([0.1, *(moment.time_s for moment in timeline.moments)])
    bottom = TOP_PX + PANEL_PX * max(1, len(shown))
    picture = Pictures.new("RGB", (WIDTH_PX, bottom + TOP_PX), "white")
    pen = ImageDraw.Draw(picture)
    write = partial(pen.text, fill="black", font=ImageFont.load_default(14))
    for number, track in enumerate(shown):
        top = TOP_PX + number * PANEL_PX
        panel = Pictures.fromarray(_panel(timeline, track, end_s))
        picture.paste(panel, (LEFT_PX, top))
        pen.rectangle((LEFT_PX - 1, top - 1, LEFT_PX + panel.width, top + panel.height), outline="black")
        write((LEFT_PX - 10, top + panel.height // 2), f"face {track.number}", anchor="rm")
        write((LEFT_PX - 10, top), "1", anchor="rm")
        write((LEFT_PX - 10, top + panel.height), "0", anchor="rm")
    step_s = next(step for step in TICKS_S if end_s / step <= 10)
    for tick in range(int(end_s / step_s) + 1):
        write((LEFT_PX + PLOT_PX * tick * step_s / end_s, bottom), f"{tick * step_s:g}", anchor="mt")
    write((LEFT_PX + PLOT_PX // 2, bottom + 18), "seconds", anchor="mt")
    for number, label in enumerate(timeline.labels if shown else ()):
        x, y = LEFT_PX + PLOT_PX + 20, TOP_PX + 20 * number
        pen.rectangle((x, y, x + 12, y + 12), fill=tuple(COLOURS[number % len(COLOURS)].tolist()))
        write((x + 20, y + 6), label, anchor="lm")
    hidden = len(timeline.tracks) + timeline.tracks_omitted - len(shown)
    more = f"; {hidden} more not shown" if hidden else ""
    title = f"Smoothed probabilities; hatched: uncertain{more}" if shown else "No face was found"
    write((LEFT_PX + PLOT_PX // 2, TOP_PX // 2), title, anchor="mm")
    picture.save(file, "PNG")


def _panel(timeline: Timeline, track: TrackTotals, end_s: float) -> Image:
    """The stacked probabilities of one face, uint8 [H,W,3]; white while the face was away."""
    frames = [
        (moment.time_s, followed)
        for moment in timeline.moments
        for followed in moment.followed
        if followed.number == track.number
    ]
    times = np.array([time_s for time_s, _ in frames])
    rows = np.array([followed.probabilities for _, followed in frames])
    uncertain = np.array([followed.verdict == "uncertain" for _, followed in frames])
    # An answer holds until the next one, except across a gap.
    spans = np.diff(times, append=np.inf)
    usual_s = np.median(spans[:-1]) if len(times) > 1 else LOST_S
    until = times + np.where(spans <= 2.5 * usual_s, spans, usual_s)

    at = np.linspace(0, end_s, PLOT_PX)
    held = np.searchsorted(times, at, side="right") - 1
    away = (held < 0) | (at > until[held])
    height = np.linspace(1, 0, PANEL_PX - GAP_PX)[:, None]
    below = np.cumsum(rows, axis=1)[held, :-1]
    label = np.sum([height > edge for edge in below.T], axis=0)
    panel: Image = COLOURS[label % len(COLOURS)]
    stripes = np.add.outer(np.arange(len(height)), np.arange(PLOT_PX)) % 12 < 3
    panel[(stripes & uncertain[held]) | away] = 255
    return panel
