"""The detector of a checkout alone: `python -P tests/bench/detector.py IMAGE.npy MIN_FACE_PX`.

This file runs in the environment of the measured checkout, so it must not import any other file of `tests`.
After the first line of input it prints the number of faces. After each further line it prints the
milliseconds of one call.
"""

from __future__ import annotations

import asyncio
import sys
import time

import numpy as np

from service.assembly import make_engines, served_manifests
from service.inference.engine import LocalDetector
from service.process.memory import bound_heap
from service.settings import Settings
from service.telemetry.metrics import Metrics

CALLS, WARM_UP_CALLS = 40, 20
THRESHOLD = 0.9


async def main(file: str, min_face_px: float) -> None:
    settings = Settings()
    detector = make_engines(settings, *served_manifests(settings), Metrics()).detector
    assert isinstance(detector, LocalDetector)
    await detector.warm_up()
    image = np.load(file)
    for _ in range(WARM_UP_CALLS):
        found = detector.find(image, min_face_px, THRESHOLD)
    sys.stdin.readline()
    print(len(found.boxes), flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        for _ in range(CALLS):
            detector.find(image, min_face_px, THRESHOLD)
        print((time.perf_counter() - started) / CALLS * 1e3, flush=True)


if __name__ == "__main__":
    bound_heap()
    asyncio.run(main(sys.argv[1], float(sys.argv[2])))
