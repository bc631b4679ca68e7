"""The networks by their names in configurations."""

from __future__ import annotations

from training.config import NetworkConfig
from training.models.attention import AttentionNetwork
from training.models.compact import CompactNetwork
from training.models.outputs import Network, Outputs
from training.models.paper import PaperNetwork

__all__ = ["Network", "Outputs", "build"]

NETWORKS: dict[str, type[Network]] = {
    "attention": AttentionNetwork,
    "paper": PaperNetwork,
    "compact": CompactNetwork,
}


def build(config: NetworkConfig, *, emotions: int, label_emotions: int) -> Network:
    """A freshly initialised network. emotions, label_emotions: outputs of its main and its label head."""
    return NETWORKS[config.name](config, emotions, label_emotions)
