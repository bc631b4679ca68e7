"""Weights in the format of TensorFlow.js."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def weight_files(manifest: Path) -> list[Path]:
    """The files that a valid manifest names."""
    return [manifest.parent / path for group in _groups(manifest) for path in group["paths"]]


def read_weights(manifest: Path) -> dict[str, Tensor]:
    """Tensors by name, from the files beside a manifest. Quantized values are bytes with scale and minimum.

    manifest: a list of groups, or a model with such a list.
    Raises `ValueError` for another content, `FileNotFoundError` for a missing file.
    """
    try:
        return _read(manifest)
    except FileNotFoundError:
        raise
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{manifest} does not list weights of TensorFlow.js: {error}") from error


def _groups(manifest: Path) -> list[dict[str, Any]]:
    content = json.loads(manifest.read_text())
    groups: list[dict[str, Any]] = content["weightsManifest"] if isinstance(content, dict) else content
    return groups


def _read(manifest: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for group in _groups(manifest):
        data = b"".join((manifest.parent / path).read_bytes() for path in group["paths"])
        offset = 0
        for entry in group["weights"]:
            packing = entry.get("quantization")
            kind = np.dtype(packing["dtype"] if packing else entry["dtype"]).newbyteorder("<")
            count = int(np.prod(entry["shape"]))
            values = np.frombuffer(data, kind, count, offset).astype(np.float32)
            offset += count * kind.itemsize
            if packing:
                values = values * np.float32(packing["scale"]) + np.float32(packing["min"])
            found[entry["name"]] = torch.from_numpy(values.reshape(entry["shape"]))
    return found
