"""The networks, by the name that their configs give."""

from __future__ import annotations

from training.config import NetworkConfig
from training.models.compact import ExpressNetMoES


def build(config: NetworkConfig) -> ExpressNetMoES:
    """A freshly initialised network."""
    return ExpressNetMoES(**config.model_dump(exclude={"name"}))
