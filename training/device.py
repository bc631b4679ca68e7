"""Where networks run: one choice for training, evaluation, adaptation and export."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from training.config import Precision
from training.models.mixture import MixtureOfExperts

DeviceName = Literal["auto", "cpu", "cuda"]

# Instructions of a CPU that multiply bfloat16. Without them, torch emulates the products.
BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def choose_device(name: DeviceName = "auto", *, tf32: bool = False) -> torch.device:
    """The device of a name. `auto` is a GPU if torch finds one, and the CPU otherwise.

    tf32: a GPU rounds the factors of float32 products to 10 bits of mantissa. This is faster and suits
    training. Measurements do without, so that a GPU gives the figures of a CPU.
    Raises `ValueError` for `cuda` without a GPU.
    """
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ValueError("the device cuda is not available: torch finds no GPU")
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    return torch.device("cuda" if found and name != "cpu" else "cpu")


def choose_precision(precision: Literal["auto"] | Precision, device: torch.device) -> Precision:
    """`auto` is bf16-mixed where the device multiplies bfloat16, and 32-true elsewhere."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if multiplies_bfloat16(device) else "32-true"


def compile_parts(network: nn.Module) -> None:
    """Compile the parts of a network by `torch.compile`, in place, when they run for the first time.

    Mixtures are not compiled: together with the rest, torch 2.13 gives NaN for their weights on a CPU.
    """
    for part in network.children():
        if not isinstance(part, MixtureOfExperts):
            part.compile()


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in BFLOAT16_INSTRUCTIONS)
