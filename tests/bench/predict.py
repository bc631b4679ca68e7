"""A thousand photos by `expressnet predict`, beside the same photos through the pipeline alone.

The pipeline has them in memory and throws its answers away; the command reads files and writes rows. Both ask
for as many at a time, and take turns every few photos, so that a slow minute slows both.
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
from tests.bench.figures import Figure, ratios, spread
from tests.bench.photos import mixed

PHOTOS = 1_000
DIFFERENT = 125
TURN = 50  # photos
COMMAND = "from service.cli import main; main()"


def predict() -> Iterator[Figure]:
    what = f"{PHOTOS} photos of {DIFFERENT} sizes, one in 32 of 12 megapixels"
    with TemporaryDirectory() as name:
        folder = Path(name)
        # One after the other differs in size, as photos of a folder do.
        for number, jpeg in enumerate(islice(cycle(list(mixed(DIFFERENT))), PHOTOS)):
            path = folder / "photos" / f"{number // TURN:02}" / f"{number:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg)
        alone, command = asyncio.run(_in_turn(folder))
        yield spread("pipeline alone", "images/s", [TURN / each.wall_s for each in alone], what)
        yield spread(
            "predict, files to JSON lines",
            "images/s",
            [TURN / each.wall_s for each in command],
            "models warm",
        )
        yield ratios(
            "predict over the pipeline alone, rate",
            [1 / each.wall_s for each in command],
            [1 / each.wall_s for each in alone],
            f"turns of {TURN} photos",
        )
        yield ratios(
            "predict over the pipeline alone, CPU time",
            [each.cpu_s for each in command],
            [each.cpu_s for each in alone],
            f"turns of {TURN} photos",
        )
        yield from _process(folder)


class _Spent:
    def __init__(self) -> None:
        self.wall_s, self.cpu_s = time.perf_counter(), time.process_time()

    def end(self) -> _Spent:
        self.wall_s, self.cpu_s = time.perf_counter() - self.wall_s, time.process_time() - self.cpu_s
        return self


async def _in_turn(folder: Path) -> tuple[list[_Spent], list[_Spent]]:
    """What each turn of the pipeline alone and of the command's own loop took."""
    settings = patient(Settings())
    run = RunInfo(ModelName(name=settings.classifier, version="1"), EmotionQuery(), EMOTIONS)
    spent: tuple[list[_Spent], list[_Spent]] = [], []
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
                    partial(_alone, assembly, in_memory),
                    partial(write, part),
                ]
                # Who begins changes, so that neither gains from what the other left in a cache.
                for which in (0, 1) if number % 2 else (1, 0):
                    began = _Spent()
                    await calls[which]()
                    spent[which].append(began.end())
    return spent


async def _alone(assembly: Assembly, photos: list[bytes]) -> None:
    rest = iter(photos)

    async def ask() -> None:
        for jpeg in rest:
            await assembly.faces.run(jpeg, Query(), NEVER, Timings())

    await asyncio.gather(*(ask() for _ in range(IMAGES_PER_THREAD * Settings().worker_threads)))


def _process(folder: Path) -> Iterator[Figure]:
    """The whole command, as it is typed."""
    output = folder / "rows.jsonl"
    began = time.perf_counter()
    arguments = ["predict", str(folder / "photos"), "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], check=True, capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    assert output.read_bytes().count(b"\n") == PHOTOS
    told = re.search(r"\(([\d.]+) images/s\)", done.stderr)
    assert told is not None, done.stderr
    yield spread("expressnet predict, as it tells", "images/s", [float(told[1])], "once; models warm")
    yield spread("expressnet predict, from exec to exit", "images/s", [PHOTOS / seconds], "once")
