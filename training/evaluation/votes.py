"""How well annotators' votes alone predict a data set's own labels, without the images.

When two sets of labels disagree, a network that learned one set cannot answer the other. The accuracy of a
prediction from ten annotators' votes is a reference for the network.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures

from service.core.manifest import Metric
from training.datasets.faces import LabelledFaces, one_hot
from training.evaluation.metrics import accuracy

STEPS = 1000
# Keeps the weights of very rare votes finite: the factor of their squares beside the mean of the losses.
WEIGHT_DECAY = 1e-5


def labels_from_votes(known: LabelledFaces, rows: LabelledFaces, labels: int) -> Metric:
    """Fit a logistic regression from votes to labels on `known`, and return its accuracy on `rows`.

    Its inputs are the share of each answer and the products of all pairs of shares. labels: their number.
    """
    strength = 1 / (2 * WEIGHT_DECAY * len(known.labels))
    # The features have a constant, so the intercept decays like the other weights.
    regression = LogisticRegression(C=strength, fit_intercept=False, tol=1e-6, max_iter=STEPS)
    model = make_pipeline(PolynomialFeatures(degree=2), regression)
    model.fit(known.distributions.astype(np.float64), known.labels)
    predicted = model.predict(rows.distributions.astype(np.float64))
    return accuracy(one_hot(predicted, labels), rows.labels)
