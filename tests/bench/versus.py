"""This checkout beside another one, or beside itself with other settings, in alternating rounds.

Each gateway is a process in its own environment. Only one of them is under load at a time; the other idles.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from tests.bench.checkout import Checkout
from tests.bench.figures import ROUNDS, SERVED_ROUNDS, Figure, Remark, Row, alternating, ratios, summary
from tests.bench.latency import SMALL, WARM_UP_REQUESTS, faces_note, lone_requests, requests_per_round
from tests.bench.load import callers, post
from tests.bench.photos import photo, scenes
from tests.bench.process import started_on
from tests.conftest import encoded

CALLERS, SECONDS = 8, 4.0
DETECTOR_SCRIPT = Path(__file__).with_name("detector.py")
MIN_FACE_PX = 16  # in the image of the detector, which is half as large as the photo


def versus(this: Checkout, other: Checkout, photos: Mapping[str, bytes]) -> Iterator[Row]:
    yield Remark(this.name, str(this))
    yield Remark(other.name, str(other))
    with this.serving() as this_gateway, other.serving() as other_gateway:
        urls = (this_gateway.url, other_gateway.url)
        for name, jpeg in {**scenes(), **photos}.items():
            yield from _lone(name, jpeg, urls)
        yield from _closed_loop(urls)
    yield from _detectors(this, other)


def _lone(name: str, jpeg: bytes, urls: tuple[str, str]) -> Iterator[Figure]:
    """Both gateways get the same number of requests in a round."""
    count = max(requests_per_round(lone_requests(url, jpeg, WARM_UP_REQUESTS)) for url in urls)
    loads = alternating(*(partial(lone_requests, url, jpeg, count) for url in urls), rounds=SERVED_ROUNDS)
    medians = [[load.latency_ms(0.5) for load in loads_of_side] for loads_of_side in loads]
    notes = [faces_note(loads_of_side) for loads_of_side in loads]
    yield from _compared(f"lone request {name}, p50", "ms", *medians, notes=notes)


def _closed_loop(urls: tuple[str, str]) -> Iterator[Figure]:
    jpeg = encoded(photo(640, 480))
    requests = [post(f"{url}/v1/emotions", jpeg) for url in urls]
    for request in requests:
        callers(CALLERS, repeat(request, 10 * CALLERS))
    calls = (partial(callers, CALLERS, repeat(request), SECONDS) for request in requests)
    loads = alternating(*calls, rounds=SERVED_ROUNDS)
    rates = [[load.per_s for load in loads_of_side] for loads_of_side in loads]
    notes = [faces_note(loads_of_side) for loads_of_side in loads]
    yield from _compared(f"{SMALL}, {CALLERS} callers", "images/s", *rates, notes=notes)


def _detectors(this: Checkout, other: Checkout) -> Iterator[Figure]:
    """The detector of each checkout, in a process of its own on one core."""
    image = np.array(Image.fromarray(photo(640, 480)).reduce(2))
    with TemporaryDirectory() as folder, ExitStack() as stack:
        file = Path(folder) / "image.npy"
        np.save(file, image)
        calls = [stack.enter_context(_detector_script(side, file)) for side in (this, other)]
        notes = [f"{call():.0f} found" for call in calls]
        times = alternating(*calls, rounds=ROUNDS)
    name = f"detector alone, {image.shape[1]}x{image.shape[0]}, one thread"
    yield from _compared(name, "ms", *times, notes=notes)


@contextmanager
def _detector_script(side: Checkout, file: Path) -> Iterator[Callable[[], float]]:
    """A call that returns the next number from `detector.py`, which runs in the checkout's environment."""
    with (
        started_on({max(os.sched_getaffinity(0))}),
        subprocess.Popen(
            [side.programs / "python", "-P", DETECTOR_SCRIPT, file, str(MIN_FACE_PX)],
            cwd=side.folder,
            env=os.environ | side.settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):

        def next_number() -> float:
            print(file=process.stdin, flush=True)
            assert process.stdout is not None
            return float(process.stdout.readline())

        yield next_number


def _compared(
    name: str, unit: str, this: Sequence[float], other: Sequence[float], *, notes: Sequence[str]
) -> Iterator[Figure]:
    yield summary(f"{name}: this", unit, this, notes[0])
    yield summary(f"{name}: other", unit, other, notes[1])
    yield ratios(f"{name}: this over other", this, other)
