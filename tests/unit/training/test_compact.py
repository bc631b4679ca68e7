"""The compact network, and its served form."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from service.core.manifest import TORCHSCRIPT, read_manifest, verified_model_path
from service.settings import Settings
from tests.unit.training.made_up import TINY_BACKBONE
from training.checkpoint import load_trained
from training.cli import SHIPPED_CHECKPOINT
from training.config import CompactConfig
from training.models import Network, build
from training.models.compact import CompactNetwork, standardise
from training.models.served import ServedClassifier, grey
from training.settings import changed, preset

REPOSITORY = Settings().model_repository
PARAMETER_LIMIT = 5_000_000
MAC_LIMIT = 0.3e9


@pytest.fixture(scope="module")
def shipped() -> CompactNetwork:
    torch.manual_seed(0)
    network = build(preset("compact").network, emotions=8, label_emotions=7).eval()
    assert isinstance(network, CompactNetwork)
    return network


TINY = {"name": "compact", "extractor_width": 2, "features": 8}


@pytest.fixture(
    params=[
        {"residual_widths": (4, 8, 8)},
        TINY_BACKBONE,
        {"backbone": "face_resnet", "backbone_size": 80},
        {"backbone": "face_mobilenet", "backbone_size": 64},
        {"large_kernels": False},
    ],
    ids=["residual", "efficientnet_lite", "face_resnet", "face_mobilenet", "local"],
)
def tiny(request: pytest.FixtureRequest) -> CompactNetwork:
    torch.manual_seed(0)
    network = build(CompactConfig(**TINY, **request.param), emotions=8, label_emotions=7).eval()
    assert isinstance(network, CompactNetwork)
    return network


def faces(count: int, side: int = 48) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def served_classifier(network: Network, temperature: float) -> ServedClassifier:
    """The served form of `network`, with untrained hints."""
    pooled = network(torch.zeros(1, 1, 48, 48)).pooled
    hints = nn.Linear(pooled.shape[1], 1), nn.Linear(pooled.shape[1], 1)
    return ServedClassifier(network, temperature, *hints)


@pytest.mark.parametrize("blocks", [10, 13], ids=["served", "teacher"])
@torch.no_grad()
def test_the_network_has_few_parameters_and_operations(blocks: int) -> None:
    config = changed(preset("compact"), {"network.backbone_blocks": blocks})
    network = build(config.network, emotions=8, label_emotions=7).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) <= PARAMETER_LIMIT
    with FlopCounterMode(display=False) as counter:
        network(torch.rand(1, 1, 48, 48))
    macs = counter.get_total_flops() / 2
    assert 0.01e9 < macs <= MAC_LIMIT


@torch.no_grad()
def test_the_shipped_checkpoint_answers_like_the_served_model() -> None:
    manifest = read_manifest(REPOSITORY, "expressnet_moe")
    assert manifest.calibration is not None
    served = torch.jit.load(str(verified_model_path(REPOSITORY, manifest, TORCHSCRIPT)))  # type: ignore[no-untyped-call]
    from_checkpoint = served_classifier(
        load_trained(SHIPPED_CHECKPOINT).network, manifest.calibration.temperature
    )
    batch = faces(8)
    for found, expected in zip(from_checkpoint(batch)[:2], served(batch)[:2], strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("folder", ["teacher", "light", "labels", "attention"])
def test_the_other_checkpoints_have_the_heads_of_the_served_one(folder: str) -> None:
    trained = load_trained(SHIPPED_CHECKPOINT.parent / folder)
    default = load_trained(SHIPPED_CHECKPOINT)
    assert (trained.emotions, trained.label_emotions) == (default.emotions, default.label_emotions)


@pytest.mark.parametrize("side", [48, 64])
@torch.no_grad()
def test_outputs_have_their_shapes_and_two_experts(shipped: CompactNetwork, side: int) -> None:
    outputs = shipped(torch.rand(2, 1, side, side))
    assert outputs.logits.shape == (2, 8)
    assert outputs.label_logits.shape == (2, 7)
    assert outputs.weights.shape == outputs.scores.shape == (2, 2, 4)
    assert ((outputs.weights > 0).sum(dim=2) == 2).all()
    torch.testing.assert_close(outputs.weights.sum(dim=2), torch.ones(2, 2))


@torch.no_grad()
def test_exposure_and_contrast_do_not_matter(tiny: CompactNetwork) -> None:
    images = torch.rand(3, 1, 48, 48)
    torch.testing.assert_close(tiny(images).logits, tiny(images * 0.5 + 0.3).logits, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_the_gradcam_layer_has_at_least_3_by_3_positions(tiny: CompactNetwork) -> None:
    sizes: list[torch.Size] = []
    tiny.gradcam_layer().register_forward_hook(lambda _module, _given, maps: sizes.append(maps.shape))
    tiny(torch.rand(1, 1, 48, 48))
    assert len(sizes) == 1
    # With fewer positions, a heatmap cannot distinguish mouth and nose.
    assert min(sizes[0][2:]) >= 3


def test_standardise_leaves_flat_images_flat() -> None:
    assert standardise(torch.full((1, 1, 48, 48), 0.7)).abs().max() < 1e-4
    noisy = 0.7 + 1e-4 * torch.randn(1, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    assert standardise(noisy).abs().max() < 0.1


def test_every_parameter_learns(tiny: CompactNetwork) -> None:
    outputs = tiny.train()(torch.rand(32, 1, 48, 48, generator=torch.Generator().manual_seed(0)))
    (outputs.logits.square().sum() + outputs.label_logits.square().sum()).backward()
    idle = [name for name, p in tiny.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_grey_equals_the_grey_of_pillow() -> None:
    colour = faces(1)
    image = Image.fromarray(colour[0].permute(1, 2, 0).numpy())
    expected = torch.tensor(list(image.convert("L").tobytes())).view(1, 1, 48, 48)
    difference = (grey(colour) * 255 - expected).abs().max()
    assert difference <= 1


@torch.no_grad()
def test_served_probabilities_sum_to_one(shipped: CompactNetwork) -> None:
    probabilities, gates, *hints = served_classifier(shipped, 1.3)(faces(3))
    assert {output.dtype for output in (probabilities, gates, *hints)} == {torch.float32}
    assert probabilities.shape == (3, 8)
    assert gates.shape == (3, 2, 4)
    assert [hint.shape for hint in hints] == [(3, 1), (3, 1)]
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(3))


@torch.no_grad()
def test_temperature_softens_probabilities_and_keeps_the_emotion(shipped: CompactNetwork) -> None:
    sharp, *_ = served_classifier(shipped, 0.5)(faces(8))
    soft, *_ = served_classifier(shipped, 3.0)(faces(8))
    assert torch.equal(sharp.argmax(dim=1), soft.argmax(dim=1))
    assert (sharp.amax(dim=1) > soft.amax(dim=1)).all()


@torch.no_grad()
def test_a_served_row_does_not_depend_on_its_neighbours(shipped: CompactNetwork) -> None:
    served = served_classifier(shipped, 1.3)
    batch = faces(5)
    padded = torch.cat([batch, torch.zeros(3, 3, 48, 48, dtype=torch.uint8)])
    for in_batch, in_padded_batch, alone in zip(
        served(batch),
        served(padded),
        (torch.cat(parts) for parts in zip(*(served(face[None]) for face in batch), strict=True)),
        strict=True,
    ):
        torch.testing.assert_close(in_batch, alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(in_padded_batch[:5], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_script_answers_like_the_network(shipped: CompactNetwork, tmp_path: Path) -> None:
    served = served_classifier(shipped, 1.3)
    path = tmp_path / "model.pt"
    torch.jit.script(served).save(str(path))  # type: ignore[no-untyped-call]
    loaded = torch.jit.load(str(path)).eval()  # type: ignore[no-untyped-call]
    for count, side in ((1, 48), (3, 48), (4, 48), (2, 64)):
        batch = faces(count, side)
        for found, expected in zip(loaded(batch), served(batch), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
