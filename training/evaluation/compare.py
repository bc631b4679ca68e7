"""Compares two networks on the same rows: which one is better, and is the difference more than chance?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic.dataclasses import dataclass
from scipy.special import log_softmax
from scipy.stats import binomtest, bootstrap

from service.core.manifest import EMOTIONS
from training.calibrate import fit_temperature
from training.datasets.faces import Bools, Dataset, Ints, LabelledFaces, one_hot
from training.device import DeviceName, choose_device
from training.evaluation.networks import Measurable, load_network
from training.evaluation.predict import Floats
from training.evaluation.rows import HELD_OUT, dataset_of, rows_of, split_of
from training.evaluation.tables import table
from training.rows import refuse_other_emotions

DRAWS = 10_000
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Difference:
    """Means of one figure over the same rows, and `b` - `a` with its 95 % interval.

    The interval is a bootstrap over rows, each with the answers of both networks. It is None for one row.
    """

    a: float
    b: float
    difference: float
    interval: tuple[float, float] | None
    samples: int


@dataclass(frozen=True)
class Comparison:
    """negative_log_likelihood: of calibrated answers, in nats; lower is better. recall: by emotion.

    only_a_right, only_b_right: counts of rows. mcnemar_p: how likely chance alone makes these two counts at
    least as unequal (McNemar, 1947; exact, two-sided).
    """

    a: str
    b: str
    dataset: str
    split: str
    accuracy: Difference
    negative_log_likelihood: Difference
    recall: dict[str, Difference]
    only_a_right: int
    only_b_right: int
    mcnemar_p: float


def compare(
    first: str,
    second: str,
    data: Path,
    repository: Path,
    *,
    kind: str | None = None,
    split: str = HELD_OUT,
    device: DeviceName = "auto",
    skip_bad: bool = False,
) -> Comparison:
    """Compare two networks, each named as for `load_network`.

    kind: of the data set, by default that of both runs. FER+'s votes are read as for the first one. split: by
    default the validation rows of both. device: of checkpoints; served models answer on the CPU.
    Raises `ValueError` when the networks do not fit the data set or each other.
    """
    a, b = (load_network(name, repository, choose_device(device)) for name in (first, second))
    if kind is None and a.config.dataset != b.config.dataset:
        raise ValueError(
            f"{a.name} and {b.name} were trained on different data sets: choose one with --dataset"
        )
    dataset = dataset_of(a.config, a.emotions, data, kind, skip_bad=skip_bad, network=a.name)
    refuse_other_emotions(b.emotions, dataset, b.name)
    split = split_of(dataset, split)
    if split == HELD_OUT and _held_out(a) != _held_out(b):
        raise ValueError(
            f"{a.name} and {b.name} held out different validation rows, and one may have trained on those of "
            "the other: choose a test split with --split"
        )
    rows = rows_of(dataset, split, a.config)
    answers = (_answers(network, dataset, split, rows) for network in (a, b))
    return compared(a.name, b.name, dataset.name, split, *answers, labels=rows.majority)


def _held_out(network: Measurable) -> tuple[float, int]:
    return network.config.validation_share, network.config.fold


def _answers(network: Measurable, dataset: Dataset, split: str, rows: LabelledFaces) -> Floats:
    """Logarithms of probabilities. The temperature of a checkpoint is fitted as `evaluate` does."""
    logits = network.predict(rows).logits
    temperature = 1.0
    if not network.calibrated:
        held_out = rows if split == HELD_OUT else rows_of(dataset, HELD_OUT, network.config)
        fitted = logits if split == HELD_OUT else network.predict(held_out).logits
        temperature = fit_temperature(fitted, one_hot(held_out.majority, fitted.shape[1]))
    answers: Floats = log_softmax(logits / temperature, axis=1)
    return answers


def compared(
    a: str, b: str, dataset: str, split: str, answers_a: Floats, answers_b: Floats, *, labels: Ints
) -> Comparison:
    """The comparison of two networks' answers for the same rows. labels: [N], -1 if missing.

    answers_a, answers_b: [N,C], logarithms of probabilities.
    """
    labelled = np.flatnonzero(labels >= 0)
    truth = labels[labelled]
    right_a, right_b = (answers[labelled].argmax(axis=1) == truth for answers in (answers_a, answers_b))
    losses = (-answers[labelled, truth] for answers in (answers_a, answers_b))
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return Comparison(
        a,
        b,
        dataset,
        split,
        accuracy=difference(right_a, right_b),
        negative_log_likelihood=difference(*losses),
        recall={
            EMOTIONS[label]: difference(right_a[truth == label], right_b[truth == label])
            for label in np.unique(truth).tolist()
        },
        only_a_right=only_a,
        only_b_right=only_b,
        mcnemar_p=float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0,
    )


def difference(a: Floats | Bools, b: Floats | Bools) -> Difference:
    """a, b: [N], the figure of each row."""
    gains = b.astype(np.float64) - a.astype(np.float64)
    interval = None
    if len(gains) > 1:
        # A percentile interval exists even if all rows are equal. 100 draws at once bound the memory.
        low, high = bootstrap(
            (gains,),
            np.mean,
            n_resamples=DRAWS,
            batch=100,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        interval = round(float(low), 4), round(float(high), 4)
    mean_a, mean_b, gain = (round(float(np.mean(values)), 4) for values in (a, b, gains))
    return Difference(mean_a, mean_b, gain, interval, len(gains))


def markdown(found: Comparison) -> str:
    """The comparison as a table and a conclusion."""
    figures = {
        "accuracy": found.accuracy,
        "negative log-likelihood": found.negative_log_likelihood,
        **{f"recall: {emotion}": recall for emotion, recall in found.recall.items()},
    }
    verdict = "is significant" if found.mcnemar_p < SIGNIFICANCE else "is not significant"
    return "\n".join(
        [
            f"A: {found.a}",
            f"B: {found.b}",
            f"Rows: {found.split} of {found.dataset}",
            "",
            *table(
                ("figure", "A", "B", "B - A", "95 % interval", "n"),
                [(name, *_cells(each)) for name, each in figures.items()],
            ),
            f"Only A is right on {found.only_a_right} rows, only B on {found.only_b_right}. "
            f"McNemar's test: p = {found.mcnemar_p:.3g}.",
            f"The difference in accuracy {verdict} at {SIGNIFICANCE:.0%}.",
        ]
    )


def _cells(found: Difference) -> tuple[str, ...]:
    interval = "" if found.interval is None else "{:+.3f} to {:+.3f}".format(*found.interval)
    return f"{found.a:.3f}", f"{found.b:.3f}", f"{found.difference:+.3f}", interval, str(found.samples)
