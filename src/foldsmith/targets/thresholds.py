"""Boundaries between classes on the scale of the predictions, for metrics of classes."""

import numpy as np
import numpy.typing as npt

from foldsmith.targets.metrics import Metric

Array = npt.NDArray[np.float64]

_SWEEPS = 3
_CANDIDATES = 60


def fit_thresholds(
    predictions: Array, targets: Array, metric: Metric, weights: Array | None = None
) -> Array:
    """Find the boundaries between classes with the best metric.

    Rounding to the nearest class is seldom the best for a kappa: predictions that were made for
    a small squared error keep to the middle. One boundary after the other is moved to the best
    of the predictions' quantiles, from the midpoints between class values, some times over.

    Args:
        predictions: Point predictions, shape (n,).
        targets: Target values, shape (n,).
        metric: A metric of classes, with its class values.
        weights: Weight of each row in the metric, shape (n,); None for 1 each.

    Returns:
        Ascending, shape (n_classes - 1,). In sample never worse than the midpoints.
    """
    values = np.sort(np.asarray(metric.class_values))
    cuts: Array = (values[1:] + values[:-1]) / 2
    quantiles = np.unique(np.quantile(predictions, np.linspace(0.005, 0.995, _CANDIDATES)))
    best = metric(apply_thresholds(predictions, cuts, metric), targets, weights)
    for _ in range(_SWEEPS):
        before = best
        for k in range(len(cuts)):
            low = cuts[k - 1] if k else -np.inf
            high = cuts[k + 1] if k + 1 < len(cuts) else np.inf
            for candidate in quantiles[(quantiles > low) & (quantiles < high)]:
                moved = cuts.copy()
                moved[k] = candidate
                value = metric(apply_thresholds(predictions, moved, metric), targets, weights)
                if metric.gain(value, best) > 0:
                    best, cuts = value, moved
        if best == before:
            break
    return cuts


def apply_thresholds(predictions: Array, cuts: Array, metric: Metric) -> Array:
    """Return the class value of each prediction, shape (n,).

    Args:
        predictions: Shape (n,).
        cuts: Ascending, shape (n_classes - 1,).
        metric: Has the class values.
    """
    values: Array = np.sort(np.asarray(metric.class_values))[np.searchsorted(cuts, predictions)]
    return values
