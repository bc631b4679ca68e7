"""`expressnet predict`: the emotions of every face in files, folders and globs, without a server."""

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
from service.cli.video import predict_video
from service.predict.forms import Form

if TYPE_CHECKING:
    from service.predict.ledger import Ledger
    from service.predict.rows import Row
    from service.settings import Settings

DEFAULT = EmotionQuery()
# No client waits, and the machine may be busy.
DECODE_BUDGET_S = 60.0

Places = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH", help="Images, folders, globs, or one video. - is one image on standard input."
    ),
]


class RefusedError(Exception):
    """The command cannot be run as it was given. The message is one sentence."""


def predict_command(
    paths: Places,
    form: Annotated[
        Form | None,
        typer.Option(
            "--format",
            help="Format of the output. The default is a table on a terminal, CSV if --output ends in .csv, "
            "else JSON lines.",
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
        Path | None, typer.Option(help="Folder for copies of the images with boxes and labels.")
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
    fps: Annotated[
        float | None,
        typer.Option(
            min=0.01, max=1000, help="Frames to analyse in each second of a video. The default is 5."
        ),
    ] = None,
) -> None:
    """Find the emotions of all faces in images, folders or a video, without a server.

    A video gives a timeline: a CSV file and a picture, named after the video or `--output`. The settings are
    the same as for `serve`.

    Exit codes: 0 if all images were answered, 1 if some were not, 2 if the run could not start or continue,
    130 if it was interrupted.
    """
    # Imported late: `--help` and completions must not wait for it.
    from pydantic import ValidationError

    from service.core.errors import ModelFileError, SettingsError
    from service.predict.ledger import LedgerError
    from service.predict.run import RunStoppedError
    from service.predict.timeline import DEFAULT_FPS, VideoError
    from service.settings import read_settings

    try:
        query = EmotionQuery(
            max_faces=max_faces,
            min_face_px=min_face_px,
            min_detection_confidence=min_detection_confidence,
            detect=detect,
            include=include or (),
        )
        video = _video(paths, form, output, annotate, query, fps)
        request = (
            None if video else _checked(_Request(tuple(paths), _form(form, output), output, annotate, query))
        )
        # Only a server has several processes.
        settings = patient(read_settings(processes=1))
        if request is not None:
            code = asyncio.run(_predict(request, settings))
        else:
            csv_file = output or Path(f"{Path(paths[0]).stem}.timeline.csv")
            _say(
                asyncio.run(
                    predict_video(settings, Path(paths[0]), csv_file, query.to_pipeline(), fps or DEFAULT_FPS)
                )
            )
            code = 0
    except ValidationError as error:
        first = error.errors()[0]
        _complain(f"--{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}")
    except (RefusedError, LedgerError, RunStoppedError, SettingsError, ModelFileError, VideoError) as error:
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


@dataclass(frozen=True, slots=True)
class _Request:
    paths: tuple[str, ...]
    form: Form
    output: Path | None
    pictures: Path | None
    query: EmotionQuery


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


def _form(form: Form | None, output: Path | None) -> Form:
    if output is None:
        return form or (Form.table if sys.stdout.isatty() else Form.jsonl)
    if form is Form.table:
        raise RefusedError("--output takes JSON lines or CSV, not a table")
    return form or (Form.csv if output.suffix.lower() == ".csv" else Form.jsonl)


def _video(
    paths: list[str],
    form: Form | None,
    output: Path | None,
    pictures: Path | None,
    query: EmotionQuery,
    fps: float | None,
) -> bool:
    """Whether the path is a video. Raises `RefusedError` for options that do not fit a video."""
    from service.predict.sources import is_video

    videos = [path for path in paths if is_video(path)]
    if not videos:
        if fps is not None:
            raise RefusedError("--fps is only for videos")
        return False
    if len(paths) > 1:
        raise RefusedError(f"{videos[0]} is a video, and a video must be the only path")
    if not Path(videos[0]).is_file():
        raise RefusedError(f"{videos[0]} was not found")
    if form not in (None, Form.csv) or (output is not None and output.suffix.lower() != ".csv"):
        raise RefusedError("the timeline of a video is always CSV")
    if pictures is not None or query.include or not query.detect:
        raise RefusedError("--annotate, --include and --no-detect are not for videos")
    return True


def _checked(request: _Request) -> _Request:
    from service.predict.pictures import would_overwrite
    from service.predict.sources import STANDARD_INPUT, missing

    if (absent := missing(request.paths)) is not None:
        raise RefusedError(f"{absent} was not found")
    if STANDARD_INPUT in request.paths and (len(request.paths) > 1 or request.output is not None):
        raise RefusedError("- must be the only path, and without --output")
    if request.pictures is not None and would_overwrite(request.pictures):
        raise RefusedError("--annotate needs a folder of its own: pictures would overwrite their photos")
    return request


def patient(settings: Settings) -> Settings:
    """The settings, with a decode budget for a busy machine unless the operator has set one."""
    if "decode_budget_s" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"decode_budget_s": DECODE_BUDGET_S})


async def _predict(request: _Request, settings: Settings) -> int:
    """The exit code."""
    from service.api.schemas import ModelName
    from service.assembly import assemble
    from service.predict.display import Display
    from service.predict.ledger import Ledger
    from service.predict.rows import RunInfo
    from service.predict.run import Options, Predictor
    from service.predict.sources import images
    from service.process.memory import bound_heap
    from service.telemetry.logs import configure_logs

    # Rows may go to standard output, so the engines may only log warnings.
    configure_logs("warning", "text")
    bound_heap()
    assembly = assemble(settings)
    card = assembly.classifier
    run = RunInfo(ModelName(name=card.name, version=card.version), request.query, card.labels)
    predictor = Predictor(
        assembly,
        Options(
            request.query,
            settings.worker_threads,
            settings.body_limit_bytes,
            settings.pixel_limit,
            request.pictures,
        ),
    )

    def paths() -> Iterator[str]:
        return images(request.paths, request.pictures)

    async with AsyncExitStack() as stack:
        ledger = None
        if request.output is not None:
            ledger = stack.enter_context(Ledger(request.output, request.form, run))
        await stack.enter_async_context(assembly)
        signals = _stopped_by_signals(predictor.stop)
        display = stack.enter_context(Display(request.form, run, ledger, paths))
        tally = _Tally()
        known = (lambda key: False) if ledger is None else ledger.holds
        rows = await stack.enter_async_context(aclosing(predictor.rows(paths(), known, display.skipped)))
        async for row in rows:
            display.show(row)
            tally.count(row)
    before, failed_before = (0, 0) if ledger is None else (len(ledger), ledger.failed_before)
    if tally.images != 1 or request.output is not None:
        _say(tally.sentence(before, failed_before))
    if signals:
        _say(f"interrupted; {_after_interruption(ledger)}")
        return 128 + signals[0]
    return 1 if tally.failed or failed_before else 0


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
