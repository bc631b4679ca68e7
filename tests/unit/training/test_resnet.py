"""ResNet-50 and its published weights, against keras-vggface's arithmetic written out by hand."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import h5py
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.config import PaperConfig
from training.initialise import Initialised, initialise
from training.models import build
from training.models.backbones import PUBLISHED, Pixels, registered
from training.models.paper import PaperNetwork
from training.models.resnet import Bottleneck, ResNet50
from training.models.vggface2 import resnet50_kind, resnet50_state

Weights = dict[str, Tensor]
STAGES = ((2, 64, 3), (3, 128, 4), (4, 256, 6), (5, 512, 3))
"""Number, width and blocks of keras-vggface's stages."""


def layers() -> list[tuple[str, int, int, int]]:
    """Name, input channels, output channels and kernel of each convolution, in keras-vggface's order."""
    found, channels = [("conv1/7x7_s2", 3, 64, 7)], 64
    for stage, width, blocks in STAGES:
        for block in range(1, blocks + 1):
            name = f"conv{stage}_{block}"
            found += [
                (f"{name}_1x1_reduce", channels, width, 1),
                (f"{name}_3x3", width, width, 3),
                (f"{name}_1x1_increase", width, 4 * width, 1),
            ]
            if block == 1:
                found.append((f"{name}_1x1_proj", channels, 4 * width, 1))
            channels = 4 * width
    return found


@pytest.fixture(scope="module")
def keras() -> Weights:
    """Random weights by keras-vggface's names, in its layout: kernels [H,W,in,out]."""
    generator = torch.Generator().manual_seed(0)
    weights: Weights = {}
    for name, before, after, kernel in layers():
        shape = (kernel, kernel, before, after)
        weights[f"{name}/kernel"] = torch.randn(shape, generator=generator) / math.sqrt(kernel**2 * before)
        for part, low in (("gamma", 0.5), ("beta", -0.1), ("moving_mean", -0.1), ("moving_variance", 0.001)):
            width = 0.2 if part in ("beta", "moving_mean") else 1.0
            weights[f"{name}/bn/{part}"] = low + width * torch.rand(after, generator=generator)
    return weights


def same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """Keras' "same" padding: what is missing for ceil(size / stride) outputs, the odd pixel at the end."""
    pads: list[int] = []
    for size in (x.shape[3], x.shape[2]):
        missing = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        pads += [missing // 2, missing - missing // 2]
    return functional.pad(x, pads)


def reference(weights: Weights, x: Tensor, *, epsilon: float = 1e-3) -> list[Tensor]:
    """The answers of keras-vggface's layers for BGR pixels, in NCHW: pooling, four stages, mean."""

    def unit(x: Tensor, name: str, kernel: int, stride: int = 1) -> Tensor:
        y = functional.conv2d(
            same(x, kernel, stride), weights[f"{name}/kernel"].permute(3, 2, 0, 1), stride=stride
        )
        gamma, beta, mean, variance = (
            weights[f"{name}/bn/{part}"][:, None, None]
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (y - mean) / (variance + epsilon).sqrt() * gamma + beta

    x = functional.max_pool2d(unit(x, "conv1/7x7_s2", 7, 2).relu(), 3, 2)
    answers = [x]
    for stage, _, blocks in STAGES:
        for block in range(1, blocks + 1):
            name, stride = f"conv{stage}_{block}", 2 if block == 1 and stage > 2 else 1
            y = unit(x, f"{name}_1x1_reduce", 1, stride).relu()
            y = unit(unit(y, f"{name}_3x3", 3).relu(), f"{name}_1x1_increase", 1)
            x = (y + (unit(x, f"{name}_1x1_proj", 1, stride) if block == 1 else x)).relu()
        answers.append(x)
    return [*answers, x.mean(dim=(2, 3))]


def as_dag(keras: Weights) -> Weights:
    """The same network for RGB pixels with epsilon 1e-5, under the names of imports from MatConvNet."""
    names = {"kernel": "weight", "gamma": "weight", "beta": "bias"}
    names |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    converted: Weights = {}
    for name, value in keras.items():
        layer, part = name.rsplit("/", 1)
        value = value.permute(3, 2, 0, 1) if part == "kernel" else value
        value = value.flip(1) if layer == "conv1/7x7_s2" and part == "kernel" else value
        converted[f"{layer.replace('/', '_')}.{names[part]}"] = value
    return converted | {"classifier.weight": torch.zeros(3, 2048, 1, 1)}


def as_caffe(keras: Weights) -> Weights:
    """The same network for BGR pixels, under torchvision's names."""
    numbers = {"1x1_reduce": "1", "3x3": "2", "1x1_increase": "3"}
    converted: Weights = {}
    for name, value in as_dag(keras).items():
        layer, part = name.rsplit(".", 1)
        norm = layer.endswith("_bn")
        layer = layer.removesuffix("_bn")
        if layer == "conv1_7x7_s2":
            place = "bn1" if norm else "conv1"
            value = value if norm else value.flip(1)
        elif layer == "classifier":
            place, value = "fc", value.flatten(1)
        else:
            stage, block, kind = layer.removeprefix("conv").split("_", 2)
            inside = (
                f"downsample.{int(norm)}"
                if kind == "1x1_proj"
                else f"{'bn' if norm else 'conv'}{numbers[kind]}"
            )
            place = f"layer{int(stage) - 1}.{int(block) - 1}.{inside}"
        converted[f"{place}.{part}"] = value
    return converted


@pytest.fixture
def network(built: PaperNetwork) -> PaperNetwork:
    return copy.deepcopy(built)


@pytest.fixture(scope="module")
def built() -> PaperNetwork:
    """A network with random weights, which take longer to draw than to copy."""
    torch.manual_seed(0)
    network = build(PaperConfig(name="paper"), emotions=7, label_emotions=0)
    assert isinstance(network, PaperNetwork)
    return network.eval()


def saved(weights: Weights, path: Path) -> Path:
    torch.save(weights, path)
    return path


def write_keras(weights: Weights, path: Path, *, root: str = "") -> Path:
    """As Keras writes weights: a group per layer, with datasets by the full names of its variables."""
    with h5py.File(path, "w") as file:
        for name, value in weights.items():
            layer = name.rsplit("/", 1)[0]
            file[f"{root}{layer}/{name}:0"] = value.numpy()
    return path


@torch.no_grad()
def test_every_stage_has_the_sizes_and_answers_of_keras_vggface(keras: Weights) -> None:
    backbone = ResNet50()
    backbone.load_state_dict(resnet50_state(keras, "resnet50_keras"), strict=False)
    answers: list[Tensor] = []
    for module in (backbone.pool, backbone.conv2, backbone.conv3, backbone.conv4, backbone.conv5):
        module.register_forward_hook(lambda _module, _given, answer: answers.append(answer))
    x = torch.rand(1, 3, 224, 224)
    answers.append(backbone.eval()(x))
    expected = reference(keras, x)
    assert [tuple(answer.shape[1:]) for answer in answers] == [
        (64, 55, 55),
        (256, 55, 55),
        (512, 28, 28),
        (1024, 14, 14),
        (2048, 7, 7),
        (2048,),
    ]
    for answer, correct in zip(answers, expected, strict=True):
        assert (answer - correct).abs().max() < 1e-4 * correct.abs().max()


@pytest.mark.parametrize(("side", "before", "after"), [(224, 2, 3), (64, 2, 3), (8, 2, 3)])
def test_the_first_layer_is_padded_as_keras_pads(side: int, before: int, after: int) -> None:
    x = torch.rand(1, 3, side, side)
    assert torch.equal(ResNet50().pad(x), same(x, 7, 2))
    assert ResNet50().pad.padding == (before, after, before, after)


@torch.no_grad()
@pytest.mark.parametrize(("stride", "projected"), [(1, True), (2, True), (1, False)])
def test_a_block_in_training_answers_like_its_formula(stride: int, projected: bool) -> None:
    torch.manual_seed(0)
    block = Bottleneck(8 if projected else 16, 4, stride=stride, projected=projected)
    x = torch.randn(5, 8 if projected else 16, 7, 7)

    def unit(x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        y = functional.conv2d(x, weight, stride=stride, padding=padding)
        mean, variance = (
            y.mean(dim=(0, 2, 3), keepdim=True),
            y.var(dim=(0, 2, 3), keepdim=True, unbiased=False),
        )
        return (y - mean) / (variance + 1e-3).sqrt()

    weights = {name: value for name, value in block.named_parameters() if name.endswith("0.weight")}
    y = unit(x, weights["reduce.0.weight"], stride).relu()
    y = unit(unit(y, weights["spatial.0.weight"], padding=1).relu(), weights["increase.0.weight"])
    shortcut = unit(x, weights["proj.0.weight"], stride) if projected else x
    torch.testing.assert_close(block(x), (y + shortcut).relu(), atol=1e-5, rtol=1e-4)
    moved = block.reduce[1].running_mean
    batch = functional.conv2d(x, weights["reduce.0.weight"], stride=stride).mean(dim=(0, 2, 3))
    torch.testing.assert_close(moved, 0.01 * batch)


@pytest.mark.parametrize("root", ["", "model_weights/"])
@torch.no_grad()
def test_keras_own_file_is_loaded(root: str, keras: Weights, network: PaperNetwork, tmp_path: Path) -> None:
    given = {**keras, "classifier/kernel": torch.zeros(2048, 3)}
    found = initialise(network, write_keras(given, tmp_path / "weights.h5", root=root))
    answers_like(network, keras, found, "resnet50_keras")
    assert len(found.unused) == 1
    assert "keras-vggface" in str(found)


@torch.no_grad()
def test_imports_from_matconvnet_are_loaded(keras: Weights, network: PaperNetwork, tmp_path: Path) -> None:
    found = initialise(network, saved(as_dag(keras), tmp_path / "weights.pth"))
    answers_like(network, keras, found, "resnet50_dag", epsilon=1e-5)


@torch.no_grad()
def test_imports_from_caffe_are_loaded_if_stated(
    keras: Weights, network: PaperNetwork, tmp_path: Path
) -> None:
    found = initialise(network, saved(as_caffe(keras), tmp_path / "weights.pth"), "resnet50_caffe")
    answers_like(network, keras, found, "resnet50_caffe", epsilon=1e-5)


@torch.no_grad()
def test_the_projects_own_weights_need_no_kind(network: PaperNetwork, tmp_path: Path) -> None:
    given = {name: value + 1 for name, value in network.state_dict().items()}
    found = initialise(network, saved(given, tmp_path / "w.pth"))
    assert (found.where, found.published, found.fresh, found.unused) == ("the network", None, (), ())
    assert all(torch.equal(value, given[name]) for name, value in network.state_dict().items())


def answers_like(
    network: PaperNetwork, keras: Weights, found: Initialised, kind: str, *, epsilon: float = 1e-3
) -> None:
    assert (found.where, found.published) == ("its backbone", kind)
    assert len(found.matched) == 5 * 53
    assert not any(name.startswith("backbone.") for name in found.fresh if not name.endswith("tracked"))
    rgb = torch.rand(1, 3, 64, 64)
    expected = reference(keras, rgb.flip(1), epsilon=epsilon)[-1]
    answer = network.backbone(network.backbone_pixels(rgb))
    assert (answer - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("prefix", ["", "module."])
def test_names_that_fit_two_geometries_are_refused(
    prefix: str, keras: Weights, network: PaperNetwork, tmp_path: Path
) -> None:
    given = {prefix + name: value for name, value in as_caffe(keras).items()}
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match="--weights-kind resnet50_caffe"):
        initialise(network, saved(given, tmp_path / "w.pth"))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_torchvisions_weights_are_refused(keras: Weights) -> None:
    # By its digest, or because the user says so.
    with pytest.raises(ValueError, match="the stride of a stage in its 3x3"):
        resnet50_kind(as_caffe(keras), "resnet50_torchvision")
    assert registered("0676ba61" + "0" * 56) == "resnet50_torchvision"
    assert registered("0" * 64) is None


def test_other_names_are_not_matched_in_order(keras: Weights, network: PaperNetwork, tmp_path: Path) -> None:
    given = {f"_tensor{number}": value for number, value in enumerate(as_caffe(keras).values())}
    with pytest.raises(ValueError, match="no tensor in"):
        initialise(network, saved(given, tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("change", "stated", "message"),
    [
        ({"conv4_3_3x3.weight": None}, None, "lack conv4_3_3x3.weight"),
        ({"conv4_3_3x3.weight": torch.zeros(2)}, None, r"conv4_3_3x3.weight has the shape \[2\]"),
        ({"conv2_1_1x1_down.weight": torch.zeros(2)}, None, "layers that a ResNet-50 lacks, such as conv2_1"),
        ({"conv4_7_3x3.weight": torch.zeros(2)}, None, "layers that a ResNet-50 lacks, such as conv4_7"),
        ({}, "resnet50_caffe", "have the names of resnet50_dag, not of resnet50_caffe"),
        ({}, "resnet50", "must be one of"),
    ],
)
def test_weights_of_another_network_are_refused(
    change: dict[str, Tensor | None],
    stated: str | None,
    message: str,
    keras: Weights,
    network: PaperNetwork,
    tmp_path: Path,
) -> None:
    given = {name: value for name, value in (as_dag(keras) | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        initialise(network, saved(given, tmp_path / "w.pth"), stated)


@pytest.mark.parametrize("content", [b"not HDF5", None])
def test_files_without_weights_are_refused(
    content: bytes | None, network: PaperNetwork, tmp_path: Path
) -> None:
    path = tmp_path / "w.h5"
    if content is None:
        h5py.File(path, "w").close()
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.h5"):
        initialise(network, path)


def test_the_kind_of_unregistered_weights_cannot_be_stated_for_other_backbones(tmp_path: Path) -> None:
    network = build(PaperConfig(name="paper"), emotions=7, label_emotions=0)
    del network.backbone
    with pytest.raises(ValueError, match="not registered"):
        initialise(network, saved(network.state_dict(), tmp_path / "w.pth"), "face_resnet")


def test_pixels_have_the_order_scale_and_mean_of_the_weights() -> None:
    rgb = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    assert Pixels(bgr=True)(rgb).flatten().tolist() == [0, 0.5, 1]
    expected = torch.tensor([0 - 91.4953, 127.5 - 103.8827, 255 - 131.0912])
    torch.testing.assert_close(Pixels.of("resnet50_keras")(rgb).flatten(), expected)
    torch.testing.assert_close(Pixels.of("resnet50_dag")(rgb).flatten(), expected.flip(0))


@torch.no_grad()
def test_the_papers_network_sees_bgr_inside() -> None:
    """The exported network takes RGB, whatever the weights expect."""
    seen: list[Tensor] = []
    rgb = torch.rand(1, 3, 224, 224)
    for pixels in ("paper", "pretraining"):
        network = build(
            PaperConfig(name="paper", backbone_pixels=pixels), emotions=7, label_emotions=0
        ).eval()
        assert isinstance(network, PaperNetwork)
        for module in (network.large, network.small, network.backbone):
            module.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
        network(rgb)
    bgr = rgb.flip(1)
    for given in seen[:5]:
        assert torch.equal(given, bgr)
    mean = torch.tensor([91.4953, 103.8827, 131.0912]).view(1, 3, 1, 1)
    torch.testing.assert_close(seen[5], bgr * 255 - mean)


def test_the_papers_network_starts_like_keras(network: PaperNetwork) -> None:
    """Glorot's uniform distribution: bound sqrt(6 / (fan in + fan out)); biases are 0."""
    for name, fans in (
        ("large.0", 75 * 75 * (3 + 8)),
        ("project_large.1", 7 * 7 * 256 + 512),
        ("backbone.conv3.0.spatial.0", 9 * (128 + 128)),
        ("mixture_fused.gate", 512 + 4),
        ("mixture_fused", 512 + 512),
        ("main_head", 1024 + 7),
    ):
        module, bound = network.get_submodule(name), math.sqrt(6 / fans)
        assert isinstance(module.weight, Tensor)
        assert 0.98 * bound < module.weight.abs().max() <= bound, name
        assert module.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05), name
        if isinstance(module.bias, Tensor):
            assert not module.bias.any(), name


def test_the_registry_is_complete() -> None:
    for published in PUBLISHED.values():
        assert published.source
        assert published.licence
