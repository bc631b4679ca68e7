"""Adapting a trained network to pictures from another place."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from service.core.manifest import EMOTIONS, digest
from tests.unit.training.made_up import tiny_config
from training.adapt import FineTuning, adapt, renormalised
from training.checkpoint import Trained, load_trained, save_trained
from training.datasets.faces import PixelPictures
from training.models import build


def striped(emotion: str, row: int) -> NDArray[np.uint8]:
    """Happy pictures have vertical stripes, sad ones horizontal stripes. A network learns this in seconds."""
    stripes = np.tile(np.arange(48) // 4 % 2 * 160, (48, 1))
    noise = np.random.default_rng(row).integers(0, 90, (48, 48))
    return ((stripes if emotion == "happy" else stripes.T) + noise).astype(np.uint8)


def write_pictures(folder: Path, rows: range) -> None:
    for row in rows:
        emotion = ("happy", "sad")[row % 2]
        (folder / emotion).mkdir(parents=True, exist_ok=True)
        Image.fromarray(striped(emotion, row)).save(folder / emotion / f"{row}.png")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint whose network learned from a teacher. The teacher is missing, as for the shipped one."""
    torch.manual_seed(0)
    config = tiny_config(
        dataset="folder",
        augment={"mirror": 0, "pose": 0, "occlusion": 0, "light": 0},
        loss={"distillation": 0.5},
    )
    network = build(config.network, served=8, auxiliary=7)
    path = tmp_path / "source.ckpt"
    save_trained(Trained(network.eval(), config, EMOTIONS, EMOTIONS[:7], 1), path)
    return path


def test_batch_norm_is_measured_again_and_weights_stay() -> None:
    config = tiny_config()
    network = build(config.network, served=8, auxiliary=0)
    weights = {name: value.clone() for name, value in network.named_parameters()}
    pixels = np.stack([striped("happy", row) for row in range(10)])
    renormalised(network, PixelPictures(pixels))
    norm = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    seen: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(torch.from_numpy(pixels)[:, None].float() / 255)
    assert norm.running_mean is not None
    torch.testing.assert_close(norm.running_mean, seen[0].mean(dim=(0, 2, 3)))
    assert not network.training
    for name, value in network.named_parameters():
        assert torch.equal(value, weights[name])


def test_labelled_pictures_improve_accuracy_and_the_report_has_each_step(
    source: Path, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "labelled" / "train", range(64))
    write_pictures(tmp_path / "labelled" / "test", range(64, 84))
    write_pictures(tmp_path / "unlabelled", range(100, 130))
    out = tmp_path / "out"
    figures = adapt(
        source,
        out,
        unlabelled=tmp_path / "unlabelled",
        labelled=tmp_path / "labelled",
        tuning=FineTuning(epochs=12, learning_rate=0.05),
    )
    assert list(figures) == ["before", "batch norm", "fine-tuned"]
    assert figures["before"]["accuracy"].samples == 20
    assert figures["fine-tuned"]["accuracy"].value > 0.8
    assert json.loads((out / "adaptation.json").read_text())["fine-tuned"]["accuracy"]["samples"] == 20
    assert "| fine-tuned |" in (out / "adaptation.md").read_text()
    assert load_trained(out).served == EMOTIONS


def test_unlabelled_pictures_alone_adapt_but_measure_nothing(source: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "unlabelled", range(9))
    assert adapt(source, tmp_path / "out", unlabelled=tmp_path / "unlabelled") == {}
    adapted, before = load_trained(tmp_path / "out").network, load_trained(source).network
    for (name, after), earlier in zip(adapted.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(after, earlier), name
    changed = [not torch.equal(a, b) for a, b in zip(adapted.buffers(), before.buffers(), strict=True)]
    assert any(changed)
    # The export reads versions.json.
    (entry,) = json.loads((tmp_path / "out" / "versions.json").read_text())
    assert entry["weights_sha256"] == digest(source)
    assert "nothing was measured" in (tmp_path / "out" / "adaptation.md").read_text()


def test_adapting_without_pictures_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a folder"):
        adapt(source, tmp_path / "out")
