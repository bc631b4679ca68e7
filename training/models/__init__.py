"""The networks by their names in configurations."""

from __future__ import annotations

from training.config import NetworkConfig
from training.models.expressnet import ExpressNet
from training.models.expressnet_moe import ExpressNetMoE
from training.models.expressnet_moe_s import ExpressNetMoES
from training.models.outputs import Network, Outputs

__all__ = ["Network", "Outputs", "build"]

NETWORKS: dict[str, type[Network]] = {
    "expressnet": ExpressNet,
    "expressnet_moe": ExpressNetMoE,
    "expressnet_moe_s": ExpressNetMoES,
}


def build(config: NetworkConfig, *, served: int, auxiliary: int) -> Network:
    """A freshly initialised network; served and auxiliary: how many labels its two heads answer."""
    arguments = config.model_dump(exclude={"name"})
    return NETWORKS[config.name](classes=served, auxiliary_classes=auxiliary, **arguments)
