"""Adapting a trained network to pictures from another place."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from service.core.manifest import EMOTIONS, digest
from tests.unit.training.made_up import tiny_config
from training import adapt as adapting
from training.adapt import adapt, renormalised
from training.checkpoint import Trained, load_trained, save_trained
from training.datasets.faces import PixelPictures
from training.models import Network, build


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
    network = build(config.network, emotions=8, label_emotions=7)
    path = tmp_path / "source.ckpt"
    save_trained(Trained(network.eval(), config, EMOTIONS, EMOTIONS[:7], 1), path)
    return path


def test_batch_norm_statistics_are_mixed_and_the_rest_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """With N = 30, ten pictures count a quarter."""
    monkeypatch.setattr(adapting, "SOURCE_IMAGES", 30)
    network = build(tiny_config().network, emotions=8, label_emotions=0)
    norm = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    assert norm.running_mean is not None
    norm.momentum = 0.01
    norm.running_mean.fill_(8)
    weights = {name: value.clone() for name, value in network.named_parameters()}
    pixels = np.stack([striped("happy", row) for row in range(10)])
    renormalised(network, PixelPictures(pixels))
    seen: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(torch.from_numpy(pixels)[:, None].float() / 255)
    torch.testing.assert_close(norm.running_mean, 0.75 * 8 + 0.25 * seen[0].mean(dim=(0, 2, 3)))
    assert norm.momentum == 0.01
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
    done = adapt(
        source,
        out,
        unlabelled=tmp_path / "unlabelled",
        labelled=tmp_path / "labelled",
        epochs=12,
        learning_rate=0.05,
    )
    assert list(done.stages) == ["before", "batch norm", "fine-tuned"]
    assert done.stages["before"]["accuracy"].samples == 20
    assert done.stages["before"]["validation_accuracy"].samples == 16
    assert done.stages["fine-tuned"]["accuracy"].value > 0.8
    assert done.kept == "fine-tuned"
    written = json.loads((out / "adaptation.json").read_text())
    assert written["stages"]["fine-tuned"]["accuracy"]["samples"] == 20
    page = (out / "adaptation.md").read_text()
    assert "| fine-tuned |" in page
    assert "`best.ckpt` is the stage fine-tuned" in page
    assert load_trained(out).emotions == EMOTIONS
    entries = json.loads((out / "versions.json").read_text())
    assert entries[-1]["weights_sha256"] == digest(source)


def test_a_network_that_adapting_would_harm_stays_as_it_was(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "labelled", range(40))
    write_pictures(tmp_path / "unlabelled", range(100, 110))

    def damaged(network: Network) -> Network:
        network = copy.deepcopy(network)
        # The answer is always neutral, of which there is no picture.
        for parameter in network.get_submodule("main_head").parameters():
            nn.init.zeros_(parameter)
        return network

    monkeypatch.setattr(adapting, "renormalised", lambda network, _: damaged(network))
    monkeypatch.setattr(
        adapting, "fine_tuned", lambda trained, *_: replace(trained, network=damaged(trained.network))
    )
    done = adapt(source, tmp_path / "out", unlabelled=tmp_path / "unlabelled", labelled=tmp_path / "labelled")
    assert done.kept == "before"
    kept, before = load_trained(tmp_path / "out").network, load_trained(source).network
    for name, value in before.state_dict().items():
        assert torch.equal(kept.state_dict()[name], value), name
    assert "The network stays as it was" in (tmp_path / "out" / "adaptation.md").read_text()


def test_an_emotion_that_the_network_does_not_answer_is_refused(source: Path, tmp_path: Path) -> None:
    trained = load_trained(source)
    network = build(trained.config.network, emotions=2, label_emotions=0)
    save_trained(Trained(network, trained.config, EMOTIONS[:2], (), 1), tmp_path / "two.ckpt")
    write_pictures(tmp_path / "labelled", range(20))
    with pytest.raises(ValueError, match="the network lacks surprise, sadness"):
        adapt(tmp_path / "two.ckpt", tmp_path / "out", labelled=tmp_path / "labelled")


def test_unlabelled_pictures_alone_adapt_but_measure_nothing(source: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "unlabelled", range(9))
    done = adapt(source, tmp_path / "out", unlabelled=tmp_path / "unlabelled")
    assert (done.kept, done.pictures, done.stages) == ("batch norm", 9, {})
    adapted, before = load_trained(tmp_path / "out").network, load_trained(source).network
    for (name, after), earlier in zip(adapted.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(after, earlier), name
    changed = [not torch.equal(a, b) for a, b in zip(adapted.buffers(), before.buffers(), strict=True)]
    assert any(changed)
    # The export reads versions.json.
    (entry,) = json.loads((tmp_path / "out" / "versions.json").read_text())
    assert entry["weights_sha256"] == digest(source)
    page = (tmp_path / "out" / "adaptation.md").read_text()
    assert f"those of 9 unlabelled pictures, which count {done.share:.0%}" in page
    assert "nothing was measured" in page


def test_adapting_without_pictures_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a folder"):
        adapt(source, tmp_path / "out")
