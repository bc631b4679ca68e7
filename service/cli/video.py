"""A video for `expressnet predict`: its timeline as CSV and as a picture, and its faces as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from service.cli.counts import counted

if TYPE_CHECKING:
    from service.core.query import Query
    from service.predict.timeline import Timeline
    from service.settings import Settings
    from service.tracking.record import TrackTotals


async def predict_video(settings: Settings, video: Path, csv_file: Path, query: Query, fps: float) -> str:
    """Write the CSV file and a PNG beside it, print the faces, return a summary. Raises `VideoError`."""
    from service.assembly import assemble
    from service.core.errors import ServiceError, reason_of
    from service.predict.run import TIMEOUT_S
    from service.predict.timeline import VideoError, write_timeline
    from service.process.memory import bound_heap
    from service.telemetry.logs import configure_logs

    picture = csv_file.with_suffix(".png")
    for file in (csv_file, picture):
        if file.exists() and (not file.is_file() or file.stat().st_size):
            raise VideoError(f"{file} is not empty; name another file, or delete it")
    configure_logs("warning", "text")
    bound_heap()
    assembly = assemble(settings)
    pipeline = assembly.faces
    async with assembly:
        try:
            timeline = await write_timeline(
                pipeline,
                assembly.classifier,
                video,
                csv_file,
                picture,
                query,
                fps=fps,
                timeout_s=TIMEOUT_S,
            )
        except ServiceError as error:
            raise VideoError(f"{video} has a frame without an answer: {error.detail}") from error
        except OSError as error:
            raise VideoError(f"{csv_file} cannot be written: {reason_of(error)}") from error
    Console().print(_table(timeline))
    frames, faces = counted(len(timeline.moments), "frame"), counted(len(timeline.tracks), "face")
    return f"{frames}, {faces}: {csv_file} and {picture}"


def _table(timeline: Timeline) -> Table:
    table = Table("face", "seen", "frames", "emotions", "certain")
    for track in timeline.tracks:
        seen = f"{track.first_seen_s:.1f} to {track.last_seen_s:.1f} s"
        shares = _shares(track, timeline.labels)
        table.add_row(str(track.number), seen, str(track.frames), shares, f"{track.certain:.0%}")
    return table


def _shares(track: TrackTotals, labels: tuple[str, ...]) -> str:
    """Each emotion's share of the time, largest first."""
    shares = sorted(zip(labels, track.time_share.tolist(), strict=True), key=lambda item: -item[1])
    return ", ".join(f"{emotion} {share:.0%}" for emotion, share in shares if share >= 0.005)
