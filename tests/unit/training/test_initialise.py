from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.training.made_up import TINY_BACKBONE
from training.config import CompactConfig
from training.initialise import initialise
from training.models import Network, build


def tiny(emotions: int = 8, label_emotions: int = 7, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    network = CompactConfig(name="compact", extractor_width=1, features=8, **TINY_BACKBONE)
    return build(network, emotions=emotions, label_emotions=label_emotions)


def saved(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("wrapper", [None, "average", "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_of_the_whole_network_are_copied(wrapper: str | None, prefix: str, tmp_path: Path) -> None:
    source = tiny(seed=1).state_dict()
    content: Any = {prefix + name: value for name, value in source.items()}
    network = tiny()
    found = initialise(network, saved({wrapper: content} if wrapper else content, tmp_path / "w.pt"))
    assert (found.where, found.mismatched, found.fresh, found.unused) == ("the network", (), (), ())
    assert found.parameters == sum(value.numel() for value in source.values())
    for name, value in network.state_dict().items():
        assert torch.equal(value, source[name]), name


def test_a_folder_of_a_run_has_its_best_weights(tmp_path: Path) -> None:
    saved(tiny(seed=1).state_dict(), tmp_path / "best.ckpt")
    assert initialise(tiny(), tmp_path).where == "the network"


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_weights_of_a_backbone_are_copied_into_the_backbone(prefix: str, tmp_path: Path) -> None:
    backbone = tiny(seed=1).get_submodule("backbone").state_dict()
    content = {prefix + name: value for name, value in backbone.items()} | {"fc.weight": torch.zeros(10, 4)}
    network = tiny()
    found = initialise(network, saved(content, tmp_path / "w.pt"))
    assert found.where == "its backbone"
    assert len(found.matched) == len(backbone)
    assert len(found.unused) == 1
    assert "main_head.weight" in found.fresh
    for name, value in backbone.items():
        assert torch.equal(network.state_dict()[f"backbone.{name}"], value)


def test_weights_with_other_names_are_matched_by_order_and_colour_becomes_grey(tmp_path: Path) -> None:
    backbone = tiny(seed=1).get_submodule("backbone").state_dict()
    content = {f"_tensor{number}": value for number, value in enumerate(backbone.values()) if value.dim()}
    content["_tensor0"] = torch.cat([content["_tensor0"] * share for share in (0.5, 0.3, 0.2)], dim=1)
    content["classifier"] = torch.zeros(10, 4)
    network = tiny()
    found = initialise(network, saved(content, tmp_path / "w.pt"))
    assert found.where == "its backbone, in order"
    assert found.unused == ("classifier",)
    for name, value in backbone.items():
        if value.dim():
            torch.testing.assert_close(network.state_dict()[f"backbone.{name}"], value)


def test_a_backbone_of_another_size_is_refused(tmp_path: Path) -> None:
    backbone = tiny(seed=1).get_submodule("backbone").state_dict()
    content = {f"_tensor{number}": value for number, value in enumerate(backbone.values()) if value.dim()}
    content.popitem()
    with pytest.raises(ValueError, match="no tensor in"):
        initialise(tiny(), saved(content, tmp_path / "w.pt"))


def test_heads_for_other_emotions_stay_fresh_and_are_named(tmp_path: Path) -> None:
    network = tiny(emotions=7)
    before = network.state_dict()["main_head.weight"].clone()
    found = initialise(network, saved(tiny(emotions=8, seed=1).state_dict(), tmp_path / "w.pt"))
    assert torch.equal(network.state_dict()["main_head.weight"], before)
    assert found.mismatched[0] == "main_head.weight [8, 16] for [7, 16]"
    assert "2 of another shape, not copied: main_head.weight" in str(found)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"other.weight": torch.zeros(3)}, "no tensor in"),
        ({}, "holds no state dict"),
        ([1, 2], "holds no state dict"),
    ],
)
def test_weights_that_do_not_fit_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        initialise(tiny(), saved(content, tmp_path / "w.pt"))


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_text("not weights")
    with pytest.raises(ValueError, match="is not a file of weights"):
        initialise(tiny(), tmp_path / "w.pt")
