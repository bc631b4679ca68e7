"""Videos of people who move. All are the same portrait, mirrored or tinted so that each looks different."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path

import av
import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT, FPS = 640, 480, 10
HEAD = (110, 10, 320, 220)  # xyxy px of the portrait: a square around the head
# The face in that square: left, top, right, bottom, as fractions of the side.
FACE = (0.34, 0.24, 0.75, 0.77)


@dataclass(frozen=True)
class Actor:
    """A person in a scene. Later actors of a scene cover earlier ones.

    centre: the centre of the head at each time, in pixels, or None while the person is absent. portrait: a
    square around the head, with the face at `FACE`; by default the astronaut's.
    """

    name: str
    side_px: int
    centre: Callable[[float], tuple[float, float] | None]
    mirrored: bool = False
    tint: tuple[float, float, float] = (1, 1, 1)
    portrait: Image.Image | None = None
    head: Image.Image = field(init=False)

    def __post_init__(self) -> None:
        portrait = self.portrait or Image.fromarray(skimage.data.astronaut()).crop(HEAD)
        head = portrait.resize((self.side_px, self.side_px))
        if self.mirrored:
            head = head.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tinted = np.clip(np.asarray(head) * np.array(self.tint), 0, 255).astype(np.uint8)
        object.__setattr__(self, "head", Image.fromarray(tinted))

    def face(self, time_s: float) -> tuple[float, float] | None:
        """The centre of the face in pixels, or None while the person is absent."""
        place = self.centre(time_s)
        if place is None:
            return None
        across = (FACE[0] + FACE[2]) / 2 - 0.5
        return (
            place[0] + (-across if self.mirrored else across) * self.side_px,
            place[1] + ((FACE[1] + FACE[3]) / 2 - 0.5) * self.side_px,
        )


def moving(
    start: tuple[float, float], speed: tuple[float, float], *times: tuple[float, float]
) -> Callable[[float], tuple[float, float] | None]:
    """A path at constant speed, in px/s. If `times` are given, the person is absent at all other times."""

    def centre(time_s: float) -> tuple[float, float] | None:
        if times and not any(begin <= time_s < end for begin, end in times):
            return None
        return start[0] + speed[0] * time_s, start[1] + speed[1] * time_s

    return centre


def crowd() -> list[Actor]:
    """Five people: two cross, one leaves at the side, one is absent for half a second, and one stays."""
    return [
        Actor("far", 120, moving((60, 250), (70, 0)), tint=(0.8, 0.9, 1.1)),
        Actor("near", 170, moving((580, 260), (-70, 0)), mirrored=True),
        Actor("leaving", 110, moving((460, 80), (60, 0)), tint=(1.1, 0.9, 0.8)),
        Actor("blinking", 110, moving((200, 80), (8, 0), (0, 3), (3.5, 8)), mirrored=True),
        Actor("staying", 120, moving((330, 410), (5, 0)), tint=(0.9, 1, 0.9)),
    ]


def one_person() -> list[Actor]:
    """One person close to the camera, who hardly moves."""
    return [Actor("one", 300, moving((320, 240), (5, 0)))]


def frames(
    actors: list[Actor], seconds: float, fps: float = FPS
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """For each frame the seconds since the first frame, and the pixels, uint8 [HEIGHT,WIDTH,3]."""
    room = Image.fromarray(skimage.data.coffee()).resize((40, 30)).resize((WIDTH, HEIGHT))
    for number in range(round(seconds * fps)):
        time_s = number / fps
        scene = room.copy()
        for actor in actors:
            place = actor.centre(time_s)
            if place is not None:
                scene.paste(
                    actor.head, (round(place[0] - actor.side_px / 2), round(place[1] - actor.side_px / 2))
                )
        yield time_s, np.array(scene)


@dataclass
class Watcher:
    """Compares the track numbers of faces with the actors in their places.

    numbers: the track numbers of each actor, in the order of the frames.
    """

    actors: list[Actor]
    numbers: dict[str, list[int]] = field(default_factory=dict)
    found: int = 0
    unmatched: int = 0

    def see(self, time_s: float, faces: list[tuple[int, tuple[float, float]]]) -> None:
        """faces: the track number and the centre of each face."""
        for number, centre in faces:
            near = [
                (np.hypot(place[0] - centre[0], place[1] - centre[1]), -order, actor)
                for order, actor in enumerate(self.actors)
                if (place := actor.face(time_s)) is not None
            ]
            distance_px, _, actor = min(near, default=(np.inf, 0, None))
            if actor is None or distance_px > 0.25 * actor.side_px:
                self.unmatched += 1
                continue
            self.found += 1
            self.numbers.setdefault(actor.name, []).append(number)

    @property
    def switches(self) -> dict[str, int]:
        """How often the track number of each actor changed."""
        return {
            name: sum(one != other for one, other in pairwise(given)) for name, given in self.numbers.items()
        }


def video(
    file: Path,
    frames: Mapping[int, NDArray[np.uint8]] | Iterable[tuple[int, NDArray[np.uint8]]],
    *,
    rate: int = 25,
) -> Path:
    """Write a video of `rate` frames per second. frames: by number. A WebM can be played by Chromium."""
    numbered = iter(frames.items() if isinstance(frames, Mapping) else frames)
    first = next(numbered)
    with av.open(str(file), "w") as container:
        quick = {"deadline": "realtime", "cpu-used": "8"}
        stream = (
            container.add_stream("libvpx", rate=rate, options=quick)
            if file.suffix == ".webm"
            else container.add_stream("mpeg4", rate=rate)
        )
        stream.height, stream.width = first[1].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 4_000_000
        stream.codec_context.time_base = stream.time_base = Fraction(1, rate)
        for number, pixels in chain([first], numbered):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file
