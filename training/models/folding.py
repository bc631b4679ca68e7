"""Prepares a network for serving: constant parts are computed once, before export."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from training.models.outputs import Network
from training.models.paper import PaperNetwork, with_spectra


def folded(network: Network) -> Network:
    """A copy for inference: batch norm folded into the convolution before it, large kernels as spectra.

    Answers are equal up to rounding. The copy cannot be trained.
    """
    prepared = with_spectra(network) if isinstance(network, PaperNetwork) else copy.deepcopy(network).eval()
    _fold(prepared)
    return prepared.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _fold(module: nn.Module) -> None:
    for child in module.children():
        _fold(child)
    if isinstance(module, nn.Sequential):
        for index in range(len(module) - 1):
            conv, norm = module[index], module[index + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[index], module[index + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
