"""A video file to a timeline: its faces followed and smoothed as in a stream, as CSV and as a picture.

Needs the extra `video`.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections import deque
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as Pictures

from service.arrays import Image
from service.deadline import Deadline
from service.manifest import ClassifierManifest
from service.messages import StreamQuery, TrackedFace, TrackSummary
from service.pipeline import Pipeline
from service.schemas import Face, ImageAnswer
from service.timings import Timings
from service.tracking.record import Record
from service.tracking.tracks import LOST_S

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# So many frames are worked on at a time, in their order: enough for every worker thread of small machines.
AHEAD = 4
MOST_DRAWN = 8
DEFAULT_FPS = 5.0


class VideoError(Exception):
    """A file that cannot be followed; one sentence that says why."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One frame of a video: seconds since its first frame, and the faces in it."""

    time_s: float
    faces: list[TrackedFace]


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a video showed, frame by frame and face by face."""

    labels: tuple[str, ...]
    moments: list[Moment]
    tracks: list[TrackSummary]
    tracks_left_out: int


async def read_timeline(
    pipeline: Pipeline,
    classifier: ClassifierManifest,
    video: Path,
    query: StreamQuery,
    *,
    fps: float = DEFAULT_FPS,
    timeout_s: float = 10.0,
) -> Timeline:
    """Follow the faces of a video file, looking at about `fps` frames of each second.

    Raises `VideoError` for a file that is no video, and `ServiceError` for a frame that has no answer within
    `timeout_s`.
    """
    record = Record(query.time_constant_s, classifier.verdict.threshold)
    moments = []
    async with aclosing(_answers(pipeline, video, query, fps, timeout_s)) as answers:
        async for time_s, faces in answers:
            moments.append(Moment(time_s, record.update(faces, time_s)))
    return Timeline(tuple(classifier.labels), moments, record.summary(), record.left_out)


async def write_timeline(
    pipeline: Pipeline,
    classifier: ClassifierManifest,
    video: Path,
    csv_file: Path,
    picture: Path | None = None,
    query: StreamQuery | None = None,
    *,
    fps: float = DEFAULT_FPS,
    timeout_s: float = 10.0,
) -> Timeline:
    """`read_timeline`, written to a CSV file and, if one is named, drawn to a PNG. Raises as that does."""
    query = query or StreamQuery()
    timeline = await read_timeline(pipeline, classifier, video, query, fps=fps, timeout_s=timeout_s)
    await asyncio.to_thread(write_csv, timeline, csv_file)
    if picture is not None:
        await asyncio.to_thread(draw, timeline, picture)
    return timeline


async def _answers(
    pipeline: Pipeline, video: Path, query: StreamQuery, fps: float, timeout_s: float
) -> AsyncGenerator[tuple[float, list[Face]], None]:
    """The faces of each frame, in order, while the next ones are under way."""

    async def answer(image: Image) -> list[Face]:
        data = await asyncio.to_thread(_encoded, image)
        deadline = Deadline.after(timeout_s)
        found = await pipeline.run(data, query, deadline, Timings(), counted=False)
        assert isinstance(found, ImageAnswer)  # where there are groups, `expressnet predict` refuses
        return found.faces

    under_way: deque[tuple[float, asyncio.Task[list[Face]]]] = deque()
    frames = read_frames(video, fps)
    try:
        while True:
            # A video is read by one thread at a time: the decoder is not made for more.
            found = await asyncio.to_thread(next, frames, None)
            if found is not None:
                under_way.append((found[0], asyncio.create_task(answer(found[1]))))
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


def _encoded(image: Image) -> bytes:
    """As the pipeline takes it, without loss and almost without work."""
    file = io.BytesIO()
    Pictures.fromarray(image).save(file, "BMP")
    return file.getvalue()


def read_frames(video: Path, fps: float) -> Generator[tuple[float, Image], None, None]:
    """Seconds since the first frame and upright pixels, uint8 [H,W,3], of about `fps` frames a second.

    By the frames' own times, which need not be even. Damaged parts are left out. Raises `VideoError`.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise VideoError("videos need PyAV: pip install 'expressnet-service[video]'") from error
    try:
        # A playlist could name addresses elsewhere.
        container = av.open(str(video), options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError, UnicodeError) as error:
        raise VideoError(f"{video} cannot be read as a video: {_reason(error)}") from error
    with container:
        # The cover of a song is a video of one frame to the decoder.
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
            # Half a millisecond for the rounding of times.
            if frame.time < due_s - 5e-4:
                continue
            due_s += 1 / fps
            if due_s <= frame.time:  # after a gap
                due_s = frame.time + 1 / fps
            upright = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
            yield frame.time - first_s, np.ascontiguousarray(upright)
        if first_s is None:
            raise VideoError(f"{video} cannot be read as a video: no frame of it can be decoded")


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Every frame that has a time and can be decoded."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = packet.decode()
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            # What is damaged is left out; a file that ends too early ends there.
            if packet is None:
                return
            continue
        yield from (frame for frame in frames if frame.time is not None)


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()


def write_csv(timeline: Timeline, file: Path) -> None:
    """One row for each face of each frame; `emotion` to the probabilities are smoothed, `frame_*` are not."""
    with file.open("w", newline="", encoding="utf-8") as text:
        rows = csv.writer(text)
        place = ("x", "y", "width", "height")
        answer = ("emotion", "verdict", "confidence")
        rows.writerow(
            ["time_s", "track", *place, *answer, *timeline.labels, *(f"frame_{name}" for name in answer)]
        )
        for moment in timeline.moments:
            for face in moment.faces:
                smoothed = face.smoothed
                rows.writerow(
                    [round(moment.time_s, 3), face.track]
                    + [face.box.x, face.box.y, face.box.width, face.box.height]
                    + [smoothed.emotion, smoothed.verdict, smoothed.confidence]
                    + [smoothed.probabilities[label] for label in timeline.labels]
                    + [face.emotion, face.verdict, face.confidence]
                )


def draw(timeline: Timeline, file: Path) -> None:
    """The smoothed probabilities of each face over time, as a PNG; of the `MOST_DRAWN` seen most."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise VideoError("the picture needs matplotlib: pip install 'expressnet-service[video]'") from error
    longest = sorted(timeline.tracks, key=lambda track: -track.frames)[:MOST_DRAWN]
    shown = sorted(longest, key=lambda track: track.track)
    figure = Figure(figsize=(10, 1.2 + 1.6 * max(1, len(shown))), layout="constrained")
    panels = figure.subplots(max(1, len(shown)), 1, sharex=True, squeeze=False)[:, 0]
    for axes, track in zip(panels, shown, strict=False):
        _draw_track(axes, timeline, track)
    end_s = timeline.moments[-1].time_s if timeline.moments else 0.0
    panels[-1].set(xlabel="seconds", xlim=(0, max(end_s, 0.1)))
    if shown:
        left_out = len(timeline.tracks) + timeline.tracks_left_out - len(shown)
        more = f", and {left_out} more that were seen in fewer frames" if left_out else ""
        figure.suptitle(f"Smoothed probabilities; hatched: uncertain{more}", fontsize="medium")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper")
    else:
        panels[0].set(yticks=[], title="No face was found")
    figure.savefig(file, format="png", dpi=100)


def _draw_track(axes: Axes, timeline: Timeline, track: TrackSummary) -> None:
    seen = [
        (moment.time_s, face.smoothed)
        for moment in timeline.moments
        for face in moment.faces
        if face.track == track.track
    ]
    times = np.array([time_s for time_s, _ in seen])
    rows = np.array([[smoothed.probabilities[label] for label in timeline.labels] for _, smoothed in seen])
    uncertain = np.array([smoothed.verdict == "uncertain" for _, smoothed in seen])
    # Nothing is drawn where the face was away.
    usual_s = np.median(np.diff(times)) if len(times) > 1 else LOST_S
    gaps = np.flatnonzero(np.diff(times) > 2.5 * usual_s) + 1
    for index, part in enumerate(np.split(np.arange(len(times)), gaps)):
        at = times[part]
        if len(part) == 1:
            # A single moment would have no width.
            part, at = np.repeat(part, 2), at[0] + np.array([0, usual_s])
        names = timeline.labels if index == 0 else [f"_{label}" for label in timeline.labels]
        colours = [f"C{number}" for number in range(len(names))]
        axes.stackplot(at, rows[part].T, labels=names, colors=colours)
        axes.fill_between(
            at, 0, 1, where=uncertain[part], facecolor="none", edgecolor="white", hatch="//", lw=0
        )
    axes.set(ylim=(0, 1), ylabel=f"face {track.track}", yticks=[0, 0.5, 1])
