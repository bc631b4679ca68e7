"""Every stage of a request alone, in this process on one thread, and beside its own limit.

Decoding has libjpeg-turbo's plain decode of the same bytes, the networks the multiply-adds that one thread of
this machine does in a large matrix product, the detectors facenet-pytorch's MTCNN.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from service.inference.embedded import EmbeddedDetector
from torch.jit._fuser import optimized_execution
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from service.arrays import Photo
from service.assembly import make_engines
from service.deadline import NEVER
from service.inference.engine import LocalDetector
from service.manifest import ClassifierManifest, Manifest, read_manifest, verified_model_path
from service.memory import bound_heap
from service.metrics import Metrics
from service.settings import Settings
from service.vision.align import align_faces
from service.vision.decode import decode
from service.vision.detect import search, shrinkage
from tests.bench.figures import ROUNDS, Figure, Unmeasured, converted, ratios, spread, timed
from tests.bench.photos import LARGE, enlarged, montage, photo
from tests.conftest import encoded
from tests.reference_mtcnn import Reference
from tests.unit.training.scenes import overlap
from training.export_detector import export_detector

MIN_FACE_PX = 32  # the default
MATRIX, CHANNELS = 1024, 128  # large enough for the kernels' peak, small enough to stay near the cache


def stages() -> Iterator[Figure | Unmeasured]:
    torch.set_num_threads(1)
    bound_heap()  # as the serving process has it: else fresh memory is what takes the time
    scenes = {
        "640x480": photo(640, 480),
        "640x480, 8 faces": montage(640, 480),
        "1280x960": photo(1280, 960),
        "{}x{}".format(*LARGE): photo(*LARGE),
        "{}x{}, of 640x480".format(*LARGE): enlarged(photo(640, 480), *LARGE),
    }
    peak = _peak()
    yield peak
    for name, pixels in scenes.items():
        yield from _decoding(name, encoded(pixels))
    yield from _detecting(scenes, peak)
    yield from _classifying(peak)


def _peak() -> Figure:
    """What one thread does at best; the shares below are of this.

    By each of torch's two libraries, as BLAS has none of the widest instructions on some machines.
    """
    one, other = torch.rand(MATRIX, MATRIX), torch.rand(MATRIX, MATRIX)
    kernels = torch.rand(CHANNELS, CHANNELS, 3, 3).to(memory_format=torch.channels_last)
    maps = torch.rand(8, CHANNELS, 32, 32).to(memory_format=torch.channels_last)
    rates = [
        converted(
            figure, name, "GMAC/s", lambda ms, macs=macs: macs / 1e6 / ms, "1 thread; the machine's peak"
        )
        for name, call, macs in (
            (f"matrix product {MATRIX}^3", lambda: torch.mm(one, other), MATRIX**3),
            (
                f"3x3 convolution of {CHANNELS} channels",
                lambda: conv2d(maps, kernels, padding=1),
                maps.numel() * CHANNELS * 9,
            ),
        )
        for figure in (timed("", call, calls=5),)
    ]
    return max(rates, key=lambda rate: rate.median)


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
    """Milliseconds of each call in each round, one after the other in every round."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(ROUNDS + 1):
        for call, measured in zip(calls, times, strict=True):
            started = time.perf_counter()
            call()
            if turn > 0:  # the first warms up
                measured.append((time.perf_counter() - started) * 1e3)
    return times


def _detecting(scenes: dict[str, np.ndarray], peak: Figure) -> Iterator[Figure]:
    settings = Settings(worker_threads=1)
    with asyncio.Runner() as runner:
        detector = make_engines(settings, *_manifests(settings), Metrics()).detector
        assert isinstance(detector, LocalDetector)
        runner.run(detector.warm_up())

        def detect(pixels: np.ndarray, min_face_px: float) -> int:
            return len(detector.find(pixels, min_face_px, 0.9).boxes)

        for name, pixels in scenes.items():
            whole = Photo(pixels, pixels.shape[1], pixels.shape[0], 1)
            plan = search(whole, MIN_FACE_PX)
            yield timed(f"search {name}", lambda whole=whole: search(whole, MIN_FACE_PX), "not shrunk before")
            found = detect(plan.image, plan.min_face_px)
            figure = timed(
                f"detect {name}",
                lambda plan=plan: detect(plan.image, plan.min_face_px),
                f"min face {MIN_FACE_PX}, {found} found",
            )
            yield figure
            macs = _macs(settings, _manifests(settings)[1], plan.image, plan.min_face_px)
            yield _share(f"detect {name}, share of peak", macs, figure, peak)

        reference = Reference()
        with TemporaryDirectory() as folder:
            export_detector(Path(folder), "yunet_mtcnn")
            manifest = read_manifest(Path(folder), "yunet_mtcnn")
            with_mtcnn = EmbeddedDetector(verified_model_path(Path(folder), manifest), manifest.sha256, 1)
            runner.run(with_mtcnn.warm_up())
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
    calls = (
        lambda: detector.find(pixels, 40, 0.9),
        lambda: with_mtcnn.find(pixels, 40, 0.9),
        lambda: reference.detect(pixels, 40, 0.9),
    )
    expected = calls[2]().boxes
    ours, boxed, theirs = _in_turn(*calls)
    yield spread(f"facenet-pytorch {scene}, min face 40", "ms", theirs)
    for name, call, times in (("yunet", calls[0], ours), ("yunet_mtcnn", calls[1], boxed)):
        shared = overlap(expected, call().boxes).max(axis=1)
        note = f"overlap with its boxes {np.median(shared):.2f}, least {shared.min():.2f} of {len(shared)}"
        yield spread(f"{name} {scene}, min face 40", "ms", times)
        yield ratios(f"{name} over facenet-pytorch {scene}", theirs, times, note)


def _classifying(peak: Figure) -> Iterator[Figure]:
    settings = Settings(worker_threads=1)
    manifest = _manifests(settings)[0]
    side = manifest.input.size
    portrait = photo(640, 480)
    eyes = np.array([[[290, 120], [330, 120], [310, 140], [294, 160], [326, 160]]], np.float32)
    yield timed("align 1 face", lambda: align_faces(portrait, eyes, manifest.input.crop, side))
    with asyncio.Runner() as runner:
        classifier = make_engines(settings, *_manifests(settings), Metrics()).classifier
        runner.run(classifier.warm_up())
        for count in (1, 2, 4, 8, 16, 32):
            faces = np.random.default_rng(0).integers(0, 256, (count, 3, side, side), np.uint8)
            figure = timed(
                f"classify {count}", lambda faces=faces: runner.run(classifier.classify(faces, NEVER))
            )
            yield figure
            yield _share(f"classify {count}, share of peak", _macs(settings, manifest, faces), figure, peak)
        runner.run(classifier.close())


def _share(name: str, macs: float, figure: Figure, peak: Figure) -> Figure:
    """What the figure's time would be at the peak, over the time it takes."""
    ideal_ms = macs / 1e6 / peak.median
    return converted(figure, name, "%", lambda ms: 100 * ideal_ms / ms, f"{macs / 1e6:.0f} M multiply-adds")


def _macs(settings: Settings, manifest: Manifest, *inputs: np.ndarray | float) -> float:
    """Multiply-adds of the served file's convolutions and matrix products for these inputs."""
    module = torch.jit.load(str(verified_model_path(settings.model_repository, manifest)))
    tensors = [
        torch.from_numpy(given) if isinstance(given, np.ndarray) else torch.tensor([given])
        for given in (*inputs, 0.9)[: 3 if manifest.kind == "detector" else 1]
    ]
    with (
        torch.inference_mode(),
        optimized_execution(False),
        FlopCounterMode(display=False) as counter,
    ):
        module(*tensors)
    return counter.get_total_flops() / 2


def _manifests(settings: Settings) -> tuple[ClassifierManifest, Manifest]:
    classifier = read_manifest(settings.model_repository, settings.classifier)
    assert isinstance(classifier, ClassifierManifest)
    return classifier, read_manifest(settings.model_repository, settings.detector)
