"""Two networks whose difference is known are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from service.core.manifest import EMOTIONS
from service.settings import Settings
from tests.unit.training.made_up import noise, tiny_config, write_class_folders, write_fer2013
from training.datasets.faces import LabelledFaces
from training.evaluation import compare as module
from training.evaluation.compare import Comparison, compare, compared, difference, markdown
from training.evaluation.networks import Measurable, load_network
from training.evaluation.predict import Floats, Predictions
from training.evaluation.rows import HELD_OUT

REPOSITORY = Settings().model_repository


def answers_of(right: list[bool], labels: list[int], chance: float = 0.6) -> Floats:
    """Logarithms [N,8]. A right row gives `chance` to its label, a wrong one to the next emotion."""
    rows = np.full((len(labels), 8), (1 - chance) / 7, np.float32)
    rows[np.arange(len(labels)), [label + (not hit) for hit, label in zip(right, labels, strict=True)]] = (
        chance
    )
    return np.log(rows)


def compared_rows(right_a: list[bool], right_b: list[bool], labels: list[int] | None = None) -> Comparison:
    truth = labels or [0] * len(right_a)
    answers = (answers_of(right, truth) for right in (right_a, right_b))
    return compared("a", "b", "data", "split", *answers, labels=np.array(truth))


def test_differences_by_hand() -> None:
    found = compared_rows([True, True, False, False], [True, True, True, False], [0, 1, 1, 0])
    assert (found.accuracy.a, found.accuracy.b, found.accuracy.difference) == (0.5, 0.75, 0.25)
    assert found.accuracy.samples == 4
    assert {emotion: recall.difference for emotion, recall in found.recall.items()} == {
        "neutral": 0.0,
        "happiness": 0.5,
    }
    right, wrong = -np.log(0.6), -np.log(0.4 / 7)
    assert found.negative_log_likelihood.a == pytest.approx((right + wrong) / 2, abs=1e-4)
    assert found.negative_log_likelihood.difference == pytest.approx((right - wrong) / 4, abs=1e-4)


def test_mcnemar_counts_rows_on_which_one_network_is_right() -> None:
    found = compared_rows([True] * 51 + [False] * 19, [True] * 50 + [False] + [True] * 9 + [False] * 10)
    assert (found.only_a_right, found.only_b_right) == (1, 9)
    assert found.mcnemar_p == pytest.approx(2 * (1 + 10) / 2**10)  # 0 or 1 heads in 10 throws, or tails
    assert "The difference in accuracy is significant at 5%." in markdown(found)


def test_equal_networks_do_not_differ() -> None:
    found = compared_rows([True, False] * 5, [True, False] * 5)
    assert found.accuracy.interval == (0, 0)
    assert found.mcnemar_p == 1
    assert "The difference in accuracy is not significant at 5%." in markdown(found)


def test_rows_without_a_label_are_not_counted() -> None:
    answers = answers_of([True] * 3, [0, 1, 2])
    found = compared("a", "b", "data", "split", answers, answers, labels=np.array([0, -1, 2]))
    assert (found.accuracy.samples, list(found.recall)) == (2, ["neutral", "surprise"])


def test_an_interval_is_that_of_the_differences_of_rows() -> None:
    """The networks agree on 990 of 1,000 rows, so their own noise does not count."""
    right_a = np.arange(1000) % 2 == 0
    right_b = right_a | (np.arange(1000) >= 980)
    found = difference(right_a, right_b)
    assert found.difference == 0.01
    half = 1.96 * (0.01 * 0.99 / 1000) ** 0.5
    assert found.interval == pytest.approx((0.01 - half, 0.01 + half), abs=0.001)
    assert found == difference(right_a, right_b)


def test_one_row_has_no_interval() -> None:
    assert difference(np.array([False]), np.array([True])).interval is None


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """30 happy and 10 sad faces to train on; one happy and three sad faces to test."""
    splits = {"train/happy": 30, "train/sad": 10, "test/happy": 1, "test/sad": 3}
    return write_class_folders(tmp_path / "data", splits)


def constant(
    name: str, emotion: str, *, calibrated: bool = False, emotions: int = 8, **config: object
) -> Measurable:
    """A network that gives one emotion the logit 1 and others 0."""

    def predict(rows: LabelledFaces) -> Predictions:
        logits = np.eye(8, dtype=np.float32)[[EMOTIONS.index(emotion)] * len(rows), :emotions]
        return Predictions(logits, logits, logits, logits, logits, logits).at(1.0)

    return Measurable(
        name, EMOTIONS[:emotions], tiny_config(**{"dataset": "folder", **config}), predict, calibrated
    )


def compare_networks(
    a: Measurable, b: Measurable, data: Path, monkeypatch: pytest.MonkeyPatch, split: str = HELD_OUT
) -> Comparison:
    networks = {network.name: network for network in (a, b)}
    monkeypatch.setattr(module, "load_network", lambda name, repository, device: networks[name])
    return compare(a.name, b.name, data, REPOSITORY, split=split)


def test_networks_are_compared_on_held_out_rows_or_a_test_split(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happy, sad = constant("a", "happiness"), constant("b", "sadness")
    found = compare_networks(happy, sad, data, monkeypatch)
    assert (found.split, found.accuracy.samples) == ("held-out", 10)
    share = found.accuracy.a
    assert share > 0.5
    assert found.accuracy.b == pytest.approx(1 - share)
    assert found.only_a_right == 10 * share
    assert {name: recall.difference for name, recall in found.recall.items()} == {
        "happiness": -1,
        "sadness": 1,
    }

    tested = compare_networks(happy, sad, data, monkeypatch, split="test")
    assert (tested.split, tested.accuracy.difference, tested.accuracy.samples) == ("test", 0.5, 4)


def test_networks_of_the_labels_are_compared_on_the_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the made-up rows, votes are for sadness where the label is anger."""
    rows = [(usage, noise(seed)) for seed, usage in enumerate(["Training"] * 20 + ["PublicTest"] * 4)]
    data = write_fer2013(tmp_path / "fer", rows)
    networks = {
        name: constant(name, "anger", emotions=7, dataset="fer2013", ferplus_votes="none") for name in "ab"
    }
    monkeypatch.setattr(module, "load_network", lambda name, repository, device: networks[name])
    found = compare("a", "b", data, REPOSITORY, split="PublicTest", skip_bad=True)
    assert (list(found.recall), found.accuracy.a) == (["happiness", "anger"], 0.5)


def test_only_checkpoints_get_a_temperature(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = compare_networks(
        constant("a", "happiness"), constant("b", "happiness", calibrated=True), data, monkeypatch
    )
    share = found.accuracy.a
    # The best constant answer has the entropy of the shares; the others share the rest.
    best = -share * np.log(share) - (1 - share) * np.log((1 - share) / 7)
    as_it_is = np.log(np.e + 7) - share
    assert found.negative_log_likelihood.a == pytest.approx(best, abs=1e-3)
    assert found.negative_log_likelihood.b == pytest.approx(as_it_is, abs=1e-3)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (constant("b", "sadness", validation_share=0.5), "held out different validation rows"),
        (constant("b", "sadness", fold=1), "held out different validation rows"),
        (constant("b", "sadness", dataset="rafdb"), "choose one with --dataset"),
        (constant("b", "neutral", emotions=2), "b answers 2 emotions, .* b lacks surprise, sadness"),
    ],
)
def test_networks_that_do_not_fit_are_refused(
    other: Measurable, message: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=message):
        compare_networks(constant("a", "happiness"), other, data, monkeypatch)


def test_a_test_split_may_follow_different_validation_rows(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = constant("b", "sadness", validation_share=0.5)
    assert (
        compare_networks(constant("a", "happiness"), other, data, monkeypatch, split="test").accuracy.b
        == 0.75
    )


def test_versions_of_a_served_model_are_compared(data: Path) -> None:
    found = compare("expressnet_moe", "expressnet_moe:1", data, REPOSITORY, kind="folder", split="test")
    assert found.accuracy.difference == 0
    assert found.negative_log_likelihood.difference == 0
    assert found.accuracy.samples == 4


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(ValueError, match="runs/none is neither a checkpoint, nor a run, nor a model of"):
        load_network("runs/none", REPOSITORY, torch.device("cpu"))
