"""`expressnet predict` on a thousand photos, beside the pipeline alone on the same photos.

The pipeline has the photos in memory and drops its answers; the command reads files and writes rows. Both
have equally many photos in flight. They alternate every few photos, so that a slow minute slows both.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from service.api.schemas import EmotionQuery, ModelName
from service.assembly import Assembly, assemble
from service.cli.predict import patient
from service.core.deadline import NEVER
from service.core.manifest import EMOTIONS
from service.core.query import Query
from service.core.timings import Timings
from service.predict.forms import Form
from service.predict.ledger import Ledger
from service.predict.rows import RunInfo
from service.predict.run import IMAGES_PER_THREAD, Options, Predictor
from service.predict.sources import images
from service.settings import Settings
from tests.bench.figures import Figure, ratios, summary
from tests.bench.photos import mixed

PHOTOS = 1_000
DIFFERENT_PHOTOS = 125
PHOTOS_PER_TURN = 50
COMMAND = "from service.cli import main; main()"


def predict() -> Iterator[Figure]:
    what = f"{PHOTOS} photos of {DIFFERENT_PHOTOS} sizes, one in 32 of 12 megapixels"
    with TemporaryDirectory() as name:
        folder = Path(name)
        # Photos next to each other differ in size, as in a folder of a user.
        for number, jpeg in enumerate(islice(cycle(list(mixed(DIFFERENT_PHOTOS))), PHOTOS)):
            path = folder / "photos" / f"{number // PHOTOS_PER_TURN:02}" / f"{number:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg)
        alone, command = asyncio.run(_alternating_turns(folder))
        yield summary("pipeline alone", "images/s", [PHOTOS_PER_TURN / each.wall_s for each in alone], what)
        yield summary(
            "predict, files to JSON lines",
            "images/s",
            [PHOTOS_PER_TURN / each.wall_s for each in command],
            "models warm",
        )
        yield ratios(
            "predict over the pipeline alone, rate",
            [1 / each.wall_s for each in command],
            [1 / each.wall_s for each in alone],
            f"turns of {PHOTOS_PER_TURN} photos",
        )
        yield ratios(
            "predict over the pipeline alone, CPU time",
            [each.cpu_s for each in command],
            [each.cpu_s for each in alone],
            f"turns of {PHOTOS_PER_TURN} photos",
        )
        yield from _whole_command(folder)


class _Stopwatch:
    """Wall time and CPU time from the start to `end`."""

    def __init__(self) -> None:
        self.wall_s, self.cpu_s = time.perf_counter(), time.process_time()

    def end(self) -> _Stopwatch:
        self.wall_s, self.cpu_s = time.perf_counter() - self.wall_s, time.process_time() - self.cpu_s
        return self


async def _alternating_turns(folder: Path) -> tuple[list[_Stopwatch], list[_Stopwatch]]:
    """The times of each turn: of the pipeline alone, and of the command's own loop."""
    settings = patient(Settings())
    run = RunInfo(
        ModelName(name=settings.classifier, version="1", prior=settings.prior), EmotionQuery(), EMOTIONS
    )
    times: tuple[list[_Stopwatch], list[_Stopwatch]] = [], []
    async with assemble(settings) as assembly:
        predictor = Predictor(
            assembly,
            Options(EmotionQuery(), settings.worker_threads, settings.body_limit_bytes, settings.pixel_limit),
        )
        with Ledger(folder / "turns.jsonl", Form.jsonl, run) as ledger:

            async def write(part: Path) -> None:
                async for row in predictor.rows(images([str(part)]), ledger.holds):
                    assert row.seen is not None, row
                    ledger.write(row)

            for number, part in enumerate(sorted((folder / "photos").iterdir())):
                in_memory = [path.read_bytes() for path in sorted(part.iterdir())]
                calls: list[Callable[[], Awaitable[None]]] = [
                    partial(_pipeline_alone, assembly, in_memory),
                    partial(write, part),
                ]
                # The order changes each time, so that neither gains from caches that the other has filled.
                for which in (0, 1) if number % 2 else (1, 0):
                    stopwatch = _Stopwatch()
                    await calls[which]()
                    times[which].append(stopwatch.end())
    return times


async def _pipeline_alone(assembly: Assembly, photos: list[bytes]) -> None:
    remaining = iter(photos)

    async def run() -> None:
        for jpeg in remaining:
            await assembly.faces.run(jpeg, Query(), NEVER, Timings())

    await asyncio.gather(*(run() for _ in range(IMAGES_PER_THREAD * Settings().worker_threads)))


def _whole_command(folder: Path) -> Iterator[Figure]:
    """The command in a process of its own, from exec to exit."""
    output = folder / "rows.jsonl"
    began = time.perf_counter()
    arguments = ["predict", str(folder / "photos"), "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], check=True, capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    assert output.read_bytes().count(b"\n") == PHOTOS
    reported = re.search(r"\(([\d.]+) images/s\)", done.stderr)
    assert reported is not None, done.stderr
    yield summary("expressnet predict, as reported", "images/s", [float(reported[1])], "once; models warm")
    yield summary("expressnet predict, from exec to exit", "images/s", [PHOTOS / seconds], "once")
