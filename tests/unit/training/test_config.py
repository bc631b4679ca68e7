"""Configurations are read, and those with errors are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from training.config import RunConfig, read_config

MINIMAL: dict[str, Any] = {"network": {"name": "compact"}}


def read(folder: Path, content: object) -> RunConfig:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(content))
    return read_config(path)


def test_given_values_are_read_and_the_others_have_defaults(tmp_path: Path) -> None:
    config = read(tmp_path, {**MINIMAL, "epochs": 3, "optimiser": {"momentum": 0.5}})
    assert (config.epochs, config.optimiser.momentum) == (3, 0.5)
    assert config.optimiser.learning_rate == 0.05


def test_a_written_configuration_is_read_back(tmp_path: Path) -> None:
    config = read(tmp_path, {**MINIMAL, "seed": 7})
    assert read(tmp_path, config.model_dump()) == config


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({**MINIMAL, "epoch": 3}, "epoch"),
        ({**MINIMAL, "optimiser": {"learning_rte": 0.1}}, "learning_rte"),
        ({"network": {"name": "compact", "width": 3}}, "width"),
        ({**MINIMAL, "loss": {"contrast": 1}}, "contrast"),
    ],
)
def test_an_unknown_key_is_refused_by_name(tmp_path: Path, content: object, key: str) -> None:
    with pytest.raises(ValidationError, match=rf"\b{key}\b"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({}, "network"),
        ({"network": {"name": "resnet"}}, "name"),
        ({"network": {"name": "compact", "backbone": "face_resnet"}}, "backbone_size"),
        (
            {"network": {"name": "compact", "backbone": "face_mobilenet", "backbone_size": 80}},
            "a multiple of 32",
        ),
        ({"network": {"name": "compact", "backbone_blocks": 14}}, "less than or equal to 13"),
        ({"network": {"name": "compact", "backbone_blocks": 10}}, "backbone_blocks"),
        ({**MINIMAL, "epochs": 0}, "epochs"),
        ({**MINIMAL, "batch": "many"}, "batch"),
        ({**MINIMAL, "validation_share": 1}, "validation_share"),
        ({**MINIMAL, "optimiser": {"learning_rate": 0}}, "learning_rate"),
        ({**MINIMAL, "optimiser": {"momentum": 1}}, "momentum"),
        ({**MINIMAL, "loss": {"label_smoothing": -0.1}}, "label_smoothing"),
        ({**MINIMAL, "augment": {"mixup": 0.6, "cutmix": 0.6}}, "mixup"),
        (
            {**MINIMAL, "augment": {"mixup": 0.1}, "loss": {"distillation_inputs": "clean"}},
            "distillation_inputs",
        ),
        ({**MINIMAL, "optimiser": {"sam_radius": 0.1}, "precision": "16-mixed"}, "sam_radius"),
        ({**MINIMAL, "epochs": 1, "optimiser": {"warmup_epochs": 1}}, "warmup_epochs"),
        ({"network": {"name": "compact", "experts": 4, "top_k": 5}}, "top_k"),
        (
            {**MINIMAL, "balanced_sampling": 0.5, "loss": {"rebalancing": "logit_adjusted"}},
            "balanced_sampling",
        ),
        ({**MINIMAL, "balanced_sampling": 1, "loss": {"rebalancing": "class_balanced"}}, "balanced_sampling"),
        ({**MINIMAL, "early_stopping": {"patience": 0}}, "patience"),
        ({**MINIMAL, "seed": -1}, "seed"),
        ({**MINIMAL, "ferplus_votes": "some"}, "ferplus_votes"),
        ({**MINIMAL, "dataset": "imagenet"}, "dataset"),
        ({"network": {"name": "attention", "experts": 4}}, "experts"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused_by_name(tmp_path: Path, content: object, key: str) -> None:
    with pytest.raises(ValidationError, match=rf"\b{key}\b"):
        read(tmp_path, content)


def test_code_in_a_configuration_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("network: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ValueError, match="is not YAML"):
        read_config(path)


def test_a_configuration_is_frozen(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        read(tmp_path, MINIMAL).epochs = 4  # type: ignore[misc]
