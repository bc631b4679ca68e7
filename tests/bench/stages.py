"""Every stage of a request alone, in this process on one thread.

Decoding is compared with libjpeg-turbo on the same bytes, and the detectors with facenet-pytorch's MTCNN.
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
from tests.bench.figures import ROUNDS, Figure, Unmeasured, alternating, ratios, summary, timed
from tests.bench.photos import LARGE, enlarged, montage, photo
from tests.conftest import encoded
from tests.reference_mtcnn import Reference
from tests.unit.training.scenes import overlap

MIN_FACE_PX = 32  # the default


def stages() -> Iterator[Figure | Unmeasured]:
    torch.set_num_threads(1)  # for facenet-pytorch
    scenes = {
        "640x480": photo(640, 480),
        "640x480, 8 faces": montage(640, 480),
        "1280x960": photo(1280, 960),
        "{}x{}".format(*LARGE): photo(*LARGE),
        "{}x{}, enlarged from 640x480".format(*LARGE): enlarged(photo(640, 480), *LARGE),
    }
    for name, pixels in scenes.items():
        yield from _decoding(name, encoded(pixels))
    yield from _detecting(scenes)
    yield from _classifying()


def _decoding(name: str, jpeg: bytes) -> Iterator[Figure | Unmeasured]:
    pixel_limit = Settings().pixel_limit

    def service_decode() -> Photo:
        return decode(
            jpeg,
            pixel_limit=pixel_limit,
            shrinkage=lambda width, height: shrinkage(width, height, MIN_FACE_PX),
        )

    note = f"at 1/{service_decode().scale} of its size"
    if find_spec("simplejpeg") is None:
        yield timed(f"decode {name}", service_decode, note)
        yield Unmeasured(f"libjpeg-turbo alone, {name}", "simplejpeg is not installed")
        return
    import simplejpeg

    service_ms, libjpeg_ms = _alternating_ms(
        service_decode, lambda: simplejpeg.decode_jpeg(jpeg, colorspace="RGB")
    )
    yield summary(f"decode {name}", "ms", service_ms, note)
    yield summary(f"libjpeg-turbo alone, {name}", "ms", libjpeg_ms, "to full size")
    yield ratios(f"decode over libjpeg-turbo alone, {name}", service_ms, libjpeg_ms)


def _alternating_ms(*calls: Callable[[], object]) -> list[list[float]]:
    """Milliseconds of each call in each round; the first round warms up."""
    times = alternating(*(partial(_ms, call) for call in calls), rounds=ROUNDS + 1)
    return [times_of_call[1:] for times_of_call in times]


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
            yield timed(f"search {name}", partial(search, whole, MIN_FACE_PX), "decoded at full size")
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
            yield from _compared_with_mtcnn(name, pixels, detector, with_mtcnn, reference)
        runner.run(with_mtcnn.close())
        runner.run(detector.close())


def _compared_with_mtcnn(
    scene: str, pixels: np.ndarray, detector: LocalDetector, with_mtcnn: LocalDetector, reference: Reference
) -> Iterator[Figure]:
    """The detectors `yunet` and `yunet_mtcnn`, compared with facenet-pytorch's MTCNN."""
    calls: list[Callable[[], Any]] = [
        partial(find, pixels, 40, 0.9) for find in (detector.find, with_mtcnn.find, reference.detect)
    ]
    expected = calls[2]().boxes
    yunet_ms, yunet_mtcnn_ms, facenet_ms = _alternating_ms(*calls)
    yield summary(f"facenet-pytorch {scene}, min face 40", "ms", facenet_ms)
    for name, call, times_ms in (("yunet", calls[0], yunet_ms), ("yunet_mtcnn", calls[1], yunet_mtcnn_ms)):
        overlaps = overlap(expected, call().boxes).max(axis=1)
        note = (
            f"overlap with facenet-pytorch's boxes: median {np.median(overlaps):.2f}, "
            f"min {overlaps.min():.2f} of {len(overlaps)}"
        )
        yield summary(f"{name} {scene}, min face 40", "ms", times_ms)
        yield ratios(f"{name} over facenet-pytorch {scene}", facenet_ms, times_ms, note)


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
