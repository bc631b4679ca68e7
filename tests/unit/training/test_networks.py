"""The larger networks, and what all networks have in common."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from service.core.manifest import ONNX, TORCHSCRIPT
from training.config import AttentionConfig, CompactConfig, NetworkConfig, PaperConfig
from training.export_classifier import interface
from training.formats import Pair, onnx_file, torchscript_file
from training.models import Network, build
from training.models.folding import folded
from training.models.paper import PaperNetwork
from training.models.served import ServedClassifier
from training.models.spectral import SameConv2d, SpectralConv2d

CONFIGS: list[NetworkConfig] = [
    CompactConfig(name="compact"),
    AttentionConfig(name="attention"),
    PaperConfig(name="paper"),
    CompactConfig(name="compact", backbone_size=64, backbone="face_resnet"),
    CompactConfig(name="compact", backbone_size=64, backbone="face_mobilenet", backbone_blocks=11),
    CompactConfig(name="compact", large_kernels=False),
]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def by_name(config: NetworkConfig) -> str:
    return config.name


def keras_count(module: nn.Module) -> int:
    """The number of parameters as Keras counts them: trained ones, and running statistics of batch norm."""
    statistics = sum(
        buffer.numel()
        for name, buffer in module.named_buffers()
        if name.endswith(("running_mean", "running_var"))
    )
    return statistics + sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(scope="module")
def published() -> PaperNetwork:
    network = build(PaperConfig(name="paper"), emotions=7, label_emotions=0)
    assert isinstance(network, PaperNetwork)
    return network.eval()


@pytest.mark.parametrize(("emotions", "parameters"), [(7, 35_931_871), (8, 35_932_896)])
def test_the_papers_network_has_the_papers_parameters(emotions: int, parameters: int) -> None:
    assert keras_count(build(PaperConfig(name="paper"), emotions=emotions, label_emotions=0)) == parameters


def test_every_block_of_the_papers_network_has_its_parameters(published: PaperNetwork) -> None:
    assert keras_count(published.large) + keras_count(published.project_large) == 8_619_824
    assert keras_count(published.small) == 458_208
    assert keras_count(published.backbone) == 23_561_152
    assert keras_count(published.fuse) == 1_180_160
    assert keras_count(published.mixture_global) == keras_count(published.mixture_fused) == 1_052_676
    assert keras_count(published.main_head) == 7_175


def test_the_papers_gate_is_renormalised_only_on_request(published: PaperNetwork) -> None:
    with torch.no_grad():
        weights = published(torch.rand(2, 3, 224, 224)).weights
    assert ((weights > 0).sum(dim=2) == 2).all()
    assert (weights.sum(dim=2) < 0.999).any()
    renormalised = build(PaperConfig(name="paper", renormalise=True), emotions=7, label_emotions=0).eval()
    with torch.no_grad():
        weights = renormalised(torch.rand(1, 3, 224, 224)).weights
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(1, 2))


@pytest.mark.parametrize("kernel", [9, 15, 25, 50, 75])
@pytest.mark.parametrize(("count", "channels", "side"), [(1, 1, 33), (2, 3, 40), (9, 5, 20)])
def test_large_kernels_are_keras_same_convolutions(kernel: int, count: int, channels: int, side: int) -> None:
    """Compare with the direct convolution in double precision.

    An even kernel pads one pixel more on the right and below.
    """
    conv, x = SameConv2d(channels, 4, kernel), torch.rand(count, channels, side, side)
    before = (kernel - 1) // 2
    padded = functional.pad(x.double(), (before, kernel - 1 - before) * 2)
    assert conv.bias is not None
    direct = functional.conv2d(padded, conv.weight.double(), conv.bias.double())
    with torch.no_grad():
        for found in (conv(x), SpectralConv2d(conv, side)(x)):
            assert found.shape == (count, 4, side, side)
            assert (found - direct).abs().max() / direct.abs().max() < 1e-4


def test_a_kernel_of_50_px_pads_24_before_and_25_after() -> None:
    conv = SameConv2d(1, 1, 50)
    nn.init.zeros_(conv.weight)
    with torch.no_grad():
        conv.weight[0, 0, 0, 0] = 1  # takes the pixel 24 px to the left and above
    x = torch.rand(1, 1, 60, 60)
    with torch.no_grad():
        shifted = conv(x) - conv.bias.view(1, 1, 1, 1)  # type: ignore[union-attr]
    torch.testing.assert_close(shifted[0, 0, 24:, 24:], x[0, 0, :36, :36], atol=1e-5, rtol=0)
    assert shifted[0, 0, :24].abs().max() < 1e-5


def test_large_kernels_have_the_gradient_of_direct_convolutions() -> None:
    conv, x = SameConv2d(2, 3, 15), torch.rand(9, 2, 20, 20)
    conv(x).square().sum().backward()
    assert conv.weight.grad is not None
    found = conv.weight.grad.clone()
    conv.zero_grad()
    assert conv.bias is not None
    functional.conv2d(x, conv.weight, conv.bias, padding=7).square().sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(found, conv.weight.grad, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_large_kernels_are_exact_in_mixed_precision(kind: torch.dtype) -> None:
    conv, x = SameConv2d(2, 3, 15), torch.rand(2, 2, 20, 20)
    with torch.autocast("cpu", kind):
        mixed = conv(x)
    mixed.sum().backward()
    assert conv.weight.grad is not None
    torch.testing.assert_close(mixed, conv(x))


def test_the_papers_network_trains_in_mixed_precision() -> None:
    network = build(PaperConfig(name="paper"), emotions=7, label_emotions=0)
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(torch.rand(2, 3, 224, 224)).logits.logsumexp(dim=1).mean()
    loss.backward()
    gradients = [parameter.grad for parameter in network.parameters() if parameter.numel()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_large_kernels_become_spectral_when_they_are_served(published: PaperNetwork) -> None:
    served = folded(published)
    kernels = [type(module) for module in served.modules() if isinstance(module, SpectralConv2d)]
    assert len(kernels) == 6  # five in the global extractor, one in the local extractor
    assert not any(isinstance(module, SameConv2d) for module in served.modules())


@pytest.mark.parametrize("config", CONFIGS, ids=by_name)
@torch.no_grad()
def test_the_served_network_answers_like_the_trained_one(config: NetworkConfig) -> None:
    """As TorchScript and as ONNX, and in batches of other sizes than at the export."""
    network = with_trained_batch_norm(build(config, emotions=8, label_emotions=7))
    faces = patterns(3, network.size)
    pooled = network(as_images(faces[:1], network)).pooled.shape[1]
    hints = nn.Linear(pooled, 1), nn.Linear(pooled, 1)
    # A low temperature amplifies small differences of the network.
    expected = ServedClassifier(network, 0.1, *hints)(faces)
    assert expected[0].std(dim=0).max() > 0.01
    served = ServedClassifier(folded(network), 0.1, *hints)
    files = {TORCHSCRIPT: torchscript_file(served), ONNX: onnx_file(served, interface(network.size))}
    for count in (1, 3):
        for answers in Pair(files).answers(faces[:count]):
            for correct, answer in zip(expected, answers, strict=True):
                np.testing.assert_allclose(answer, correct[:count], atol=1e-4, rtol=0)


@pytest.mark.parametrize("config", CONFIGS, ids=by_name)
@torch.no_grad()
def test_every_network_has_the_same_outputs(config: NetworkConfig) -> None:
    network = build(config, emotions=7, label_emotions=0).eval()
    outputs = network(torch.rand(2, network.channels, network.size, network.size))
    assert outputs.logits.shape == (2, 7)
    assert outputs.label_logits.shape == (2, 0)
    assert outputs.weights.shape == outputs.scores.shape == (2, 2, 4)
    if config.name == "attention":
        assert not outputs.weights.any()


def test_every_parameter_of_the_attention_network_learns() -> None:
    network = build(
        AttentionConfig(name="attention", width=8, depths=(1, 1, 1, 1)), emotions=8, label_emotions=7
    )
    outputs = network(torch.rand(16, 3, 96, 96))
    (outputs.logits.square().sum() + outputs.label_logits.square().sum()).backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def with_trained_batch_norm(network: Network) -> Network:
    """Set batch norm as training would: statistics of images, and scales other than the initial ones."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of all images seen
            module.reset_running_stats()
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    network.train()(as_images(patterns(4, network.size), network))
    return network.eval()


def patterns(count: int, size: int) -> torch.Tensor:
    """Smooth images that differ. For noise, a network with random weights always gives the same answer."""
    coarse = 255 * torch.rand(count, 3, 6, 6)
    return functional.interpolate(coarse, size=(size, size), mode="bilinear").to(torch.uint8)


def as_images(faces: torch.Tensor, network: Network) -> torch.Tensor:
    return faces[:, : network.channels].float() / 255
