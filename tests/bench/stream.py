"""The latency of a stream's frames, compared with requests for the same photos, without other load."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Iterator

import httpx
import numpy as np
from websockets.sync.client import ClientConnection, connect

from tests.bench.figures import SERVED_ROUNDS, Figure, ratios, summary
from tests.bench.photos import montage, photo
from tests.conftest import encoded
from tests.system.conftest import running

CALLS = 20
SCENES = {"640x480, 1 face": photo(640, 480), "640x480, 8 faces": montage(640, 480)}


def stream() -> Iterator[Figure]:
    """Frames and requests alternate. Each waits for the previous answer. The settings are the defaults."""
    with running() as gateway:
        address = f"{gateway.url.replace('http', 'ws', 1)}/v1/stream"
        for name, pixels in SCENES.items():
            jpeg = encoded(pixels)
            frames, requests = [], []
            with connect(address, compression=None, proxy=None) as connection:
                for _ in range(SERVED_ROUNDS + 1):
                    pairs_s = [
                        (_frame_s(connection, jpeg), _request_s(gateway.client, jpeg)) for _ in range(CALLS)
                    ]
                    frame_ms, request_ms = np.median(pairs_s, axis=0) * 1e3
                    frames.append(float(frame_ms))
                    requests.append(float(request_ms))
            # The first round warms up.
            yield summary(f"frame of a stream {name}, p50", "ms", frames[1:])
            yield summary(f"request {name}, p50", "ms", requests[1:], "alternating with the frames")
            yield ratios(f"frame over request, {name}", frames[1:], requests[1:])
        yield from _without_waiting(address)


def _frame_s(connection: ClientConnection, jpeg: bytes) -> float:
    started = time.perf_counter()
    connection.send(jpeg)
    connection.recv()
    return time.perf_counter() - started


def _request_s(client: httpx.Client, jpeg: bytes) -> float:
    started = time.perf_counter()
    client.post("/v1/emotions", content=jpeg, headers={"Content-Type": "image/jpeg"}).raise_for_status()
    return time.perf_counter() - started


def _without_waiting(address: str) -> Iterator[Figure]:
    """A camera that sends 60 frames a second and does not wait for answers."""
    jpeg = encoded(SCENES["640x480, 1 face"])
    summaries: list[dict[str, float]] = []
    ages: list[float] = []
    with connect(f"{address}?clock=sent", compression=None, proxy=None) as connection:

        def read() -> None:
            for message in connection:
                answer = json.loads(message)
                if answer["type"] == "summary":
                    summaries.append(answer)
                else:
                    ages.append((time.perf_counter() - answer["time_s"]) * 1e3)

        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(300):
            connection.send(struct.pack(">d", time.perf_counter()) + jpeg)
            time.sleep(1 / 60)
        connection.send('{"type": "end"}')
        reader.join()
    counts = {name: summaries[0][name] for name in ("frames", "answered", "dropped")}
    yield summary("age of an answer at 60 frames a second", "ms", ages, str(counts))
