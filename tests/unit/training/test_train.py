"""A whole training run, on a few dozen made-up images."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from service.manifest import Metric
from tests.unit.training.made_up import tiny_config, write_fer2013
from training import train as training
from training.config import LossConfig, RunConfig, read_config
from training.datasets import fer2013
from training.datasets.fer2013 import load_fer2013
from training.models.compact import Outputs
from training.train import Batch, learning_rate, loss_of, training_rows

COUNTS = {"Training": 48, "PublicTest": 4, "PrivateTest": 4}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Noise, half of it happy: what is learnt does not matter here."""
    monkeypatch.setattr(fer2013, "PUBLISHED_COUNTS", COUNTS)
    # Bit-for-bit repetition is promised on the CPU only.
    monkeypatch.setattr(training, "Fabric", lambda **options: Fabric(**options | {"accelerator": "cpu"}))
    generator = np.random.default_rng(0)
    return write_fer2013(
        tmp_path / "data",
        (
            (usage, generator.integers(0, 256, (48, 48)))
            for usage, count in COUNTS.items()
            for _ in range(count)
        ),
    )


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def checkpoint(run: Path, name: str = "last") -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run / f"{name}.ckpt", weights_only=True)
    return content


class Interrupted(Exception):
    """Stands for Ctrl-C."""


def interrupt_second_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first epoch is written; the second is lost when it is nearly over."""
    calls = 0
    predict = training.predict

    def interrupting(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Interrupted
        return predict(*arguments, **options)

    monkeypatch.setattr(training, "predict", interrupting)


def test_a_run_writes_what_it_promises(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    training.train(tiny_config(), data, run, threads=1)
    assert read_config(run / "config.yaml") == tiny_config()
    lines = metrics(run)
    assert [line["epoch"] for line in lines] == [1, 2]
    for line in lines:
        assert math.isfinite(line["loss"])
        assert line["loss"] > 0
        assert 0 <= line["validation_ferplus"] <= 1
        assert 0 <= line["validation_fer2013"] <= 1
    last, best = checkpoint(run), checkpoint(run, "best")
    assert last["epoch"] == 2
    assert last["best"] == max(line["validation_ferplus"] for line in lines)
    assert last["average"].keys() == best["average"].keys() == last["model"].keys()
    assert all(value.isfinite().all() for value in last["model"].values())
    assert best["epoch"] == 1 + int(np.argmax([line["validation_ferplus"] for line in lines]))
    assert sorted(path.name for path in run.iterdir()) == [
        "best.ckpt",
        "config.yaml",
        "last.ckpt",
        "metrics.jsonl",
        "versions.json",
    ]


def test_a_resumed_run_ends_as_an_uninterrupted_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    training.train(tiny_config(), data, whole, threads=1)
    with monkeypatch.context() as patched:
        interrupt_second_epoch(patched)
        with pytest.raises(Interrupted):
            training.train(tiny_config(), data, parts, threads=1)
    assert checkpoint(parts)["epoch"] == 1
    training.train(tiny_config(), data, parts, resume=True, threads=1)
    wanted, found = checkpoint(whole), checkpoint(parts)
    assert found["epoch"] == 2
    assert [line["epoch"] for line in metrics(parts)] == [1, 2]
    for part in ("model", "average"):
        for name, value in wanted[part].items():
            assert torch.equal(found[part][name], value), f"{part}: {name}"
    # Once it has ended there is nothing to resume.
    before = (parts / "last.ckpt").read_bytes()
    training.train(tiny_config(), data, parts, resume=True, threads=1)
    assert (parts / "last.ckpt").read_bytes() == before
    assert len(metrics(parts)) == 2


def test_a_run_that_begins_anew_begins_its_log_anew(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        interrupt_second_epoch(patched)
        with pytest.raises(Interrupted):
            training.train(tiny_config(), data, run, threads=1)
    training.train(tiny_config(), data, run, threads=1)
    assert [line["epoch"] for line in metrics(run)] == [1, 2]


def test_the_best_epoch_is_kept_even_if_nothing_is_right(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "accuracy", lambda *_: Metric(value=0.0, samples=1))
    training.train(tiny_config(), data, tmp_path / "run", threads=1)
    assert checkpoint(tmp_path / "run", "best")["epoch"] == 1


def test_validation_rows_are_none_that_were_trained_on(data: Path) -> None:
    rows, held_out = training_rows(load_fer2013(data), tiny_config())
    assert (len(rows), len(held_out)) == (36, 12)
    assert not set(rows.group) & set(held_out.group)


def test_learning_rate_warms_up_and_decays_to_nothing() -> None:
    run = RunConfig.model_validate({**tiny_config().model_dump(), "epochs": 5})
    rates = [learning_rate(epoch / 4, run) for epoch in range(21)]
    assert 0 < rates[0] < rates[1] < rates[2] < rates[3] < rates[4]
    assert rates[4] == pytest.approx(run.optimiser.learning_rate)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[20] == pytest.approx(0, abs=1e-9)


def outputs(logits: Tensor) -> Outputs:
    count = len(logits)
    even = torch.full((count, 2, 4), 0.25)
    return Outputs(logits, torch.zeros(count, 7), even, even)


def test_loss_by_hand() -> None:
    """Main: ln 2 for both rows that have votes; auxiliary: ln 7; balance: 1 for each of two mixtures."""
    logits = torch.full((3, 8), -1e4)
    logits[:, :2] = 0
    distributions = torch.zeros(3, 8)
    distributions[0, 0] = 1
    distributions[1, :2] = 0.5
    batch = Batch(torch.zeros(3, 1, 48, 48), torch.tensor([0, 1, 2]), distributions)
    weights = LossConfig(auxiliary=0.5, label_smoothing=0.1, load_balancing=0.01)
    expected = math.log(2) + 0.5 * math.log(7) + 0.01 * 2
    assert loss_of(outputs(logits), batch, weights).item() == pytest.approx(expected, rel=1e-5)


def test_rows_without_usable_votes_still_teach_the_second_head() -> None:
    batch = Batch(torch.zeros(2, 1, 48, 48), torch.tensor([0, 1]), torch.zeros(2, 8))
    weights = LossConfig(auxiliary=1, label_smoothing=0, load_balancing=0)
    assert loss_of(outputs(torch.randn(2, 8)), batch, weights).item() == pytest.approx(math.log(7), rel=1e-5)
