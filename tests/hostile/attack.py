"""Sends the corpus to the decoder in this process, or to a gateway over HTTP."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import httpx
import psutil

from service.core.errors import ImageTooLarge, InvalidImage, UnsupportedMediaType
from service.vision.decode import decode
from tests.hostile.bombs import BOMBS, SLOW
from tests.hostile.mutations import damaged_images

PIXEL_LIMIT = 50_000_000
DOCUMENTED = (InvalidImage, ImageTooLarge, UnsupportedMediaType)
ANSWERS = {
    (200, ""),
    (400, "invalid_image"),
    (413, "image_too_large"),
    (415, "unsupported_media_type"),
    (422, "image_too_complex"),
    (503, "host_busy"),
}


def bombs() -> Iterator[tuple[str, bytes]]:
    for name, make in {**BOMBS, **SLOW}.items():
        yield f"bomb: {name}", make()


def corpus() -> Iterator[tuple[str, bytes]]:
    """All damaged images and bombs, as (kind, file). Every run gives the same files."""
    yield from damaged_images()
    yield from bombs()


def try_decode(file: bytes, pixel_limit: int = PIXEL_LIMIT) -> str:
    """The code of the error that refuses a file, or "" if it decodes. Other errors are raised."""
    try:
        photo = decode(file, pixel_limit=pixel_limit)
    except DOCUMENTED as error:
        return error.code
    pixels = photo.pixels
    assert pixels.shape == (photo.height, photo.width, 3)
    assert 0 < photo.width * photo.height <= pixel_limit
    return ""


@dataclass
class Tally:
    """The results of the files of one kind. `lost` counts the requests without an answer."""

    tried: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    peak_bytes: int = 0
    lost: int = 0
    unexpected: list[str] = field(default_factory=list)


def send(
    url: str, files: Iterable[tuple[str, bytes]], process: psutil.Process, timeout_s: float = 60
) -> dict[str, Tally]:
    """Post every file and return the results by kind.

    process: the gateway. `peak_bytes` is the maximum of its memory after an answer.
    """
    tallies: dict[str, Tally] = {}
    with httpx.Client(base_url=url, timeout=timeout_s) as client:
        for kind, file in files:
            tally = tallies.setdefault(kind, Tally())
            tally.tried += 1
            started = time.perf_counter()
            try:
                response = client.post(
                    "/v1/emotions", content=file, headers={"Content-Type": "image/jpeg"}, params=QUERY
                )
            except httpx.HTTPError as error:
                tally.lost += 1
                tally.unexpected.append(type(error).__name__)
                continue
            tally.slowest_s = max(tally.slowest_s, time.perf_counter() - started)
            tally.peak_bytes = max(tally.peak_bytes, process.memory_info().rss)
            code = "" if response.status_code == 200 else str(response.json().get("code"))
            tally.answers[f"{response.status_code} {code}".strip()] += 1
            if (response.status_code, code) not in ANSWERS:
                tally.unexpected.append(f"{response.status_code} {code}")
    return tallies


# Every image that decodes runs through the whole pipeline, with all optional parts of an answer.
QUERY = {"include": "landmarks,quality,experts,engagement"}
