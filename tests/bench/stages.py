"""Every stage of a request alone, in this process on one thread.

Decoding has libjpeg-turbo's plain decode of the same bytes beside it, the detectors facenet-pytorch's MTCNN.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from service.assembly import Engines, make_engines, served_manifests
from service.core.arrays import Photo
from service.core.deadline import NEVER
from service.inference.engine import LocalDetector
from service.settings import Settings
from service.telemetry.metrics import Metrics
from service.vision.align import align_faces
from service.vision.decode import decode
from service.vision.detect import search, shrinkage
from tests.bench.figures import ROUNDS, Figure, Unmeasured, alternating, ratios, spread, timed
from tests.bench.photos import LARGE, enlarged, montage, photo
from tests.conftest import encoded
from tests.reference_mtcnn import Reference
from tests.unit.training.scenes import overlap

MIN_FACE_PX = 32  # the default


def stages() -> Iterator[Figure | Unmeasured]:
    torch.set_num_threads(1)  # facenet-pytorch's
    scenes = {
        "640x480": photo(640, 480),
        "640x480, 8 faces": montage(640, 480),
        "1280x960": photo(1280, 960),
        "{}x{}".format(*LARGE): photo(*LARGE),
        "{}x{}, of 640x480".format(*LARGE): enlarged(photo(640, 480), *LARGE),
    }
    for name, pixels in scenes.items():
        yield from _decoding(name, encoded(pixels))
    yield from _detecting(scenes)
    yield from _classifying()


def _decoding(name: str, jpeg: bytes) -> Iterator[Figure | Unmeasured]:
    pixel_limit = Settings().pixel_limit

    def ours() -> Photo:
        return decode(
            jpeg,
            pixel_limit=pixel_limit,
            shrinkage=lambda width, height: shrinkage(width, height, MIN_FACE_PX),
        )

    note = f"at 1/{ours().scale} of its size"
    if find_spec("simplejpeg") is None:
        yield timed(f"decode {name}", ours, note)
        yield Unmeasured(f"libjpeg-turbo alone, {name}", "simplejpeg is not installed")
        return
    import simplejpeg

    gateway, bare = _in_turn(ours, lambda: simplejpeg.decode_jpeg(jpeg, colorspace="RGB"))
    yield spread(f"decode {name}", "ms", gateway, note)
    yield spread(f"libjpeg-turbo alone, {name}", "ms", bare, "to full size")
    yield ratios(f"decode over libjpeg-turbo alone, {name}", gateway, bare)


def _in_turn(*calls: Callable[[], object]) -> list[list[float]]:
    """Milliseconds of each call in each round; the first round warms up."""
    times = alternating(*(partial(_ms, call) for call in calls), rounds=ROUNDS + 1)
    return [of_call[1:] for of_call in times]


def _ms(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def _detecting(scenes: dict[str, np.ndarray]) -> Iterator[Figure]:
    with asyncio.Runner() as runner:
        detector, with_mtcnn = (_engines(name).detector for name in ("yunet", "yunet_mtcnn"))
        assert isinstance(detector, LocalDetector)
        assert isinstance(with_mtcnn, LocalDetector)
        for each in (detector, with_mtcnn):
            runner.run(each.warm_up())

        def detect(pixels: np.ndarray, min_face_px: float) -> int:
            return len(detector.find(pixels, min_face_px, 0.9).boxes)

        for name, pixels in scenes.items():
            whole = Photo(pixels, pixels.shape[1], pixels.shape[0], 1)
            plan = search(whole, MIN_FACE_PX)
            yield timed(f"search {name}", partial(search, whole, MIN_FACE_PX), "not shrunk before")
            found = detect(plan.image, plan.min_face_px)
            yield timed(
                f"detect {name}",
                partial(detect, plan.image, plan.min_face_px),
                f"min face {MIN_FACE_PX}, {found} found",
            )

        reference = Reference()
        for name, pixels in (
            ("512x512", photo(512, 512)),
            ("1280x960", photo(1280, 960)),
            ("1280x960, 8 faces", montage(1280, 960)),
        ):
            yield from _beside_mtcnn(name, pixels, detector, with_mtcnn, reference)
        runner.run(with_mtcnn.close())
        runner.run(detector.close())


def _beside_mtcnn(
    scene: str, pixels: np.ndarray, detector: LocalDetector, with_mtcnn: LocalDetector, reference: Reference
) -> Iterator[Figure]:
    """The served detector, and the one that answers MTCNN's boxes, beside facenet-pytorch's MTCNN."""
    calls: list[Callable[[], Any]] = [
        partial(search_by, pixels, 40, 0.9)
        for search_by in (detector.find, with_mtcnn.find, reference.detect)
    ]
    expected = calls[2]().boxes
    ours, boxed, theirs = _in_turn(*calls)
    yield spread(f"facenet-pytorch {scene}, min face 40", "ms", theirs)
    for name, call, times in (("yunet", calls[0], ours), ("yunet_mtcnn", calls[1], boxed)):
        shared = overlap(expected, call().boxes).max(axis=1)
        note = f"overlap with its boxes {np.median(shared):.2f}, least {shared.min():.2f} of {len(shared)}"
        yield spread(f"{name} {scene}, min face 40", "ms", times)
        yield ratios(f"{name} over facenet-pytorch {scene}", theirs, times, note)


def _classifying() -> Iterator[Figure]:
    manifest, _ = served_manifests(Settings())
    side = manifest.input.size
    portrait = photo(640, 480)
    eyes = np.array([[[290, 120], [330, 120], [310, 140], [294, 160], [326, 160]]], np.float32)
    yield timed("align 1 face", lambda: align_faces(portrait, eyes, manifest.input.crop, side))
    with asyncio.Runner() as runner:
        classifier = _engines().classifier
        runner.run(classifier.warm_up())
        for count in (1, 2, 4, 8, 16, 32):
            faces = np.random.default_rng(0).integers(0, 256, (count, 3, side, side), np.uint8)
            yield timed(
                f"classify {count}",
                lambda faces=faces: runner.run(classifier.classify(faces, NEVER)),  # type: ignore[misc]
            )
        runner.run(classifier.close())


def _engines(detector: str = "yunet") -> Engines:
    settings = Settings(worker_threads=1, detector=detector)
    return make_engines(settings, *served_manifests(settings), Metrics())
