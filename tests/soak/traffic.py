"""The requests of the callers: photos of all kinds, batches, garbage, and requests that callers abort."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

from tests.bench.load import Request, post
from tests.bench.photos import LARGE, montage, photo
from tests.conftest import encoded

BOUNDARY = "soak"
INCLUDES = ("landmarks", "quality", "experts", "engagement", "landmarks,quality,experts,engagement")


@dataclass(frozen=True)
class Case:
    """One request, how a caller sends it, and the expected answer.

    faces: the number of faces in the answer, or in each image of a batch; None for an image with a problem.
    manner: `whole`; `slowly`; `cut`, before the request is complete; `left`, before the answer.
    """

    kind: str
    request: Request
    status: str
    faces: tuple[int | None, ...] | None = None
    manner: str = "whole"
    fresh: bool = False  # on a connection of its own


def form(images: list[bytes], field: str) -> tuple[bytes, str]:
    """A multipart body and its content type."""
    parts = b"".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="photo"\r\n\r\n'.encode()
        + image
        + b"\r\n"
        for image in images
    )
    return parts + f"--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}"


@cache
def _photos() -> list[tuple[bytes, str, int]]:
    """Photos in five formats: the file, its media type, and its number of faces."""
    no_face = np.array(np.linspace(0, 255, 320 * 240 * 3).reshape(240, 320, 3), np.uint8)
    return [
        (encoded(pixels, kind), f"image/{kind.lower()}", faces)
        for pixels, faces in (
            (no_face, 0),
            (photo(320, 240), 1),
            (photo(640, 480), 1),
            (photo(1280, 960), 1),
            (montage(640, 480), 8),
            (montage(1280, 960), 8),
        )
        for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
    ]


class Traffic:
    """An endless mixture of requests. The same seed gives the same mixture."""

    def __init__(self, url: str, seed: int = 0) -> None:
        self._url = url
        self._random = random.Random(seed)
        self._photos = _photos()
        self._large = encoded(photo(*LARGE))
        self._kinds: list[tuple[int, Callable[[], Case]]] = [
            (40, self._raw),
            (8, self._form),
            (8, self._json),
            (6, self._include),
            (4, self._batch),
            (6, self._garbage),
            (6, self._truncated),
            (6, self._bad_parameter),
            (2, self._bad_media_type),
            (3, self._slow),
            (5, self._left_while_sending),
            (5, self._left_while_waiting),
            (1, self._twelve_megapixels),
        ]

    def __iter__(self) -> Iterator[Case]:
        weights, makers = zip(*self._kinds, strict=True)
        while True:
            yield self._random.choices(makers, weights)[0]()

    def _photo(self) -> tuple[bytes, str, int]:
        return self._random.choice(self._photos)

    def _post(self, body: bytes, media_type: str, query: str = "", path: str = "/v1/emotions") -> Request:
        return post(f"{self._url}{path}{query}", body, media_type)

    def _raw(self) -> Case:
        data, media_type, faces = self._photo()
        fresh = self._random.random() < 0.2
        return Case("photo, raw", self._post(data, media_type), "200", (faces,), fresh=fresh)

    def _form(self) -> Case:
        data, _, faces = self._photo()
        return Case("photo, form", self._post(*form([data], "image")), "200", (faces,))

    def _json(self) -> Case:
        data, _, faces = self._photo()
        body = json.dumps({"image": base64.b64encode(data).decode()}).encode()
        return Case("photo, JSON", self._post(body, "application/json"), "200", (faces,))

    def _include(self) -> Case:
        data, media_type, faces = self._photo()
        query = f"?include={self._random.choice(INCLUDES)}"
        return Case("photo with include", self._post(data, media_type, query), "200", (faces,))

    def _twelve_megapixels(self) -> Case:
        return Case("photo of 12 megapixels", self._post(self._large, "image/jpeg"), "200", (1,))

    def _batch(self) -> Case:
        photos = [self._photo() for _ in range(self._random.randint(1, 6))]
        images = [data for data, _, _ in photos]
        faces: list[int | None] = [count for _, _, count in photos]
        place = self._random.randrange(len(images) + 1)
        images.insert(place, self._noise())
        faces.insert(place, None)
        body, media_type = form(images, "images")
        request = self._post(body, media_type, path="/v1/emotions/batch")
        return Case("batch with one bad image", request, "200", tuple(faces))

    def _noise(self) -> bytes:
        # No image format starts with this byte and noise.
        return b"\0" + self._random.randbytes(self._random.randint(1, 20_000))

    def _garbage(self) -> Case:
        return Case("garbage", self._post(self._noise(), "image/jpeg"), "400")

    def _truncated(self) -> Case:
        data, media_type, _ = self._random.choice([p for p in self._photos if p[1] != "image/bmp"])
        data = data[: len(data) * self._random.randint(1, 80) // 100]
        return Case("photo cut short", self._post(data, media_type), "400")

    def _bad_parameter(self) -> Case:
        data, media_type, _ = self._photo()
        query = self._random.choice(
            ("?max_faces=0", "?min_detection_confidence=2", "?include=soul", "?unknown=1", "?detect=perhaps")
        )
        return Case("bad parameter", self._post(data, media_type, query), "422")

    def _bad_media_type(self) -> Case:
        return Case("bad media type", self._post(b"photo", "text/plain"), "415")

    def _slow(self) -> Case:
        data, media_type, faces = self._photo()
        return Case("sent slowly", self._post(data, media_type), "200", (faces,), "slowly", fresh=True)

    def _left_while_sending(self) -> Case:
        data, media_type, _ = self._photo()
        return Case("left while sending", self._post(data, media_type), "", manner="cut", fresh=True)

    def _left_while_waiting(self) -> Case:
        data, media_type, _ = self._photo()
        return Case("left while waiting", self._post(data, media_type), "", manner="left", fresh=True)
