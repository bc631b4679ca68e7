"""A training run as data: YAML into a frozen, checked class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NetworkConfig(_Part):
    """Arguments of the network's constructor."""

    name: Literal["expressnet_moe_s"]
    backbone_width: Count = 64
    backbone_depth: Count = 2
    extractor_width: Count = 16
    features: Count = 256
    experts: Count = 4
    top_k: Count = 2
    renormalise: bool = True
    dropout: Share = 0.3


class OptimiserConfig(_Part):
    """SGD with Nesterov momentum under warm-up and cosine decay."""

    learning_rate: Positive = 0.05
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    clip_norm: Positive = 5.0
    ema_decay: Share = 0.998


class LossConfig(_Part):
    """Weights of the terms beside the cross-entropy to the FER+ distribution."""

    auxiliary: Annotated[float, Field(ge=0)] = 0.5
    label_smoothing: Share = 0.1
    load_balancing: Annotated[float, Field(ge=0)] = 0.01


class RunConfig(_Part):
    """One published run."""

    network: NetworkConfig
    optimiser: OptimiserConfig = OptimiserConfig()
    loss: LossConfig = LossConfig()
    epochs: Count = 30
    batch: Count = 128
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    seed: int = 0


def read_config(path: Path) -> RunConfig:
    """Raises `pydantic.ValidationError`, which names the key, when a value is not allowed."""
    return RunConfig.model_validate(yaml.safe_load(path.read_text()))
