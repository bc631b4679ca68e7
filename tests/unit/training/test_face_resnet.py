"""The face recognition network, and its published weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.config import CompactConfig
from training.initialise import initialise
from training.models.compact import CompactNetwork
from training.models.face_resnet import Block, FaceResNet

UNITS = (
    ("conv32_down", 7, 3, 32),
    *((f"conv32_{n}/conv{i}", 3, 32, 32) for n in (1, 2, 3) for i in (1, 2)),
    ("conv64_down/conv1", 3, 32, 64),
    ("conv64_down/conv2", 3, 64, 64),
    *((f"conv64_{n}/conv{i}", 3, 64, 64) for n in (1, 2, 3) for i in (1, 2)),
    ("conv128_down/conv1", 3, 64, 128),
    ("conv128_down/conv2", 3, 128, 128),
    *((f"conv128_{n}/conv{i}", 3, 128, 128) for n in (1, 2) for i in (1, 2)),
    ("conv256_down/conv1", 3, 128, 256),
    ("conv256_down/conv2", 3, 256, 256),
    *((f"conv256_{n}/conv{i}", 3, 256, 256) for n in (1, 2) for i in (1, 2)),
)
"""Name, kernel size, input channels and output channels of the published convolutions that are in use."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """A manifest with a file of made-up quantized weights beside it, and the weights by name."""
    random, data = np.random.default_rng(0), b""
    entries: list[dict[str, object]] = []
    weights: dict[str, Tensor] = {}
    for name, kernel, before, after in UNITS:
        spread = 2.0 / (kernel * before**0.5)
        for part, shape, low, high in (
            ("conv/filters", (kernel, kernel, before, after), -spread, spread),
            ("conv/bias", (after,), -0.1, 0.1),
            ("scale/weights", (after,), 0.5, 1.5),
            ("scale/biases", (after,), -0.1, 0.1),
        ):
            values = random.integers(0, 256, shape, np.uint8)
            scale = (high - low) / 255
            packing = {"dtype": "uint8", "scale": scale, "min": low}
            entries.append(
                {"name": f"{name}/{part}", "shape": shape, "dtype": "float32", "quantization": packing}
            )
            data += values.tobytes()
            weights[f"{name}/{part}"] = torch.from_numpy(values) * scale + low
    entries.append({"name": "fc", "shape": (2, 2), "dtype": "float32"})
    data += np.arange(4, dtype="<f4").tobytes()
    folder = tmp_path_factory.mktemp("face-api")
    (folder / "model.bin").write_bytes(data)
    manifest = folder / "weights_manifest.json"
    manifest.write_text(json.dumps([{"weights": entries, "paths": ["model.bin"]}]))
    return manifest, weights


def reference(weights: dict[str, Tensor], images: Tensor, blocks: int) -> Tensor:
    """The first `blocks` blocks of the published network, as face-api describes them.

    The published network has one more block than UNITS.
    """

    def convolved(x: Tensor, name: str, stride: int, padding: int) -> Tensor:
        kernel = weights[f"{name}/conv/filters"].permute(3, 2, 0, 1)
        y = functional.conv2d(x, kernel, weights[f"{name}/conv/bias"], stride, padding)
        scale, shift = weights[f"{name}/scale/weights"], weights[f"{name}/scale/biases"]
        return y * scale[:, None, None] + shift[:, None, None]

    x = torch.relu(convolved(images, "conv32_down", 2, 0))
    x = functional.max_pool2d(x, 3, 2)
    for block in list(dict.fromkeys(name.split("/")[0] for name, *_ in UNITS[1:]))[:blocks]:
        halving = block.endswith("down")
        y = torch.relu(convolved(x, f"{block}/conv1", 2 if halving else 1, 0 if halving else 1))
        y = convolved(y, f"{block}/conv2", 1, 1)
        if halving:
            means = functional.avg_pool2d(x, 2)
            x, small = torch.zeros(len(y), y.shape[1], *means.shape[2:]), y
            x[:, : means.shape[1]] = means
            y = torch.zeros_like(x)
            y[:, :, : small.shape[2], : small.shape[3]] = small
        x = torch.relu(x + y)
    return x.mean(dim=(2, 3))


@pytest.fixture(params=[13, 11, 10])
def network(request: pytest.FixtureRequest) -> CompactNetwork:
    torch.manual_seed(0)
    config = CompactConfig(
        name="compact",
        backbone="face_resnet",
        backbone_size=96,
        backbone_blocks=request.param,
        extractor_width=1,
        features=8,
        dropout=0,
    )
    return CompactNetwork(config, 8, 7)


@torch.no_grad()
def test_the_backbone_answers_like_the_published_network(
    network: CompactNetwork, published: tuple[Path, dict[str, Tensor]]
) -> None:
    manifest, weights = published
    report = initialise(network, manifest)
    assert report.where == "its backbone"
    fresh = {name for name in report.fresh if name.startswith("backbone.")}
    assert all(name.endswith("num_batches_tracked") for name in fresh)
    images = torch.rand(2, 1, 96, 96)
    assert network.backbone is not None
    blocks = sum(isinstance(module, Block) for module in network.backbone)
    expected = reference(weights, images.expand(-1, 3, -1, -1), blocks)
    assert expected.shape[1] == (128 if blocks == 10 else 256)
    found = network.backbone.eval()(images)
    # Batch norm divides by the root of a variance that is a little above 1.
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()


@torch.no_grad()
def test_settling_keeps_the_answers_in_evaluation_and_in_training(
    network: CompactNetwork, published: tuple[Path, dict[str, Tensor]]
) -> None:
    initialise(network.eval(), published[0])
    images = torch.rand(16, 1, 48, 48)

    def backbone_features() -> Tensor:
        assert isinstance(network.backbone, FaceResNet)
        pooled: Tensor = network(images).pooled
        return pooled[:, -network.backbone.features :]

    before = backbone_features()
    unsettled = copy.deepcopy(network)
    network.recalibrate_batch_norm(images)
    assert not network.training
    assert not unsettled.training
    size = before.abs().max()
    assert (backbone_features() - before).abs().max() < 1e-3 * size
    network.train()
    assert (backbone_features() - before).abs().max() < 1e-2 * size
    network = unsettled.train()
    assert (backbone_features() - before).abs().max() > 0.1 * size


def manifest_of(**entry: object) -> str:
    return json.dumps([{"paths": ["model.bin"], "weights": [{"name": "fc", "dtype": "float32", **entry}]}])


@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        "{}",
        "[]",
        "[3]",
        '[{"paths": ["model.bin"], "weights": ["fc"]}]',
        manifest_of(),
        manifest_of(shape=[999]),
        manifest_of(shape=[1], dtype="nothing"),
    ],
)
def test_invalid_manifests_are_refused(content: str, network: CompactNetwork, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"1234")
    manifest = tmp_path / "manifest.json"
    manifest.write_text(content)
    with pytest.raises(ValueError, match="face-api"):
        initialise(network, manifest)


def test_a_missing_file_of_weights_is_named(network: CompactNetwork, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps([{"paths": ["lost.bin"], "weights": []}]))
    with pytest.raises(FileNotFoundError, match=r"lost\.bin"):
        initialise(network, manifest)
