"""A lesson: 30 webcams send a frame every 2 s into one session, whether the last one has its answer or not.

`python -m tests.bench.lesson [MINUTES]`
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from tests.bench.figures import Remark, Row, summary
from tests.bench.photos import photo
from tests.conftest import encoded
from tests.system.conftest import running

PUPILS, GAP_S = 30, 2.0


@dataclass
class Pupil:
    """absent: how many frames have no face."""

    name: str
    sent: int = 0
    absent: int = 0
    kinds: list[str] = field(default_factory=list)
    dropped: int = 0
    ages_ms: list[float] = field(default_factory=list)


def lesson(minutes: float) -> Iterator[Row]:
    with running() as gateway:
        id = gateway.client.post("/v1/sessions", json={"name": "Lesson"}).raise_for_status().json()["id"]
        address = f"{gateway.url.replace('http', 'ws', 1)}/v1/stream?session={id}&participant="
        pupils = asyncio.run(_class(address, minutes * 60))
        found: dict[str, Any] = gateway.client.get(f"/v1/sessions/{id}/report").raise_for_status().json()
    ages_ms = [age for pupil in pupils for age in pupil.ages_ms]
    sent = sum(pupil.sent for pupil in pupils)
    yield summary("age of an answer, all", "ms", ages_ms, f"{sent} frames in {minutes:g} min")
    yield summary("age of an answer, p99", "ms", [float(np.percentile(ages_ms, 99))])
    counted = {each["participant"]: each for each in found["participants"]}
    answered = sum(kind == "frame" for pupil in pupils for kind in pupil.kinds)
    dropped = sum(pupil.dropped for pupil in pupils)
    yield Remark(
        "frames", f"{sent} sent, {answered} answered, {dropped} dropped, {found['group']['images']} counted"
    )
    off = max(abs(counted[pupil.name]["absent"] - pupil.absent / pupil.sent) for pupil in pupils)
    yield Remark("largest error of `absent`", f"{100 * off:.2f} points over {len(counted)} participants")


async def _class(address: str, seconds: float) -> list[Pupil]:
    face, empty = encoded(photo(640, 480)), encoded(np.full((480, 640, 3), 128, np.uint8))
    pupils = [Pupil(f"pupil-{number}") for number in range(PUPILS)]
    await asyncio.gather(*(_attend(pupil, address, seconds, face, empty) for pupil in pupils))
    return pupils


async def _attend(pupil: Pupil, address: str, seconds: float, face: bytes, empty: bytes) -> None:
    random = np.random.default_rng(int(pupil.name.split("-")[1]))
    sent_at: list[float] = []
    async with connect(address + pupil.name, compression=None, proxy=None) as stream:
        reading = asyncio.create_task(_read(stream, pupil, sent_at))
        await asyncio.sleep(random.uniform(0, GAP_S))
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            away = random.random() < 0.2
            sent_at.append(time.perf_counter())
            await stream.send(empty if away else face)
            pupil.sent, pupil.absent = pupil.sent + 1, pupil.absent + away
            await asyncio.sleep(GAP_S)
        await stream.send('{"type": "end"}')
        await reading


async def _read(stream: ClientConnection, pupil: Pupil, sent_at: list[float]) -> None:
    async for message in stream:
        answer = json.loads(message)
        if answer["type"] == "summary":
            return
        pupil.kinds.append(answer["type"])
        pupil.dropped += answer["dropped"]
        pupil.ages_ms.append((time.perf_counter() - sent_at[answer["frame"]]) * 1e3)


if __name__ == "__main__":
    for row in lesson(float(sys.argv[1]) if len(sys.argv) > 1 else 10):
        print(row)
