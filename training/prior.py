"""Estimates the shares of the emotions in other photos from the answers, without labels.

Expectation maximisation (Saerens et al., 2002): the shares that explain the answers best, if faces of an
emotion look as in the training data and only their shares differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.api.schemas import EmotionQuery
from service.assembly import assemble
from service.core.manifest import ClassifierManifest, Prior
from service.core.priors import MIN_SHARE, TRAINING, format_shares
from service.predict.run import Options, Predictor
from service.predict.sources import images
from service.settings import Settings
from training.evaluation.tables import table

MIN_FACES = 100
DRAWS = 200
TOLERANCE = 1e-5
MAX_STEPS = 500

Floats = NDArray[np.float64]


class Estimate(NamedTuple):
    """Shares of the emotions among `faces` faces, float64 [C], with 95 % intervals over resampled faces."""

    labels: tuple[str, ...]
    faces: int
    shares: Floats
    low: Floats
    high: Floats


def estimate_prior(photos: Path, settings: Settings) -> Estimate:
    """The shares among all faces within the quality limits in the photos of a folder, at any depth.

    Raises `ValueError` for fewer than `MIN_FACES` faces, and what starting the service raises.
    """
    manifest, probabilities = asyncio.run(_answers([str(photos)], settings))
    if len(probabilities) < MIN_FACES:
        raise ValueError(f"{photos} shows {len(probabilities)} clear faces; at least {MIN_FACES} are needed")
    ratios = likelihood_ratios(probabilities, manifest.prior, manifest.labels)
    generator = np.random.default_rng(0)
    draws = [em(ratios[generator.integers(0, len(ratios), len(ratios))]) for _ in range(DRAWS)]
    low, high = np.quantile(draws, [0.025, 0.975], axis=0)
    return Estimate(manifest.labels, len(ratios), em(ratios), low, high)


async def _answers(paths: Sequence[str], settings: Settings) -> tuple[ClassifierManifest, Floats]:
    """The classifier, and the probabilities float64 [N,C] of all faces within its quality limits."""
    assembly = assemble(settings)
    predictor = Predictor(
        assembly,
        Options(
            EmotionQuery(max_faces=128, prior=TRAINING),
            settings.worker_threads,
            settings.body_limit_bytes,
            settings.pixel_limit,
        ),
    )
    found = [np.empty((0, len(assembly.classifier.labels)))]
    async with assembly:
        async for row in predictor.rows(images(paths, None)):
            if row.seen is not None:
                clear = [set(reasons) <= {"low_confidence"} for reasons in row.seen.reasons]
                found.append(row.seen.probabilities[clear].astype(np.float64))
    return assembly.classifier, np.concatenate(found)


def likelihood_ratios(probabilities: Floats, prior: Prior, labels: Sequence[str]) -> Floats:
    """float64 [N,C], proportional to how likely a face of each emotion gives the answer.

    The probability of the label is sharper than that of a vote, by the strength of the prior.
    """
    old = np.array([prior.shares.get(label, 0.0) for label in labels]).clip(MIN_SHARE)
    of_label = probabilities.clip(1e-12) ** (1 / prior.strength)
    ratios: Floats = of_label / of_label.sum(axis=1, keepdims=True) / old
    return ratios


def em(ratios: Floats) -> Floats:
    """The shares float64 [C] with the highest likelihood, by expectation maximisation."""
    shares = np.full(ratios.shape[1], 1 / ratios.shape[1])
    for _ in range(MAX_STEPS):
        of_face = ratios * shares
        better = (of_face / of_face.sum(axis=1, keepdims=True)).mean(axis=0)
        settled = np.abs(better - shares).max() < TOLERANCE
        shares = better
        if settled:
            break
    return shares


def markdown(estimate: Estimate) -> str:
    """The estimate as a table, and as a setting."""
    labels, faces, *columns = estimate
    rows = zip(labels, *columns, strict=True)
    found = table(
        ("emotion", "share", "95 % interval"),
        [
            (label, f"{100 * share:.1f} %", f"{100 * low:.1f} to {100 * high:.1f}")
            for label, share, low, high in rows
        ],
    )
    prior = format_shares(dict(zip(labels, estimate.shares.tolist(), strict=True)))
    return "\n".join([f"{faces} faces", "", *found, f"EXPRESSNET_PRIOR={prior}"])
