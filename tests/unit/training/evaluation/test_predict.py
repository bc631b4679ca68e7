"""`predict` runs a network in batches, with a flip, a change of the images or a temperature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from service.core.manifest import EMOTIONS
from tests.unit.training.made_up import noise, tiny_config
from training.datasets.faces import LabelledFaces, PixelPictures, one_hot
from training.evaluation.predict import predict
from training.models import Network, build


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return build(tiny_config().network, emotions=8, label_emotions=7)


@pytest.fixture(scope="module")
def faces() -> LabelledFaces:
    labels = np.arange(7) % len(EMOTIONS)
    return LabelledFaces(
        PixelPictures(np.stack([noise(seed) for seed in range(7)])),
        names=np.arange(7).astype(str),
        labels=labels,
        distributions=one_hot(labels),
        majority=labels,
        group=np.arange(7),
    )


def logits_of(network: Network, faces: LabelledFaces, *, flipped: bool = False) -> Tensor:
    images = torch.from_numpy(faces.pictures.read(np.arange(len(faces)), size=48, channels=1)).float() / 255
    with torch.no_grad():
        logits: Tensor = network.eval()(images.flip(3) if flipped else images).logits
    return logits


def test_batches_do_not_change_predictions(network: Network, faces: LabelledFaces) -> None:
    predicted = predict(network, faces, batch=3)
    torch.testing.assert_close(torch.from_numpy(predicted.logits), logits_of(network, faces))
    assert predicted.probabilities.sum(axis=1) == pytest.approx(np.ones(7), abs=1e-5)
    assert predicted.label_probabilities.shape == (7, 7)
    assert predicted.weights.shape == predicted.scores.shape == (7, 2, 4)


def test_flip_averages_the_logits_of_an_image_and_its_mirror(network: Network, faces: LabelledFaces) -> None:
    both = (logits_of(network, faces) + logits_of(network, faces, flipped=True)) / 2
    predicted = predict(network, faces, flip=True)
    torch.testing.assert_close(torch.from_numpy(predicted.logits), both)


def test_a_temperature_softens_probabilities_and_keeps_logits(network: Network, faces: LabelledFaces) -> None:
    plain, soft = predict(network, faces), predict(network, faces, temperature=4.0)
    assert (soft.logits == plain.logits).all()
    assert (soft.probabilities.max(axis=1) < plain.probabilities.max(axis=1)).all()
    assert (soft.probabilities.argmax(axis=1) == plain.probabilities.argmax(axis=1)).all()


def test_a_change_is_applied_to_every_image(network: Network, faces: LabelledFaces) -> None:
    predicted = predict(network, faces, batch=2, change=lambda images: images.flip(3))
    torch.testing.assert_close(torch.from_numpy(predicted.logits), logits_of(network, faces, flipped=True))
