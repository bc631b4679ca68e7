"""The videos of `expressnet predict`: where their timelines go, and what is printed about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from service.cli.counts import counted
from service.predict.forms import Form

if TYPE_CHECKING:
    from service.predict.ledger import Ledger
    from service.predict.rows import RunInfo
    from service.predict.run import Predictor
    from service.predict.videos import VideoOptions, Watched
    from service.tracking.record import TrackTotals


@dataclass(frozen=True, slots=True)
class Clip:
    """One video, and the files for its rows, its picture and its report."""

    path: str
    rows: Path
    picture: Path
    report: Path


def clips_of(paths: Sequence[str], output: Path | None, form: Form) -> list[Clip]:
    """Files for each video: below `output` or in this folder, and named after the video."""
    from service.predict.videos import names_of

    if output is not None and len(paths) == 1:
        return [Clip(paths[0], output, output.with_suffix(".png"), output.with_suffix(".report.json"))]
    folder = Path() if output is None else output.parent
    return [
        Clip(
            path,
            output or Path(f"{name}.timeline.{form}"),
            folder / f"{name}.timeline.png",
            folder / f"{name}.report.json",
        )
        for path, name in zip(paths, names_of(paths), strict=True)
    ]


def occupied(clips: Sequence[Clip], form: Form) -> Path | None:
    """The first file that a run would overwrite or cannot resume, or None."""
    for clip in clips:
        resumes = form is Form.jsonl and _has_content(clip.rows)
        written = clip.picture, clip.report
        for file in written if form is Form.jsonl else (clip.rows, *written):
            if not resumes and _has_content(file):
                return file
    return None


def _has_content(file: Path) -> bool:
    return file.exists() and (not file.is_file() or file.stat().st_size > 0)


async def predict_videos(
    predictor: Predictor,
    options: VideoOptions,
    clips: Sequence[Clip],
    shared: Ledger | None,
    say: Callable[[str], None],
    prints_tables: bool,
) -> tuple[int, Ledger | None]:
    """Answer the videos. Returns how many have no answer, and the ledger of the last one."""
    from service.predict.ledger import Ledger
    from service.predict.sources import source
    from service.predict.video_rows import header
    from service.predict.videos import answer_video

    failed, skipped, last = 0, 0, shared
    for clip in clips:
        if predictor.stop.is_set():
            break
        opened = (
            nullcontext(shared)
            if shared is not None
            else Ledger(clip.rows, options.form, options.run, header(options.run))
        )
        with opened as ledger:
            assert ledger is not None
            last = ledger
            if ledger.holds(source(clip.path).key):
                skipped += 1
                failed += ledger.failed_before if shared is None else 0
                continue
            watched = await answer_video(predictor, options, clip.path, ledger, clip.picture, clip.report)
        if prints_tables and watched.recording.frames:
            Console().print(_table(watched, options.run))
        if watched.problem is not None:
            failed += 1
            say(f"{watched.source.shown} {_sentence(watched)}")
        if watched.recording.frames:
            frames = counted(watched.recording.frames, "frame")
            faces = counted(len(watched.recording.record.totals()), "face")
            before = f"{watched.source.shown}: " if len(clips) > 1 else ""
            say(f"{before}{frames}, {faces}: {clip.rows}, {clip.picture} and {clip.report}")
    if skipped:
        say(f"{counted(skipped, 'video')} from earlier runs")
    return failed, last


def _sentence(watched: Watched) -> str:
    assert watched.problem is not None
    what = "has a frame without an answer" if watched.recording.frames else "cannot be read as a video"
    return f"{what}: {watched.problem.detail}"


def _table(watched: Watched, run: RunInfo) -> Table:
    table = Table("face", "seen", "frames", "emotions", "certain")
    for track in watched.recording.record.totals():
        seen = f"{track.first_seen_s:.1f} to {track.last_seen_s:.1f} s"
        table.add_row(
            str(track.number), seen, str(track.frames), _shares(track, run.labels), f"{track.certain:.0%}"
        )
    return table


def _shares(track: TrackTotals, labels: tuple[str, ...]) -> str:
    """Each emotion's share of the time, largest first."""
    shares = sorted(zip(labels, track.time_share.tolist(), strict=True), key=lambda item: -item[1])
    return ", ".join(f"{emotion} {share:.0%}" for emotion, share in shares if share >= 0.005)
