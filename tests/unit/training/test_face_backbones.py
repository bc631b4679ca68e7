"""The backbones that were trained to recognise faces, and their published weights."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.config import CompactConfig
from training.initialise import initialise, read_state_dict
from training.models.compact import CompactNetwork

Published = tuple[Path, dict[str, Tensor]]
Entry = tuple[str, tuple[int, ...], float]
"""Name, shape and largest size of a made-up tensor."""

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

MOBILENET_WIDTHS = (32, 64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)


def resnet_entries() -> list[Entry]:
    return [
        entry
        for name, kernel, before, after in UNITS
        for entry in (
            (f"{name}/conv/filters", (kernel, kernel, before, after), 2.0 / (kernel * before**0.5)),
            (f"{name}/conv/bias", (after,), 0.1),
            (f"{name}/scale/weights", (after,), 1.5),
            (f"{name}/scale/biases", (after,), 0.1),
        )
    ]


def mobilenet_entries() -> list[Entry]:
    entries = [convolution("conv1", 3, 3, 32), ("conv1_bn/batchnorm_1/sub", (32,), 0.1)]
    for block, (before, after) in enumerate(itertools.pairwise(MOBILENET_WIDTHS), start=1):
        entries += [
            (f"conv_dw_{block}/depthwise_kernel", (3, 3, before, 1), 1.0),
            (f"conv_dw_{block}_bn/batchnorm_1/mul", (before,), 1.5),
            (f"conv_dw_{block}_bn/batchnorm_1/sub", (before,), 0.1),
            convolution(f"conv_pw_{block}", 1, before, after),
            (f"conv_pw_{block}_bn/batchnorm_1/sub", (after,), 0.1),
        ]
    return entries


def convolution(name: str, kernel: int, before: int, after: int) -> Entry:
    spread = 2.0 / (kernel * before**0.5)
    return f"{name}/convolution/merged_input", (kernel, kernel, before, after), spread


def written(folder: Path, entries: list[Entry], wrap: Callable[[object], object]) -> Published:
    """A manifest with a file of made-up quantized weights beside it, and the weights by name."""
    random, data = np.random.default_rng(0), b""
    listed: list[dict[str, object]] = []
    weights: dict[str, Tensor] = {}
    for name, shape, spread in entries:
        values = random.integers(0, 256, shape, np.uint8)
        # Scales around 1, all other values around 0.
        low = 0.5 if spread > 1 else -spread
        scale = (spread - low) / 255
        packing = {"dtype": "uint8", "scale": scale, "min": low}
        listed.append({"name": name, "shape": shape, "dtype": "float32", "quantization": packing})
        data += values.tobytes()
        weights[name] = torch.from_numpy(values) * scale + low
    listed.append({"name": "fc", "shape": (2, 2), "dtype": "float32"})
    data += np.arange(4, dtype="<f4").tobytes()
    (folder / "model.bin").write_bytes(data)
    manifest = folder / "weights_manifest.json"
    manifest.write_text(json.dumps(wrap([{"weights": listed, "paths": ["model.bin"]}])))
    return manifest, weights


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Published]:
    """The made-up weights of each backbone, as its package lists them."""
    return {
        "face_resnet": written(tmp_path_factory.mktemp("face-api"), resnet_entries(), lambda groups: groups),
        "face_mobilenet": written(
            tmp_path_factory.mktemp("human"), mobilenet_entries(), lambda groups: {"weightsManifest": groups}
        ),
    }


def resnet_reference(weights: dict[str, Tensor], images: Tensor, blocks: int) -> Tensor:
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


def mobilenet_reference(weights: dict[str, Tensor], images: Tensor, blocks: int) -> Tensor:
    """The first `blocks` blocks of the published network, as its graph describes them."""

    def padded(x: Tensor, kernel: Tensor, stride: int) -> Tensor:
        """The padding "SAME" of TensorFlow."""
        missing = max(kernel.shape[-1] - (stride if x.shape[-1] % stride == 0 else 1), 0)
        return functional.pad(x, [missing // 2, missing - missing // 2] * 2)

    def convolved(x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = weights[f"{name}/convolution/merged_input"].permute(3, 2, 0, 1)
        y = functional.conv2d(padded(x, kernel, stride), kernel, stride=stride)
        return (y + weights[f"{name}_bn/batchnorm_1/sub"][:, None, None]).clamp(0, 6)

    x = convolved(images, "conv1", 2)
    for block in range(1, blocks + 1):
        name, stride = f"conv_dw_{block}", 2 if block in (2, 4, 6, 12) else 1
        kernel = weights[f"{name}/depthwise_kernel"].permute(2, 3, 0, 1)
        x = functional.conv2d(padded(x, kernel, stride), kernel, stride=stride, groups=len(kernel))
        scale, shift = (weights[f"{name}_bn/batchnorm_1/{part}"] for part in ("mul", "sub"))
        x = convolved((x * scale[:, None, None] + shift[:, None, None]).clamp(0, 6), f"conv_pw_{block}")
    return x.mean(dim=(2, 3))


REFERENCES = {"face_resnet": resnet_reference, "face_mobilenet": mobilenet_reference}


@pytest.fixture(
    params=[
        ("face_resnet", 13, 256),
        ("face_resnet", 11, 256),
        ("face_resnet", 10, 128),
        ("face_mobilenet", 13, 1024),
        ("face_mobilenet", 11, 512),
    ],
    ids=lambda case: f"{case[0]}-{case[1]}",
)
def case(request: pytest.FixtureRequest) -> tuple[str, int, int]:
    """A backbone, its number of blocks, and the channels of the last one."""
    chosen: tuple[str, int, int] = request.param
    return chosen


@pytest.fixture
def network(case: tuple[str, int, int]) -> CompactNetwork:
    torch.manual_seed(0)
    config = CompactConfig.model_validate(
        {
            "name": "compact",
            "backbone": case[0],
            "backbone_size": 96,
            "backbone_blocks": case[1],
            "extractor_width": 1,
            "features": 8,
            "dropout": 0,
        }
    )
    return CompactNetwork(config, 8, 7)


@torch.no_grad()
def test_the_backbone_answers_like_the_published_network(
    case: tuple[str, int, int], network: CompactNetwork, published: dict[str, Published]
) -> None:
    backbone, blocks, channels = case
    manifest, weights = published[backbone]
    report = initialise(network, manifest)
    assert report.where == "its backbone"
    fresh = {name for name in report.fresh if name.startswith("backbone.")}
    assert all(name.endswith("num_batches_tracked") for name in fresh)
    images = torch.randn(2, 1, 96, 96)
    expected = REFERENCES[backbone](weights, images.expand(-1, 3, -1, -1), blocks)
    assert expected.shape[1] == channels
    assert network.backbone is not None
    assert network.backbone.features == channels
    found = network.backbone.eval()(images)
    # Batch norm divides by the root of a variance that is a little above 1.
    assert (found - expected).abs().max() < 1e-3 * expected.abs().max()


def test_kernels_of_mobilenet_have_a_norm_of_1(published: dict[str, Published]) -> None:
    """Published norms differ by a factor of 20,000, and no learning rate fits all of them."""
    state = read_state_dict(published["face_mobilenet"][0])
    kernels = [tensor for tensor in state.values() if tensor.dim() == 4]
    assert len(kernels) == 27
    for kernel in kernels:
        assert torch.allclose(kernel.flatten(1).norm(dim=1), torch.ones(len(kernel)))


@torch.no_grad()
def test_recalibrated_batch_norms_keep_the_answers_in_evaluation_and_in_training(
    case: tuple[str, int, int], network: CompactNetwork, published: dict[str, Published]
) -> None:
    initialise(network.eval(), published[case[0]][0])
    images = torch.rand(16, 1, 48, 48)

    def backbone_features() -> Tensor:
        pooled: Tensor = network(images).pooled
        return pooled[:, -case[2] :]

    before = backbone_features()
    unchanged = copy.deepcopy(network)
    network.recalibrate_batch_norm(images)
    assert not network.training
    assert not unchanged.training
    size = before.abs().max()
    assert (backbone_features() - before).abs().max() < 1e-3 * size
    network.train()
    assert (backbone_features() - before).abs().max() < 1e-2 * size
    network = unchanged.train()
    assert (backbone_features() - before).abs().max() > 0.1 * size


def test_the_shown_layer_has_maps_of_a_sixteenth(case: tuple[str, int, int], network: CompactNetwork) -> None:
    shapes: list[torch.Size] = []
    hook = network.gradcam_layer().register_forward_hook(lambda *called: shapes.append(called[2].shape))
    network(torch.rand(1, 1, 48, 48))
    hook.remove()
    without_padding = case[0] == "face_resnet"
    assert [shape[2] for shape in shapes] == [5 if without_padding else 6]


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
def test_invalid_manifests_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"1234")
    manifest = tmp_path / "manifest.json"
    manifest.write_text(content)
    with pytest.raises(ValueError, match=r"TensorFlow\.js|face recognition"):
        read_state_dict(manifest)


def test_a_missing_file_of_weights_is_named(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps([{"paths": ["lost.bin"], "weights": []}]))
    with pytest.raises(FileNotFoundError, match=r"lost\.bin"):
        read_state_dict(manifest)
