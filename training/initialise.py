"""Initialises a network from a run of this project or from a pretrained backbone."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.checkpoint import checkpoint_file
from training.lineage import content_sha256
from training.models import Network, face_mobilenet, face_resnet
from training.models.backbones import PUBLISHED, registered
from training.models.resnet import ResNet50
from training.models.tfjs import read_weights
from training.models.vggface2 import resnet50_kind, resnet50_state

# Keys around a state dict, and prefixes of its names, in files of other projects.
WRAPPERS = ("average", "state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "model.", "network.", "encoder.", "backbone.")
SHOWN = 5


@dataclass(frozen=True)
class Initialised:
    """What was copied from a source. Names of tensors are the network's; in `unused`, the source's.

    published: the entry of the registry that the source is, None if the registry does not have it.
    """

    published: str | None
    where: str
    matched: tuple[str, ...]
    parameters: int
    mismatched: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{len(self.matched)} tensors ({self.parameters:,} values) matched {self.where}"]
        if self.published is not None:
            lines.append(f"published weights: {PUBLISHED[self.published]}")
        for what, names in (
            ("of another shape, not copied", self.mismatched),
            ("missing in the source", self.fresh),
            ("in the source but not used", self.unused),
        ):
            if names:
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                lines.append(f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}")
        return "\n".join(lines)


def initialise(network: Network, source: Path, kind: str | None = None) -> Initialised:
    """Copy every tensor of a state dict, checkpoint or run's folder whose name and shape the network has.

    The source is tried as the whole network and as its backbone, with and without common prefixes. It is also
    tried as a backbone with other names but the same shapes in the same order. The attempt with most matches
    is used. For a grey network, a first layer for RGB is summed over its channels. Heads for another number
    of emotions are not copied. Weights of a ResNet-50 are converted by their kind, because geometries differ
    that names and shapes do not show.
    kind: name of the source in the registry of backbones, where names and digest do not show it.
    Raises `ValueError` when the file is not a state dict, no tensor matches, or the geometry is not the
    network's or not known.
    """
    source = checkpoint_file(source)
    own = network.state_dict()
    given = read_state_dict(source)
    published = registered(content_sha256(source))
    in_order = True
    if isinstance(getattr(network, "backbone", None), ResNet50):
        in_order = False
        published = resnet50_kind(given, kind or published)
        if published is not None:
            given = resnet50_state(given, published)
    elif kind not in (None, published):
        raise ValueError(f"{source} is not {kind}: its digest is not registered")
    if network.channels == 1:
        given = {name: _grey(value) for name, value in given.items()}
    attempts = [
        (where, {target + name.removeprefix(prefix): value for name, value in given.items()})
        for where, target in (("the network", ""), ("its backbone", "backbone."))
        for prefix in ("", *PREFIXES)
    ]
    if in_order:
        attempts.append(("its backbone, in order", _in_order(given, own, "backbone.")))
    where, renamed = max(attempts, key=lambda attempt: len(_matching(attempt[1], own)))
    matched = _matching(renamed, own)
    if not matched:
        raise ValueError(f"no tensor in {source} has a name and shape of {type(network).__name__}")
    network.load_state_dict({name: renamed[name] for name in matched}, strict=False)
    return Initialised(
        published=published,
        where=where,
        matched=tuple(matched),
        parameters=sum(own[name].numel() for name in matched),
        mismatched=tuple(
            f"{name} {list(renamed[name].shape)} for {list(own[name].shape)}"
            for name in own
            if name in renamed and name not in matched
        ),
        fresh=tuple(name for name in own if name not in renamed),
        unused=tuple(name for name in renamed if name not in own),
    )


def read_state_dict(source: Path) -> dict[str, Tensor]:
    """Tensors by name, from a state dict, a checkpoint, Keras' HDF5, or a manifest of TensorFlow.js.

    Raises `ValueError` for any other file.
    """
    if source.suffix == ".json":
        return _read_tfjs(source)
    if source.suffix in (".h5", ".hdf5"):
        return _read_hdf5(source)
    try:
        content: Any = torch.load(source, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch.load raises whatever its unpickler meets
        raise ValueError(f"{source} is not a file of weights: {error}") from error
    content = content if isinstance(content, dict) else {}
    content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), content)
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{source} holds no state dict")
    return tensors


def _read_tfjs(manifest: Path) -> dict[str, Tensor]:
    weights = read_weights(manifest)
    for state in (face_resnet.published_state, face_mobilenet.published_state):
        with contextlib.suppress(KeyError):
            return state(weights)
    raise ValueError(f"{manifest} lists the weights of no face recognition that is registered")


def _read_hdf5(source: Path) -> dict[str, Tensor]:
    import h5py  # here, because a pack does without it

    tensors: dict[str, Tensor] = {}

    def read(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f":
            tensors[name.removesuffix(":0")] = torch.from_numpy(item[()])

    try:
        with h5py.File(source) as file:
            file.visititems(read)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{source} is not an HDF5 file: {error}") from error
    if not tensors:
        raise ValueError(f"{source} holds no weights")
    return tensors


def _in_order(given: dict[str, Tensor], own: dict[str, Tensor], target: str) -> dict[str, Tensor]:
    """Rename the source to the network's names if its first shapes are the target's; else return it as is."""
    expected = [name for name in own if name.startswith(target) and own[name].dim()]
    found = [name for name in given if given[name].dim()]
    shapes = [given[name].shape for name in found[: len(expected)]]
    if shapes != [own[name].shape for name in expected]:
        return given
    names = dict(zip(found, expected, strict=False))
    return {names.get(name, name): value for name, value in given.items()}


def _grey(value: Tensor) -> Tensor:
    """Weights of a convolution over RGB -> over grey; other tensors are returned unchanged."""
    return value.sum(dim=1, keepdim=True) if value.dim() == 4 and value.shape[1] == 3 else value


def _matching(given: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    return [name for name in own if name in given and given[name].shape == own[name].shape]
