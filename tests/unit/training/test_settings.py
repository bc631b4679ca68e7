"""Presets, and changes of settings by dotted keys."""

from __future__ import annotations

from typing import Any

import pytest

from training.config import EarlyStoppingConfig, RunConfig
from training.models import build
from training.settings import PRESETS, assignments, changed, preset

NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))


def test_there_are_three_presets() -> None:
    assert NAMES == ["attention", "compact", "paper"]
    with pytest.raises(ValueError, match="the presets are attention, compact, paper"):
        preset("small")


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_builds_and_needs_no_teacher(name: str) -> None:
    config = preset(name)
    assert config.loss.distillation == 0
    network = build(config.network, emotions=8, label_emotions=7)
    assert network.size >= 48


def set_(*pairs: str) -> RunConfig:
    return changed(preset("compact"), assignments(pairs))


def test_values_are_yaml_and_the_others_stay() -> None:
    config = set_("optimiser.learning_rate=1e-3", "network.residual_widths=[4, 8]", "augment.mirror=0")
    assert (config.optimiser.learning_rate, config.network.residual_widths) == (0.001, (4, 8))  # type: ignore[union-attr]
    assert (config.augment.mirror, config.augment.pose) == (0, 0.7)


def test_parts_that_are_off_can_be_set_and_switched_off() -> None:
    config = set_("early_stopping.patience=3")
    assert config.early_stopping == EarlyStoppingConfig(patience=3)
    assert set_("early_stopping={patience: 3}") == config
    assert changed(config, {"early_stopping": None}).early_stopping is None


def test_another_network_has_its_own_defaults() -> None:
    config = set_("network.name=attention", "network.width=8")
    assert config.network.model_dump()["width"] == 8
    assert "features" not in config.network.model_dump()


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("epochs", "epochs is not KEY=VALUE"),
        ("=3", "=3 is not KEY=VALUE"),
        ("epochs=[", "epochs is not YAML"),
        ("epoch=3", "epoch is not a setting; similar: epochs"),
        ("optimiser.learning_rte=3", r"similar: optimiser\.learning_rate"),
        ("learning_rate=3", r"similar: optimiser\.learning_rate"),
        ("nothing.like.it=3", "is not a setting$"),
        ("epochs=0", "epochs"),
        ("network=5", "network"),
        ("network.width=8", "width"),
    ],
)
def test_an_error_names_the_key_and_similar_ones(pair: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        set_(pair)


def test_later_changes_count() -> None:
    changes: dict[str, Any] = {"loss": {"label_head": 2}, "loss.label_head": 3}
    assert changed(preset("compact"), changes).loss.label_head == 3
