"""A recording of three people: its report against the truth, its rate, its memory, and photos beside it."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

from service.assembly import assemble
from service.core.deadline import NEVER
from service.core.query import Query
from service.core.timings import Timings
from service.pipeline.timeline import in_order
from service.settings import Settings
from service.vision.video import read_frames
from tests.bench.figures import SERVED_ROUNDS, Figure, Remark, Row, ratios, summary
from tests.bench.load import arrivals, callers, errors_of, post
from tests.bench.photos import photo
from tests.conftest import encoded
from tests.scenes import FACE, FPS, HEIGHT, WIDTH, Actor, Watcher, frames, video
from tests.system.conftest import Process, running

ANALYSED_FPS = 5.0
PEOPLE = 3
ROUND_S = 8.0
LOAD = 0.7  # of saturation
CALLERS = 8
# Less of a face than this is hidden.
VISIBLE = 0.5
Place = tuple[float, float]


def recording(photos: Mapping[str, bytes], minutes: float) -> Iterator[Row]:
    """photos: one face each, of three people. The third person becomes a fourth photo in the middle."""
    seconds = 60 * minutes
    with TemporaryDirectory() as folder, running() as gateway:
        client = gateway.client
        actors, emotions = _people(client, list(photos.values()), seconds)
        truth = Truth(actors, emotions)
        path = Path(folder) / "made.mp4"
        video(path, truth.frames(seconds), rate=FPS)
        data = path.read_bytes()
        memory: list[float] = []
        per_s, alone_per_s = [], []
        for _ in range(SERVED_ROUNDS):
            alone_per_s.append(asyncio.run(_pipeline_per_s(path)))
            began = time.perf_counter()
            id = _finished(gateway, _sent(client, data), memory)
            per_s.append(truth.frames_seen / (time.perf_counter() - began))
        yield summary("recording", "frames/s", per_s, f"{minutes:g} min of {WIDTH}x{HEIGHT}")
        yield ratios("recording over the pipeline alone", per_s, alone_per_s, "decodes the same video")
        yield summary("resident memory while it works", "MB", memory, f"at last {memory[-1]:.0f}")
        place = f"/v1/recordings/{id}"
        yield from truth.compared(
            client.get(f"{place}/report").raise_for_status().json(),
            client.get(f"{place}/timeline").raise_for_status().json()["frames"],
        )
        yield from _photos_beside(gateway, data)


@dataclass
class Truth:
    """What a report of the scene must say. Times are seconds."""

    actors: list[Actor]
    emotions: list[str]
    visible_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    absent_s: float = 0.0
    frames_seen: int = 0

    def frames(self, seconds: float) -> Iterator[tuple[int, Any]]:
        for number, (time_s, pixels) in enumerate(frames(self.actors, seconds)):
            # The analysis sees every second frame, which stands for its time.
            if number % round(FPS / ANALYSED_FPS) == 0:
                self._see(time_s)
            yield number, pixels

    def _see(self, time_s: float) -> None:
        self.frames_seen += 1
        seen = [actor for actor in range(len(self.actors)) if self._visible(actor, time_s)]
        for actor in seen:
            self.visible_s[self.emotions[actor]] += 1 / ANALYSED_FPS
        self.absent_s += (not seen) / ANALYSED_FPS

    def _visible(self, index: int, time_s: float) -> bool:
        """Whether most of the face is in the picture and in front."""
        actor = self.actors[index]
        place = actor.centre(time_s)
        if place is None:
            return False
        left, right = (1 - FACE[2], 1 - FACE[0]) if actor.mirrored else (FACE[0], FACE[2])
        x = np.linspace(left, right, 20) - 0.5
        y = np.linspace(FACE[1], FACE[3], 20) - 0.5
        across, down = np.meshgrid(place[0] + x * actor.side_px, place[1] + y * actor.side_px)
        shown = (across >= 0) & (across < WIDTH) & (down >= 0) & (down < HEIGHT)
        for other in self.actors[index + 1 :]:
            if (cover := other.centre(time_s)) is not None:
                half = other.side_px / 2
                shown &= (abs(across - cover[0]) > half) | (abs(down - cover[1]) > half)
        return bool(shown.mean() >= VISIBLE)

    def compared(self, report: dict[str, Any], timeline: list[dict[str, Any]]) -> Iterator[Row]:
        seen_s = sum(self.visible_s.values())
        group = report["group"]
        off = {
            emotion: 100 * (group["time_share"].get(emotion, 0) - self.visible_s.get(emotion, 0) / seen_s)
            for emotion in group["time_share"]
        }
        worst = max(off, key=lambda emotion: abs(off[emotion]))
        absent = 100 * (group["absent"] - self.absent_s / report["duration_s"])
        truth = ", ".join(
            f"{emotion} {100 * each / seen_s:.1f} %" for emotion, each in self.visible_s.items()
        )
        yield Remark("largest error of a share", f"{off[worst]:+.2f} points ({worst}); truth: {truth}")
        yield Remark("error of `absent`", f"{absent:+.2f} points")
        yield Remark(
            "seconds of all faces",
            f"{group['seen_s']:.1f}, truth {seen_s:.1f} ({100 * (group['seen_s'] / seen_s - 1):+.1f} %)",
        )
        watcher = Watcher(self.actors)
        for frame in timeline:
            watcher.see(frame["time_s"], [(face["track"], _centre(face["box"])) for face in frame["faces"]])
        yield Remark(
            "numbers",
            f"{len(report['tracks'])} for {PEOPLE} people, one of whom leaves and comes back; "
            f"{sum(watcher.switches.values())} changes of number in {watcher.found} faces, "
            f"{watcher.unmatched} faces are nobody's",
        )


def _centre(box: dict[str, float]) -> Place:
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def _people(client: httpx.Client, photos: list[bytes], seconds: float) -> tuple[list[Actor], list[str]]:
    """Actors, and the emotion that the service finds in the portrait of each."""
    portraits: list[tuple[Image.Image | None, str]] = [_head(client, data) for data in photos]
    portraits = portraits or [(None, "happiness")]  # the astronaut's
    portraits += portraits[-1:] * (PEOPLE + 1 - len(portraits))
    heads, emotions = [head for head, _ in portraits], [emotion for _, emotion in portraits]
    middle_s = seconds / 2
    sitting = _path((370, 240), (0.8 * seconds, seconds))
    leaving = _path((140, 330), (0.3 * seconds, 0.5 * seconds), (0.9 * seconds, seconds))
    return [
        Actor("walking", 130, lambda s: _to_and_fro(s) if s < 0.95 * seconds else None, portrait=heads[0]),
        Actor("leaving", 150, leaving, portrait=heads[1]),
        Actor("sitting", 150, lambda s: sitting(s) if s < middle_s else None, portrait=heads[2]),
        Actor("sitting, later", 150, lambda s: sitting(s) if s >= middle_s else None, portrait=heads[3]),
    ], emotions


def _path(place: Place, *away: tuple[float, float]) -> Callable[[float], Place | None]:
    """Somebody who sits, walks out of the picture to the left within 3 s, and comes back the same way."""

    def centre(time_s: float) -> Place | None:
        if any(begin <= time_s < end for begin, end in away):
            return None
        gone = max(0, *(1 - abs(time_s - edge) / 3 for times in away for edge in times))
        return place[0] - gone * (place[0] + 120), place[1]

    return centre


def _to_and_fro(time_s: float) -> Place:
    """Somebody who walks through the picture behind the others, for ever."""
    return 60 + 520 * abs((time_s / 6) % 2 - 1), 220


def _head(client: httpx.Client, data: bytes) -> tuple[Image.Image, str]:
    """A square around the largest face, and its emotion."""
    answer = client.post("/v1/emotions", content=data, headers={"Content-Type": "application/octet-stream"})
    face = answer.raise_for_status().json()["faces"][0]
    box = face["box"]
    side = box["height"] / (FACE[3] - FACE[1])
    left = box["x"] + box["width"] / 2 - side * (FACE[0] + FACE[2]) / 2
    top = box["y"] - side * FACE[1]
    picture = Image.open(BytesIO(data)).convert("RGB")
    return picture.crop((round(left), round(top), round(left + side), round(top + side))), face["emotion"]


async def _pipeline_per_s(path: Path) -> float:
    """Frames per second of decoding and the pipeline, in this process."""
    settings = Settings()
    async with assemble(settings) as assembly:
        pipeline = assembly.faces

        async def see(pixels: Any) -> Any:
            return await pipeline.run(pixels, Query(turned=False), NEVER, Timings())

        count, began = 0, time.perf_counter()
        with path.open("rb") as file:
            async for _ in in_order(read_frames(file, ANALYSED_FPS, settings.pixel_limit), see):
                count += 1
        return count / (time.perf_counter() - began)


def _sent(client: httpx.Client, data: bytes) -> str:
    answer = client.post(
        "/v1/recordings", content=data, params={"fps": ANALYSED_FPS}, headers={"Content-Type": "video/mp4"}
    )
    id: str = answer.raise_for_status().json()["id"]
    return id


def _finished(gateway: Process, id: str, memory: list[float]) -> str:
    while True:
        memory.append(psutil.Process(gateway.process.pid).memory_info().rss / 1e6)
        state = gateway.client.get(f"/v1/recordings/{id}").raise_for_status().json()
        if state["state"] not in ("queued", "working"):
            assert state["state"] == "done", state
            return id
        time.sleep(0.5)


def _photos_beside(gateway: Process, data: bytes) -> Iterator[Figure]:
    """Photos at 70 % of saturation, with a recording at work and without one, in turns."""
    request = post(f"{gateway.url}/v1/emotions", encoded(photo(640, 480)))
    callers(CALLERS, repeat(request, 100))
    per_s = LOAD * callers(CALLERS, repeat(request), ROUND_S).per_s
    alone, beside, moved = [], [], []
    for _ in range(SERVED_ROUNDS):
        alone.append(arrivals(repeat(request), per_s, ROUND_S))
        with _at_work(gateway.client, data) as frames_done:
            beside.append(arrivals(repeat(request), per_s, ROUND_S))
            moved.append(frames_done() / ROUND_S)
    for share in (0.5, 0.99):
        with_one, without = ([load.latency_ms(share) for load in loads] for loads in (beside, alone))
        yield summary(
            f"photos at {LOAD:.0%} of saturation, p{100 * share:.0f}", "ms", without, f"{per_s:.1f}/s"
        )
        yield ratios(
            f"with a recording over without, p{100 * share:.0f}", with_one, without, errors_of(beside)
        )
    yield summary("the recording beside them", "frames/s", moved)


@contextmanager
def _at_work(client: httpx.Client, data: bytes) -> Iterator[Callable[[], int]]:
    """A recording that is analysed during the block, and how many of its frames are done."""
    place = f"/v1/recordings/{_sent(client, data)}"

    def frames_done() -> int:
        state = client.get(place).raise_for_status().json()
        assert state["state"] == "working", state  # or the video is too short for a round
        count: int = state["frames"]
        return count

    try:
        yield frames_done
    finally:
        client.delete(place).raise_for_status()
