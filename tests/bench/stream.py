"""One stream that has the service to itself, and the same photos as requests: what a frame costs more."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Iterator

import httpx
import numpy as np
from websockets.sync.client import ClientConnection, connect

from tests.bench.figures import SERVED_ROUNDS, Figure, ratios, spread
from tests.bench.photos import montage, photo
from tests.conftest import encoded
from tests.system.conftest import running

CALLS = 20
SCENES = {"640x480, 1 face": photo(640, 480), "640x480, 8 faces": montage(640, 480)}


def stream() -> Iterator[Figure]:
    """Frames and requests in turn, the next when the last is answered; with default settings."""
    with running() as gateway:
        address = f"{gateway.url.replace('http', 'ws', 1)}/v1/stream"
        for name, pixels in SCENES.items():
            jpeg = encoded(pixels)
            frames, requests = [], []
            with connect(address, compression=None, proxy=None) as opened:
                for _ in range(SERVED_ROUNDS + 1):
                    pairs = [(_frame(opened, jpeg), _request(gateway.client, jpeg)) for _ in range(CALLS)]
                    of_frames, of_requests = np.median(pairs, axis=0) * 1e3
                    frames.append(float(of_frames))
                    requests.append(float(of_requests))
            # The first round warms up.
            yield spread(f"frame of a stream {name}, p50", "ms", frames[1:])
            yield spread(f"request {name}, p50", "ms", requests[1:], "in turn with the frames")
            yield ratios(f"frame over request, {name}", frames[1:], requests[1:])
        yield from _unpaced(address)


def _frame(opened: ClientConnection, jpeg: bytes) -> float:
    started = time.perf_counter()
    opened.send(jpeg)
    opened.recv()
    return time.perf_counter() - started


def _request(client: httpx.Client, jpeg: bytes) -> float:
    started = time.perf_counter()
    client.post("/v1/emotions", content=jpeg, headers={"Content-Type": "image/jpeg"}).raise_for_status()
    return time.perf_counter() - started


def _unpaced(address: str) -> Iterator[Figure]:
    """A camera of 60 frames a second that waits for nobody."""
    jpeg = encoded(SCENES["640x480, 1 face"])
    answers: list[dict[str, float]] = []
    ages: list[float] = []
    with connect(f"{address}?clock=sent", compression=None, proxy=None) as opened:

        def read() -> None:
            for message in opened:
                answer = json.loads(message)
                if answer["type"] == "summary":
                    answers.append(answer)
                else:
                    ages.append((time.perf_counter() - answer["time_s"]) * 1e3)

        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(300):
            opened.send(struct.pack(">d", time.perf_counter()) + jpeg)
            time.sleep(1 / 60)
        opened.send('{"type": "end"}')
        reader.join()
    counts = {name: answers[0][name] for name in ("frames", "answered", "dropped")}
    yield spread("age of an answer at 60 frames a second", "ms", ages, str(counts))
