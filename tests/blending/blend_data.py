"""Members of a blend, made up."""

import numpy as np

from foldsmith.blending.base import Goal, Rows
from foldsmith.project.column_forms import OneNumber
from foldsmith.targets.metrics import metric_named

VALUES = (0.0, 1.0, 2.0, 3.0)
RANGE = (0.0, 3.0)


def goal(name="RMSE"):
    return Goal(metric_named(name, VALUES), OneNumber("target", RANGE, VALUES))


def rows(predictions):
    return Rows(predictions, np.empty((predictions.shape[1], 0)))


def alike(seed, n_members=4, n=400, noise=0.3, shared=0.6):
    """Members of one quality, whose errors are much alike."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 4, n).astype(float)
    common = shared * rng.normal(size=n)
    predictions = targets + common + noise * rng.normal(size=(n_members, n))
    return np.clip(predictions, *RANGE), targets


def unlike(seed, n=400, bad=1.5):
    """One good member and two bad ones: with the noise 1.5 they are worse than the constant."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 4, n).astype(float)
    noise = np.array([[0.2], [bad], [bad]])
    return np.clip(targets + noise * rng.normal(size=(3, n)), *RANGE), targets


def as_probabilities(predictions):
    """Class probabilities around point predictions, shape (n_members, n, 4)."""
    weights = np.exp(-2 * (predictions[:, :, None] - np.asarray(VALUES)) ** 2)
    return weights / weights.sum(axis=-1, keepdims=True)
