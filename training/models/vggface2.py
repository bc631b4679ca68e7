"""Published weights of ResNet-50s under the names of `ResNet50`'s parameters, or refused."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from training.models.backbones import PUBLISHED
from training.models.resnet import EPSILON, ResNet50

KINDS = [name for name in PUBLISHED if name.startswith("resnet50_")]
# Named as in torchvision, whose geometry differs: only the user can know what the file is.
AMBIGUOUS = "resnet50_caffe"

_PARTS = {"reduce": "1x1_reduce", "spatial": "3x3", "increase": "1x1_increase", "proj": "1x1_proj"}
_KERAS_NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}
_INSIDE_A_STAGE = re.compile(r"layer\d\.|conv\d_\d")


def resnet50_kind(given: dict[str, Tensor], stated: str | None) -> str | None:
    """The entry of the registry that weights are of, by their names; None for another network's.

    stated: what the user says or the digest of the file shows. Raises `ValueError` when it differs from the
    names, when names fit two geometries and it is None, or when the geometry is not `ResNet50`'s.
    """
    if stated is not None and stated not in KINDS:
        raise ValueError(f"the kind of weights is {stated}, but must be one of {', '.join(KINDS)}")
    found = None
    for kind in ("resnet50_keras", "resnet50_dag", AMBIGUOUS):
        if _find(given, _published_name("conv2.0.reduce.0.weight", kind)) is not None:
            found = kind
    if found == AMBIGUOUS:
        if stated is None:
            raise ValueError(
                "the names of these weights fit ResNet-50s of two geometries, with the stride of a stage in "
                f"its first 1x1 convolution or in its 3x3 one; --weights-kind {AMBIGUOUS} states the first"
            )
        if stated == "resnet50_torchvision":
            raise ValueError(
                f"the weights are of {PUBLISHED[stated].source}, with the stride of a stage in its 3x3 "
                "convolution; the network's is in the first 1x1 convolution"
            )
    if stated is not None and stated != found:
        raise ValueError(f"the weights have the names of {found or 'another network'}, not of {stated}")
    return found


def resnet50_state(given: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    """Weights of a kind by `ResNet50`'s names, for BGR pixels and its epsilon; other tensors are unchanged.

    Raises `ValueError` when a tensor is missing or has another shape, or stages have other layers.
    """
    with torch.device("meta"):
        own = ResNet50().state_dict()
    rest, state = dict(given), {}
    for name, expected in own.items():
        if name.endswith("num_batches_tracked"):
            continue
        published = _published_name(name, kind)
        source = _find(rest, published)
        if source is None:
            raise ValueError(f"the weights of {kind} lack {published}")
        value = rest.pop(source)
        if kind == "resnet50_keras" and value.dim() == 4:
            value = value.permute(3, 2, 0, 1).contiguous()
        if value.shape != expected.shape:
            raise ValueError(f"{source} has the shape {list(value.shape)}, not {list(expected.shape)}")
        state[name] = value.float()
    if extra := [name for name in rest if _INSIDE_A_STAGE.search(name) and not name.endswith("tracked")]:
        raise ValueError(f"the weights have layers that a ResNet-50 lacks, such as {extra[0]}")
    if not PUBLISHED[kind].bgr:
        state["conv1.0.weight"] = state["conv1.0.weight"].flip(1)
    for name in [name for name in state if name.endswith("running_var")]:
        weight, variance = name.replace("running_var", "weight"), state[name]
        # The answer stays the same with the network's epsilon.
        state[weight] = state[weight] * ((variance + EPSILON) / (variance + PUBLISHED[kind].epsilon)).sqrt()
    return {**rest, **state}


def _find(given: dict[str, Tensor], name: str) -> str | None:
    """The tensor's name with its prefix: groups of an HDF5 file, or modules around the network."""
    ends = ("/" + name, "." + name)
    return next((found for found in given if found == name or found.endswith(ends)), None)


def _published_name(own: str, kind: str) -> str:
    *place, index, value = own.split(".")
    is_norm = index == "1"
    if kind == AMBIGUOUS:
        layer = "bn" if is_norm else "conv"
        if len(place) == 1:
            return f"{layer}1.{value}"
        stage, block, part = place
        layer = f"downsample.{index}" if part == "proj" else f"{layer}{[*_PARTS].index(part) + 1}"
        return f"layer{int(stage[-1]) - 1}.{block}.{layer}.{value}"
    if len(place) == 1:
        layer = "conv1/7x7_s2"
    else:
        stage, block, part = place
        layer = f"{stage}_{int(block) + 1}_{_PARTS[part]}"
    if is_norm:
        layer += "/bn"
    if kind == "resnet50_keras":
        return f"{layer}/{_KERAS_NORM[value] if is_norm else 'kernel'}"
    return f"{layer.replace('/', '_')}.{value}"
