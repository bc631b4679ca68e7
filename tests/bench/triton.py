"""The gateway's overhead in front of a Triton server: faces/s of the gateway and of a bare gRPC client.

Both saturate the same server with batches of the same size. They alternate.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from itertools import repeat

import numpy as np
import skimage.data
from PIL import Image
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from service.assembly import CALLS_IN_FLIGHT_ON_TRITON
from service.core.manifest import read_manifest
from service.inference.engine import batch_sizes
from service.settings import Settings
from tests.bench.figures import SERVED_ROUNDS, Figure, ratios, summary
from tests.bench.load import Answer, callers, closed_loop, post
from tests.conftest import encoded
from tests.system.conftest import Process, running
from tests.triton.server import triton

SECONDS = 4.0
CONNECTIONS = 160  # more than the number of faces in all batches in flight


def gateway_overhead() -> Iterator[Figure]:
    settings = Settings()
    manifest = read_manifest(settings.model_repository, settings.classifier)
    assert manifest.input is not None
    side = manifest.input.size
    face = Image.fromarray(skimage.data.astronaut()).crop((168, 60, 280, 172)).resize((side, side))
    jpeg = encoded(face)
    with (
        triton(settings.model_repository, torchscript=True) as server,
        running(
            engine="triton", triton_url=server.url, max_in_flight_requests=256, max_images_per_worker=1000
        ) as gateway,
    ):
        request = post(f"{gateway.url}/v1/emotions?detect=false", jpeg)
        callers(CONNECTIONS, repeat(request), SECONDS)
        through, bare, sizes = [], [], []
        for _ in range(SERVED_ROUNDS):
            before = _batches(gateway)
            load = callers(CONNECTIONS, repeat(request), SECONDS)
            assert not load.errors, load.errors
            through.append(load.per_s)
            faces, calls = (b - a for a, b in zip(before, _batches(gateway), strict=True))
            sizes.append(faces / calls)
            size = next(size for size in batch_sizes(settings.max_batch_faces) if size >= round(sizes[-1]))
            faces_per_s = asyncio.run(
                _bare_client(server.url, manifest.name, np.zeros((size, 3, side, side), np.uint8))
            )
            # Only as many faces of a batch count as in the gateway's batches. Both pad batches to `size`.
            bare.append(faces_per_s * sizes[-1] / size)
    note = f"batches of {statistics.median(sizes):.1f} faces"
    yield summary("Triton through the gateway, detect=false", "faces/s", through, note)
    yield summary("Triton, bare gRPC client", "faces/s", bare, note)
    yield ratios("gateway's share of the bare client", through, bare)


def _batches(gateway: Process) -> tuple[float, float]:
    name = "expressnet_batch_size_faces"
    return gateway.metric(f"{name}_sum"), gateway.metric(f"{name}_count")


async def _bare_client(url: str, name: str, faces: np.ndarray) -> float:
    """Faces/s of a client that sends this batch, with as many calls in flight as the gateway."""
    async with InferenceServerClient(url) as client:
        model_input = InferInput("faces__0", list(faces.shape), "UINT8")
        model_input.set_data_from_numpy(faces)

        async def send(_: None) -> Answer:
            started = time.perf_counter()
            await client.infer(name, [model_input])
            return Answer(time.perf_counter() - started)

        load = await closed_loop([send] * CALLS_IN_FLIGHT_ON_TRITON, repeat(None), SECONDS)
    return load.per_s * len(faces)
