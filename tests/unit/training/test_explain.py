"""Heatmaps show which parts of a face support an emotion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from service.core.errors import InvalidImage
from service.core.manifest import EMOTIONS
from service.settings import Settings
from tests.unit.training.made_up import tiny_config
from training.checkpoint import Trained, save_trained
from training.config import NetworkConfig
from training.explain import explain_photo, heatmaps
from training.models import Network, Outputs, build

REPOSITORY = Settings().model_repository
NETWORKS = (
    tiny_config().network,
    tiny_config(network={"name": "attention", "width": 4, "depths": [1, 1, 1, 1]}).network,
)


class Brightness(Network):
    """The logit of its first emotion is the brightness of the image. The second logit is its negative."""

    size = 16
    channels = 1

    def __init__(self) -> None:
        super().__init__()
        same = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(same.weight)
        self.backbone = nn.Sequential(same, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, images: Tensor) -> Outputs:
        brightness = self.backbone(images)
        gates = torch.zeros(len(images), 2, 4)
        logits = torch.cat([brightness, -brightness], dim=1)
        return Outputs(logits, brightness[:, :0], gates, gates, brightness)

    def gradcam_layer(self) -> nn.Module:
        return self.backbone[0]


def test_a_bright_area_supports_brightness_and_nothing_supports_darkness() -> None:
    face = np.zeros((1, 1, 16, 16), np.uint8)
    face[0, 0, 12:, 12:] = 255
    found = heatmaps(Brightness(), face, [0])[0]
    assert found[12:, 12:].min() == pytest.approx(1)
    assert found[:8, :8].max() == pytest.approx(0)
    assert heatmaps(Brightness(), face, [1]).max() == pytest.approx(0)


@pytest.mark.parametrize("config", NETWORKS, ids=lambda config: config.name)
def test_every_face_has_a_heatmap_of_the_size_of_its_image(config: NetworkConfig) -> None:
    torch.manual_seed(0)
    network = build(config, emotions=8, label_emotions=0)
    shape = (3, network.channels, network.size, network.size)
    faces = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = heatmaps(network, faces, [0, 1, 2])
    assert found.shape == (3, network.size, network.size)
    assert found.min() >= 0
    assert found.max() == pytest.approx(1)
    alone = heatmaps(network, faces[1:2], [1])
    np.testing.assert_allclose(alone[0], found[1], atol=1e-3)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = tiny_config()
    network = build(config.network, emotions=8, label_emotions=7).eval()
    save_trained(Trained(network, config, EMOTIONS, EMOTIONS[:7], 1), tmp_path / "best.ckpt")
    return tmp_path


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_every_face_of_a_photo_is_explained(run: Path, astronaut: NDArray[np.uint8], tmp_path: Path) -> None:
    Image.fromarray(np.concatenate([astronaut, astronaut], axis=1)).save(tmp_path / "two.jpg")
    Image.fromarray(astronaut).save(tmp_path / "one.jpg")
    Image.fromarray(np.rot90(astronaut)).save(tmp_path / "turned.jpg")
    two = read(explain_photo(run, tmp_path / "two.jpg", tmp_path / "two.png", REPOSITORY))
    one = read(explain_photo(run, tmp_path / "one.jpg", tmp_path / "one.png", REPOSITORY))
    turned = read(explain_photo(run, tmp_path / "turned.jpg", tmp_path / "turned.png", REPOSITORY))
    # The face is level in both pictures, as the gateway's crop is.
    assert np.abs(turned[60:-60, 30:150].astype(int) - one[60:-60, 30:150]).mean() < 20
    assert two.shape == (2 * one.shape[0], one.shape[1], 3)
    # The picture has the face on the left, and the face coloured by its heatmap in the middle.
    left, middle = (one[60:-60, x : x + 120].astype(int) for x in (30, 220))
    assert np.abs(left - middle).mean() > 5


def test_a_photo_without_a_face_and_a_file_without_a_photo_are_refused(
    run: Path, faceless_jpeg: bytes, tmp_path: Path
) -> None:
    (tmp_path / "none.jpg").write_bytes(faceless_jpeg)
    with pytest.raises(ValueError, match=r"none\.jpg shows no face"):
        explain_photo(run, tmp_path / "none.jpg", tmp_path / "out.png", REPOSITORY)
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(InvalidImage):
        explain_photo(run, tmp_path / "text.jpg", tmp_path / "out.png", REPOSITORY)
    assert not (tmp_path / "out.png").exists()
