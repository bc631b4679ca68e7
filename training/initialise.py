"""Beginning with weights from elsewhere: a run of this project, or a pretrained backbone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.models import Network
from training.models.face_resnet import published_state

# What others wrap a state dict in, and what they put before its names.
WRAPPERS = ("average", "state_dict", "model_state_dict", "model")
PREFIXES = ("module.", "model.", "network.", "encoder.", "backbone.")
SHOWN = 5


@dataclass(frozen=True)
class Initialised:
    """What a source gave a network, by tensor names of the network (unused: of the source)."""

    where: str
    matched: tuple[str, ...]
    parameters: int
    mismatched: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{len(self.matched)} tensors ({self.parameters:,} values) matched {self.where}"]
        for what, names in (
            ("of another shape, left fresh", self.mismatched),
            ("not in the source, left fresh", self.fresh),
            ("in the source but not used", self.unused),
        ):
            if names:
                more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                lines.append(f"{len(names)} {what}: {', '.join(names[:SHOWN])}{more}")
        return "\n".join(lines)


def initialise(network: Network, source: Path) -> Initialised:
    """Copy every tensor of a state dict or checkpoint whose name and shape the network has.

    The source is tried as the whole network and as its backbone, with and without the prefixes that others
    use, and as a backbone whose tensors have other names but the same shapes in the same order; what matches
    most is taken. A first layer for RGB is summed for a network that sees grey, which is as if it saw grey
    thrice. Heads for another number of emotions stay fresh.
    Raises `ValueError` when the file is no state dict or nothing in it matches.
    """
    own = network.state_dict()
    given = read_state_dict(source)
    if network.channels == 1:
        given = {name: _grey(value) for name, value in given.items()}
    targets = {"the network": "", "its backbone": "backbone."}
    attempts = [
        (where, _renamed(given, prefix, target))
        for where, target in targets.items()
        for prefix in ("", *PREFIXES)
    ]
    attempts.append(("its backbone, in order", _in_order(given, own, "backbone.")))
    where, renamed = max(attempts, key=lambda attempt: len(_matching(attempt[1], own)))
    matched = _matching(renamed, own)
    if not matched:
        raise ValueError(f"nothing in {source} has a name and shape of {type(network).__name__}")
    network.load_state_dict({name: renamed[name] for name in matched}, strict=False)
    return Initialised(
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
    """Tensors by name, from a state dict, what wraps one, or the manifest of face-api's face recognition.

    Raises `ValueError` for any other file.
    """
    if source.suffix == ".json":
        return published_state(source)
    try:
        content: Any = torch.load(source, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch.load raises whatever its unpickler meets
        raise ValueError(f"{source} is not a file of weights: {error}") from error
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    tensors = {
        name: value
        for name, value in (content.items() if isinstance(content, dict) else ())
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise ValueError(f"{source} holds no state dict")
    return tensors


def _renamed(given: dict[str, Tensor], prefix: str, target: str) -> dict[str, Tensor]:
    return {target + name.removeprefix(prefix): value for name, value in given.items()}


def _in_order(given: dict[str, Tensor], own: dict[str, Tensor], target: str) -> dict[str, Tensor]:
    """The source by the network's names if it begins with all shapes of the target; else as it is."""
    wanted = [name for name in own if name.startswith(target) and own[name].dim()]
    found = [name for name in given if given[name].dim()]
    shapes = [given[name].shape for name in found[: len(wanted)]]
    if shapes != [own[name].shape for name in wanted]:
        return given
    names = dict(zip(found, wanted, strict=False))
    return {names.get(name, name): value for name, value in given.items()}


def _grey(value: Tensor) -> Tensor:
    """Weights of a convolution over RGB -> over grey; anything else as it is."""
    return value.sum(dim=1, keepdim=True) if value.dim() == 4 and value.shape[1] == 3 else value


def _matching(given: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    return [name for name in own if name in given and given[name].shape == own[name].shape]
