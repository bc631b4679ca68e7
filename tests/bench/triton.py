"""What the gateway costs before a Triton server: faces/s through it against a bare gRPC client's.

Both ask the same server for the same batches, in turn, at saturation; the load comes from this process, over
raw sockets, so that little of the machine goes into asking.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import skimage.data
from PIL import Image
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from service.app import CALLS_IN_FLIGHT_ON_TRITON
from service.inference.batcher import batch_sizes
from service.manifest import read_manifest
from service.settings import Settings
from tests.bench.figures import Figure
from tests.conftest import encoded
from tests.system.conftest import Process, running
from tests.triton.server import triton

ROUNDS, SECONDS = 5, 4.0
CONNECTIONS = 160  # more than the batches in flight hold


def gateway_overhead() -> Iterator[Figure]:
    settings = Settings()
    manifest = read_manifest(settings.model_repository, settings.classifier)
    assert manifest.input is not None
    side = manifest.input.size
    face = Image.fromarray(skimage.data.astronaut()).crop((168, 60, 280, 172)).resize((side, side))
    jpeg = encoded(face)
    with (
        triton(settings.model_repository) as server,
        running(engine="triton", triton_url=server.url, max_in_flight_requests=256) as gateway,
    ):
        asyncio.run(_through_gateway(gateway.url, jpeg))
        through, bare, sizes = [], [], []
        for _ in range(ROUNDS):
            before = _batches(gateway)
            through.append(asyncio.run(_through_gateway(gateway.url, jpeg)))
            faces, calls = (b - a for a, b in zip(before, _batches(gateway), strict=True))
            sizes.append(faces / calls)
            size = next(size for size in batch_sizes(settings.max_batch_faces) if size >= round(sizes[-1]))
            faces_per_s = asyncio.run(
                _bare(server.url, manifest.name, np.zeros((size, 3, side, side), np.uint8))
            )
            # Its batches hold as many faces as the gateway's did; the rest is padding on both sides.
            bare.append(faces_per_s * sizes[-1] / size)
    note = f"batches of {statistics.median(sizes):.1f} faces"
    yield _rate("Triton through the gateway, detect=false", through, note)
    yield _rate("Triton, bare gRPC client", bare, note)
    shares = [one / other for one, other in zip(through, bare, strict=True)]
    yield Figure(
        "gateway's share of the bare client", "x", statistics.median(shares), min(shares), max(shares)
    )


def _rate(name: str, rates: list[float], note: str) -> Figure:
    return Figure(name, "faces/s", statistics.median(rates), min(rates), max(rates), note)


def _batches(gateway: Process) -> tuple[float, float]:
    name = "expressnet_batch_size_faces"
    return gateway.metric(f"{name}_sum"), gateway.metric(f"{name}_count")


async def _saturated(callers: list[Callable[[], Coroutine[Any, Any, int]]]) -> float:
    """Faces/s of callers that each ask again as soon as they are answered."""
    until = time.perf_counter() + SECONDS

    async def keep_asking(ask: Callable[[], Coroutine[Any, Any, int]]) -> int:
        faces = 0
        while time.perf_counter() < until:
            faces += await ask()
        return faces

    started = time.perf_counter()
    answered = await asyncio.gather(*(keep_asking(ask) for ask in callers))
    return sum(answered) / (time.perf_counter() - started)


async def _through_gateway(url: str, jpeg: bytes) -> float:
    address = urlsplit(url)
    request = (
        f"POST /v1/emotions?detect=false HTTP/1.1\r\nHost: bench\r\nContent-Type: image/jpeg\r\n"
        f"Content-Length: {len(jpeg)}\r\n\r\n"
    ).encode() + jpeg

    async def caller() -> Callable[[], Coroutine[Any, Any, int]]:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)

        async def ask() -> int:
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert head.startswith(b"http/1.1 200"), head
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
            await reader.readexactly(length)
            return 1

        return ask

    return await _saturated([await caller() for _ in range(CONNECTIONS)])


async def _bare(url: str, name: str, faces: np.ndarray) -> float:
    async with InferenceServerClient(url) as client:
        given = InferInput("faces__0", list(faces.shape), "UINT8")
        given.set_data_from_numpy(faces)

        async def ask() -> int:
            answer = await client.infer(name, [given])
            return len(answer.as_numpy("probabilities__0"))

        return await _saturated([ask] * CALLS_IN_FLIGHT_ON_TRITON)
