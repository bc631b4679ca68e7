"""This checkout beside another one, or beside itself with other settings, in alternating rounds.

Both serve as processes of their own environments. Only one of them is under load at a time; the other idles.
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
from tests.bench.figures import ROUNDS, SERVED_ROUNDS, Figure, Remark, Row, alternating, ratios, spread
from tests.bench.latency import SMALL, WARM_UP, found, lone, requests_of_round
from tests.bench.load import callers, post
from tests.bench.photos import photo, scenes
from tests.bench.process import started_on
from tests.conftest import encoded

CALLERS, SECONDS = 8, 4.0
SEARCHING = Path(__file__).with_name("searching.py")
SEARCHED_FACE_PX = 16  # in the searched image; 32 in the photo


def versus(this: Checkout, other: Checkout, photos: Mapping[str, bytes]) -> Iterator[Row]:
    yield Remark(this.name, str(this))
    yield Remark(other.name, str(other))
    with this.serving() as ours, other.serving() as theirs:
        urls = (ours.url, theirs.url)
        for name, jpeg in {**scenes(), **photos}.items():
            yield from _lone(name, jpeg, urls)
        yield from _closed_loop(urls)
    yield from _detectors(this, other)


def _lone(name: str, jpeg: bytes, urls: tuple[str, str]) -> Iterator[Figure]:
    """Both get as many requests in a round."""
    count = max(requests_of_round(lone(url, jpeg, WARM_UP)) for url in urls)
    loads = alternating(*(partial(lone, url, jpeg, count) for url in urls), rounds=SERVED_ROUNDS)
    medians = [[load.latency_ms(0.5) for load in of_side] for of_side in loads]
    yield from _beside(
        f"lone request {name}, p50", "ms", *medians, notes=[found(of_side) for of_side in loads]
    )


def _closed_loop(urls: tuple[str, str]) -> Iterator[Figure]:
    jpeg = encoded(photo(640, 480))
    requests = [post(f"{url}/v1/emotions", jpeg) for url in urls]
    for request in requests:
        callers(CALLERS, repeat(request, 10 * CALLERS))
    calls = (partial(callers, CALLERS, repeat(request), SECONDS) for request in requests)
    loads = alternating(*calls, rounds=SERVED_ROUNDS)
    rates = [[load.per_s for load in of_side] for of_side in loads]
    notes = [found(of_side) for of_side in loads]
    yield from _beside(f"{SMALL}, {CALLERS} callers", "images/s", *rates, notes=notes)


def _detectors(this: Checkout, other: Checkout) -> Iterator[Figure]:
    """Each in a process that has one core."""
    image = np.array(Image.fromarray(photo(640, 480)).reduce(2))
    with TemporaryDirectory() as folder, ExitStack() as stack:
        file = Path(folder) / "image.npy"
        np.save(file, image)
        calls = [stack.enter_context(_searching(side, file)) for side in (this, other)]
        notes = [f"{call():.0f} found" for call in calls]
        times = alternating(*calls, rounds=ROUNDS)
    name = f"detector alone, {image.shape[1]}x{image.shape[0]}, one thread"
    yield from _beside(name, "ms", *times, notes=notes)


@contextmanager
def _searching(side: Checkout, file: Path) -> Iterator[Callable[[], float]]:
    """The next number that the checkout's detector reports: see `searching.py`."""
    with (
        started_on({max(os.sched_getaffinity(0))}),
        subprocess.Popen(
            [side.programs / "python", "-P", SEARCHING, file, str(SEARCHED_FACE_PX)],
            cwd=side.folder,
            env=os.environ | side.settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):

        def reported() -> float:
            print(file=process.stdin, flush=True)
            assert process.stdout is not None
            return float(process.stdout.readline())

        yield reported


def _beside(
    name: str, unit: str, this: Sequence[float], other: Sequence[float], *, notes: Sequence[str]
) -> Iterator[Figure]:
    yield spread(f"{name}: this", unit, this, notes[0])
    yield spread(f"{name}: other", unit, other, notes[1])
    yield ratios(f"{name}: this over other", this, other)
