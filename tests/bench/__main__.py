"""`make bench`: where the time of a request goes, as medians of several rounds, and ratios within one run.

Writes a Markdown table to standard output and, with `--json FILE`, the raw figures.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import httpx
import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import nn
from torch.jit._fuser import optimized_execution
from torch.nn import functional

from service.manifest import ClassifierManifest, read_manifest, verified_model_path
from service.settings import Settings
from service.vision.align import align_faces
from service.vision.decode import decode
from service.vision.detect import search
from tests.bench.figures import ROUNDS, Figure, ratio, timed
from tests.bench.triton import gateway_overhead
from tests.conftest import encoded
from tests.reference_mtcnn import Reference
from tests.system.conftest import running
from training.cli import CONFIGS
from training.config import read_config
from training.models import build
from training.models.folding import folded
from training.models.served import ServedClassifier
from training.models.spectral import SameConv2d
from training.repository import script


def photo(width: int, height: int) -> np.ndarray:
    """The astronaut in the middle of a larger scene."""
    scene = Image.fromarray(skimage.data.coffee()).resize((width, height))
    side = min(480, height)
    scene.paste(
        Image.fromarray(skimage.data.astronaut()).resize((side, side)),
        ((width - side) // 2, (height - side) // 2),
    )
    return np.array(scene)


def stages() -> Iterator[Figure]:
    settings = Settings()
    manifest = read_manifest(settings.model_repository, settings.classifier)
    assert isinstance(manifest, ClassifierManifest)
    detector_manifest = read_manifest(settings.model_repository, settings.detector)
    torch.set_num_threads(1)
    detector = torch.jit.load(str(verified_model_path(settings.model_repository, detector_manifest)))
    classifier = torch.jit.load(str(verified_model_path(settings.model_repository, manifest)))

    def detect(pixels: np.ndarray, min_face_px: float) -> tuple[torch.Tensor, ...]:
        with torch.inference_mode(), optimized_execution(False):
            found: tuple[torch.Tensor, ...] = detector(
                torch.from_numpy(pixels), torch.tensor([min_face_px]), torch.tensor([0.9])
            )
        return found

    for width, height in ((640, 480), (1280, 960), (4000, 3000)):
        pixels = photo(width, height)
        jpeg = encoded(pixels)
        size = f"{width}x{height}"
        yield timed(f"decode {size}", lambda jpeg=jpeg: decode(jpeg, pixel_limit=50_000_000))
        yield timed(f"search {size}", lambda pixels=pixels: search(pixels, 32))
        plan = search(pixels, 32)
        yield timed(f"detect {size}", lambda plan=plan: detect(plan.image, plan.min_face_px), "1 thread")

    reference = Reference()
    for width, height in ((512, 512), (1280, 960)):
        pixels = photo(width, height)
        ours = timed(
            f"detect {width}x{height}, min face 40", lambda pixels=pixels: detect(pixels, 40), "1 thread"
        )
        yield ours
        theirs = timed(
            f"facenet-pytorch {width}x{height}, min face 40",
            lambda pixels=pixels: reference.detect(pixels, 40, 0.9),
            "1 thread",
        )
        yield theirs
        yield ratio(f"detector speed-up {width}x{height}", theirs, ours)

    pixels = skimage.data.astronaut()
    _, _, landmarks = detect(pixels, 32)
    yield timed(
        "align 1 face",
        lambda: align_faces(pixels, landmarks.numpy(), manifest.input.crop, manifest.input.size),
    )
    side = manifest.input.size
    for count in (1, 8, 32):
        faces = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
        with torch.inference_mode():
            figure = timed(f"classify {count}", lambda faces=faces: classifier(faces), "1 thread")
        yield figure


class Direct(nn.Module):
    """A "same" convolution as torch computes it when nothing is known about large kernels."""

    def __init__(self, conv: SameConv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(x, (self.conv.before, self.conv.after, self.conv.before, self.conv.after))
        return functional.conv2d(padded, self.conv.weight, self.conv.bias)


@torch.inference_mode()
def networks() -> Iterator[Figure]:
    """What exact FFT convolutions give, and the compact network beside the paper's. Weights do not matter."""
    torch.set_num_threads(1)
    published = build(read_config(CONFIGS / "expressnet_moe.yaml").network, served=8, auxiliary=0).eval()
    spectral = folded(published)
    direct = copy.deepcopy(published.large)
    for index, module in enumerate(direct):
        if isinstance(module, SameConv2d):
            direct[index] = Direct(module)
    image = torch.rand(1, 3, 224, 224)
    worst = (direct(image) - spectral.large(image)).abs().max() / direct(image).abs().max()
    slow = timed("FE1, direct convolutions", lambda: direct(image), "1 thread, 1 face", calls=1, rounds=3)
    quick = timed("FE1, FFT convolutions", lambda: spectral.large(image), f"relative error {worst:.0e}")
    yield slow
    yield quick
    yield ratio("FE1 speed-up", slow, quick)

    compact = build(read_config(CONFIGS / "expressnet_moe_s.yaml").network, served=8, auxiliary=7).eval()
    scripts = {
        "expressnet_moe": script(ServedClassifier(spectral, 1.0)),
        "expressnet_moe_s": script(ServedClassifier(folded(compact), 1.0)),
    }
    for count in (1, 32):
        figures = []
        for network, served in (
            (published, scripts["expressnet_moe"]),
            (compact, scripts["expressnet_moe_s"]),
        ):
            faces = torch.randint(0, 256, (count, 3, network.size, network.size), dtype=torch.uint8)
            name = "expressnet_moe" if network is published else "expressnet_moe_s"
            figures.append(
                timed(f"{name}, {count} faces", lambda f=faces, s=served: s(f), "1 thread", calls=1)
            )
        yield from figures
        yield ratio(f"compact network's speed-up, {count} faces", *figures)


def http() -> Iterator[Figure]:
    jpeg = encoded(photo(640, 480))
    with running(max_in_flight_requests=256) as gateway, _client(gateway.url) as client:

        def ask(_: int = 0) -> None:
            response = client.post("/v1/emotions", content=jpeg, headers={"Content-Type": "image/jpeg"})
            response.raise_for_status()

        yield timed("HTTP 640x480, one request at a time", ask, "2 processes on one machine", calls=10)
        for concurrency in (8, 64):
            with ThreadPoolExecutor(concurrency) as pool:
                rates = []
                for _ in range(5):
                    started = time.perf_counter()
                    list(pool.map(ask, range(100)))
                    rates.append(100 / (time.perf_counter() - started))
            yield Figure(
                f"HTTP 640x480, {concurrency} at a time",
                "images/s",
                statistics.median(rates),
                min(rates),
                max(rates),
            )


@contextmanager
def _client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60, limits=httpx.Limits(max_connections=256)) as client:
        yield client


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    print(
        f"torch {torch.__version__}, {platform.machine()}, median of {ROUNDS} rounds (HTTP and Triton: 5)\n"
    )
    print("| what | median | least | most | |\n| --- | --- | --- | --- | --- |")
    figures = []
    for figures_of in (stages, networks, http, gateway_overhead):
        for figure in figures_of():
            figures.append(figure)
            print(
                f"| {figure.name} | {figure.median:.2f} {figure.unit} "
                f"| {figure.least:.2f} | {figure.most:.2f} | {figure.note} |",
                flush=True,
            )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))


if __name__ == "__main__":
    main()
