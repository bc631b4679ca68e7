"""The choice of the device and of the precision."""

from __future__ import annotations

import pytest
import torch

from training.device import choose_device, choose_precision, multiplies_bfloat16

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("name", "gpu", "chosen"),
    [("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_auto_is_a_gpu_if_there_is_one(
    name: str, gpu: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert choose_device(name).type == chosen  # type: ignore[arg-type]


def test_a_missing_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="finds no GPU"):
        choose_device("cuda")


def test_only_training_rounds_factors() -> None:
    for tf32 in (True, False):
        choose_device("cpu", tf32=tf32)
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == tf32


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ({"avx2": True, "avx512_f": True}, "32-true"),
        ({"avx2": True, "avx512_bf16": True}, "bf16-mixed"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bf16-mixed"),
        ({"neon": True, "bf16": True}, "bf16-mixed"),
        ({"neon": True, "bf16": False}, "32-true"),
    ],
)
def test_auto_takes_bfloat16_where_the_cpu_multiplies_it(
    found: dict[str, bool], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert choose_precision("auto", CPU) == chosen
    assert choose_precision("32-true", CPU) == "32-true"
    assert choose_precision("bf16-mixed", CPU) == "bf16-mixed"


@pytest.mark.parametrize("native", [True, False])
def test_an_emulating_gpu_does_not_multiply_bfloat16(native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert multiplies_bfloat16(GPU) == native
