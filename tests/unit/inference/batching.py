"""A running batcher with a scripted classifier, closed and checked at the end."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from service.core.arrays import Classification, Faces
from service.core.deadline import NEVER
from service.inference.batcher import Batcher, BatcherEvents, BatcherLimits
from tests.fake_engine import FakeClassifier

LONG_S = 60.0  # longer than any test may take
TEST_LIMIT_S = 10.0


def faces(*brightness: int, side: int = 4) -> Faces:
    """One flat face for each value. The answer of the fake classifier differs for each brightness."""
    return np.stack([np.full((3, side, side), value, np.uint8) for value in brightness])


def brightness_of(result: tuple[Classification, float]) -> list[int]:
    """The brightness of each face, computed from its row of the answer."""
    happiness = result[0].probabilities[:, 1]
    assert result[0].gates.shape == (len(happiness), 2, 4)
    return [round(float(share)) for share in (happiness - 0.6) / 0.4 * 255]


@dataclass
class Rig:
    """A running batcher, with the sizes of batches and the depths of the queue that it reported."""

    batcher: Batcher
    sizes: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)

    def submit(self, *brightness: int) -> asyncio.Task[tuple[Classification, float]]:
        return asyncio.create_task(self.batcher.classify(faces(*brightness), NEVER))


@asynccontextmanager
async def batching(
    classifier: FakeClassifier,
    *,
    batch: int = 8,
    queue: int = 64,
    delay_s: float = 0.0,
    calls: int = 1,
    images_in_detection: bool = True,
) -> AsyncIterator[Rig]:
    """Close the batcher at the end, and check that no face and no unhandled error remains.

    images_in_detection: whether other images are in detection all the time, so that batches wait for faces.
    """
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unhandled.append(context))
    sizes: list[int] = []
    depths: list[int] = []
    limits = BatcherLimits(batch, queue, delay_s, calls)
    rig = Rig(Batcher(classifier, limits, BatcherEvents(sizes.append, depths.append)), sizes, depths)
    rig.batcher.start()
    async with asyncio.timeout(TEST_LIMIT_S):
        with rig.batcher.image_in_detection() if images_in_detection else nullcontext():
            yield rig
            await rig.batcher.close()
    await settle()
    gc.collect(1)
    assert depths[-1:] in ([], [0])
    assert min(depths, default=0) == 0
    assert max(sizes, default=0) <= batch
    assert unhandled == []


async def settle() -> None:
    """Let every task run that can run now."""
    for _ in range(20):
        await asyncio.sleep(0)
