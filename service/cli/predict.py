"""`expressnet predict`: the emotions of every face in photos and videos, without a server."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.api.schemas import EmotionQuery, Include
from service.cli.counts import counted
from service.cli.request import Options, RefusedError, Request, check_writable, request_of
from service.cli.video import predict_videos
from service.predict.forms import Form

if TYPE_CHECKING:
    from service.predict.ledger import Ledger
    from service.predict.rows import Row, RunInfo
    from service.predict.run import Predictor
    from service.settings import Settings

DEFAULT = EmotionQuery()
# No client waits, and the machine may be busy.
DECODE_BUDGET_S = 60.0
# Names of skipped files in the last message.
SKIPPED_NAMES = 5

Places = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH", help="Images, videos, folders or globs. - is one image on standard input."
    ),
]


def predict_command(
    paths: Places,
    form: Annotated[
        Form | None,
        typer.Option(
            "--format",
            help="Format of the output. The default is a table on a terminal, CSV if --output ends in .csv, "
            "else JSON lines. The timeline of a video is CSV by default.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="File for the output, in JSON lines or CSV. The same command resumes an interrupted file of "
            "JSON lines."
        ),
    ] = None,
    annotate: Annotated[
        Path | None, typer.Option(help="Folder for copies of the images and videos with boxes and labels.")
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Additional parts of each face: {', '.join(Include)}. Separate several by commas, or "
            "repeat the option."
        ),
    ] = None,
    max_faces: Annotated[
        int, typer.Option(min=1, max=128, help="Max number of faces of an image. The largest faces are kept.")
    ] = DEFAULT.max_faces,
    min_face_px: Annotated[
        float,
        typer.Option(
            min=16, max=4096, help="Min length of the longer side of a face, in pixels of the image."
        ),
    ] = DEFAULT.min_face_px,
    min_detection_confidence: Annotated[
        float, typer.Option(min=0, max=1, help="Min detection score of a face.")
    ] = DEFAULT.min_detection_confidence,
    detect: Annotated[
        bool,
        typer.Option("--detect/--no-detect", help="Find faces, or take each image as one face."),
    ] = True,
    prior: Annotated[
        str | None,
        typer.Option(
            help="Shares of the emotions that the probabilities assume: training, balanced, or shares like "
            "neutral=0.6,happiness=0.4. The default is EXPRESSNET_PRIOR."
        ),
    ] = None,
    bom: Annotated[
        bool,
        typer.Option(
            "--bom", help="Begin CSV with a byte order mark: Excel then reads names that are not ASCII."
        ),
    ] = False,
    fps: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=1000, help="Frames to analyse in each second of a video. The default is 5."
        ),
    ] = None,
    thumbnails: Annotated[
        bool,
        typer.Option("--thumbnails", help="Show each face of a video in the picture of its timeline."),
    ] = False,
) -> None:
    """Find the emotions of all faces in images, videos, folders or globs, without a server.

    Each video gives a timeline: a file of rows and a picture, named after the video or `--output`. The
    settings are the same as for `serve`.

    Exit codes: 0 if all images and videos were answered, 1 if some were not, 2 if the run could not start or
    continue, 130 if it was interrupted.
    """
    # Imported late: `--help` and completions must not wait for it.
    try:
        from pydantic import ValidationError

        from service.api.recordings import DEFAULT_FPS
        from service.core.errors import ModelFileError, SettingsError
        from service.predict.ledger import LedgerError
        from service.predict.run import RunStoppedError
        from service.settings import read_settings
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None

    try:
        query = EmotionQuery(
            max_faces=max_faces,
            min_face_px=min_face_px,
            min_detection_confidence=min_detection_confidence,
            detect=detect,
            include=include or (),
            prior=prior,
        )
        request = request_of(
            Options(tuple(paths), form, output, annotate, query, fps, thumbnails, bom), DEFAULT_FPS
        )
        # Only a server has several processes.
        code = asyncio.run(_predict(request, patient(read_settings(processes=1))))
    except ValidationError as error:
        first = error.errors()[0]
        _complain(f"--{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}")
    except (RefusedError, LedgerError, RunStoppedError, SettingsError, ModelFileError) as error:
        _complain(str(error))
    except KeyboardInterrupt:
        _say("stopped at once; images in flight were not answered")
        code = 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader closed the pipe. Without this, Python would report the error again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    raise SystemExit(code)


def _complain(sentence: str) -> None:
    _say(sentence)
    raise SystemExit(2) from None


def _say(sentence: str) -> None:
    typer.echo(f"expressnet: {sentence}", err=True)


@dataclass(slots=True)
class _Tally:
    """Counts of a run, for its last message."""

    images: int = 0
    faces: int = 0
    failed: int = 0
    began: float = field(default_factory=time.monotonic)

    def count(self, row: Row) -> None:
        self.images += 1
        self.faces += row.seen.face_count if row.seen else 0
        self.failed += row.problem is not None

    def sentence(self, before: int, failed_before: int) -> str:
        seconds = time.monotonic() - self.began
        rate = self.images / seconds
        said = f"{counted(self.images, 'image')}, {counted(self.faces, 'face')} in {seconds:.1f} s"
        said += f" ({rate:.1f} images/s)"
        if self.failed:
            said += f"; {self.failed} could not be answered"
        if before:
            said += f"; {before} more from earlier runs"
            said += f", {failed_before} of them without an answer" if failed_before else ""
        return said


def patient(settings: Settings) -> Settings:
    """The settings, with a decode budget for a busy machine unless the operator has set one."""
    if "decode_budget_s" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"decode_budget_s": DECODE_BUDGET_S})


async def _predict(request: Request, settings: Settings) -> int:
    """The exit code."""
    from service.api.schemas import ModelName
    from service.assembly import assemble
    from service.predict.ledger import Ledger
    from service.predict.rows import RunInfo
    from service.predict.run import Options as RunOptions
    from service.predict.run import Predictor
    from service.predict.video_rows import header
    from service.predict.videos import VideoOptions
    from service.process.memory import bound_heap
    from service.telemetry.logs import configure_logs

    options = request.options
    # Rows may go to standard output, so the engines may only log warnings.
    configure_logs("warning", "text")
    bound_heap()
    assembly = assemble(settings)
    card = assembly.classifier
    run = RunInfo(
        ModelName.of(card, options.query.prior or settings.prior),
        options.query,
        card.labels,
        request.fps,
        options.bom,
    )
    predictor = Predictor(
        assembly,
        RunOptions(
            options.query,
            settings.worker_threads,
            settings.body_limit_bytes,
            settings.pixel_limit,
            options.copies,
        ),
    )
    ledger, tally, failed = None, _Tally(), 0
    async with AsyncExitStack() as stack:
        if options.output is not None:
            first_line = None if request.has_images else header(run)
            ledger = stack.enter_context(Ledger(options.output, request.form, run, first_line))
        elif request.clips:
            check_writable(request.clips[0].rows)
        await stack.enter_async_context(assembly)
        signals = _stopped_by_signals(predictor.stop)
        if request.has_images:
            await _predict_images(request, predictor, run, ledger, tally)
        if request.clips:
            watching = VideoOptions(
                request.clip_form,
                run,
                card.verdict.threshold,
                settings.pixel_limit,
                options.copies,
                options.thumbnails,
            )
            # Rows of images on standard output must stay alone.
            prints_tables = not request.has_images or request.form is Form.table
            failed, last = await predict_videos(
                predictor, watching, request.clips, ledger, _say, prints_tables
            )
    before, failed_before = (0, 0) if ledger is None else (len(ledger), ledger.failed_before)
    if request.has_images and (tally.images != 1 or options.output is not None):
        _say(tally.sentence(before, failed_before))
    if request.skipped:
        _say(_skipped(request.skipped))
    if signals:
        _say(f"interrupted; {_after_interruption(last if request.clips else ledger)}")
        return 128 + signals[0]
    return 1 if tally.failed or failed or failed_before else 0


async def _predict_images(
    request: Request, predictor: Predictor, run: RunInfo, ledger: Ledger | None, tally: _Tally
) -> None:
    from service.predict.display import Display
    from service.predict.sources import images

    options = request.options

    def paths() -> Iterator[str]:
        return images(options.paths, options.copies)

    known = (lambda key: False) if ledger is None else ledger.holds
    with Display(request.form, run, ledger, paths) as display:
        async with aclosing(predictor.rows(paths(), known, display.skipped)) as rows:
            async for row in rows:
                display.show(row)
                tally.count(row)


def _skipped(paths: list[str]) -> str:
    from service.predict.sources import Source

    names = ", ".join(Source(path).shown for path in paths[:SKIPPED_NAMES])
    more = f" and {len(paths) - SKIPPED_NAMES} more" if len(paths) > SKIPPED_NAMES else ""
    what = "is neither an image nor a video" if len(paths) == 1 else "are neither images nor videos"
    return f"skipped {names}{more}, which {what}"


def _after_interruption(ledger: Ledger | None) -> str:
    if ledger is None:
        return "the answers are above"
    return "the same command resumes" if ledger.resumes else "CSV does not resume; JSON lines do"


def _stopped_by_signals(stop: asyncio.Event) -> list[signal.Signals]:
    """The first SIGINT or SIGTERM stops the run after the images in flight, the second one at once.

    Returns a list that will hold the first signal.
    """
    got: list[signal.Signals] = []
    loop = asyncio.get_running_loop()

    def handle(sig: signal.Signals) -> None:
        if got:
            return
        got.append(sig)
        stop.set()
        # Not `remove_signal_handler`: without a handler, a signal in another thread would not wake the loop.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Printed last, because a reader may send the second signal at once.
        _say("stopping after the images in flight; interrupt again to stop at once")

    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, handle, sig)
    return got
