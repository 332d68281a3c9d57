"""Factors of class probabilities, for metrics of decisions between classes without an order."""

import numpy as np
import numpy.typing as npt

from foldsmith.targets.class_values import nearest
from foldsmith.targets.metric import Metric

Array = npt.NDArray[np.float64]

# Powers of the classes' frequencies that are tried first; 0 leaves the probabilities as they are.
_POWERS = np.linspace(0.0, 1.5, 16)
# Then the factor of one class after the other is changed, unless there are too many of them.
_MOST_CLASSES = 30
_CHANGES = np.exp(np.linspace(-1.5, 1.5, 21))
_SWEEPS = 2


def fit_priors(
    probabilities: Array, targets: Array, metric: Metric, weights: Array | None = None
) -> Array:
    """Find factors of the probabilities whose most probable classes have the best metric.

    The most probable class is the best decision for the share of right ones alone. A metric that
    counts rare classes like frequent ones wants them named more often: dividing by a power of the
    classes' frequencies does so (logit adjustment; Menon et al., "Long-Tail Learning via Logit
    Adjustment", 2021). From the best power on, the factor of one class after the other is moved.

    Args:
        probabilities: Shape (n, n_classes).
        targets: Target values, shape (n,).
        metric: A metric of decisions, with its classes.
        weights: Weight of each row in the metric, shape (n,); None for 1 each.

    Returns:
        Above 0, shape (n_classes,), with a mean of 1. In sample never worse than none.
    """
    n_classes = probabilities.shape[1]
    classes = nearest(targets, metric.class_values)
    # As if each class had half an image more: one that these rows lack has a factor too.
    counts = np.bincount(classes, weights, minlength=n_classes)
    frequencies = (counts + 0.5) / (counts.sum() + n_classes / 2)
    tried = [frequencies**-power for power in _POWERS]
    values = [metric(probabilities * factors, targets, weights) for factors in tried]
    chosen = metric.best(values)
    factors, best = tried[chosen], values[chosen]
    for _ in range(_SWEEPS if n_classes <= _MOST_CLASSES else 0):
        before = best
        for k in range(n_classes):
            for change in _CHANGES:
                moved = factors.copy()
                moved[k] *= change
                value = metric(probabilities * moved, targets, weights)
                if metric.gain(value, best) > 0:
                    best, factors = value, moved
        if best == before:
            break
    mean_1: Array = factors / factors.mean()
    return mean_1


def apply_priors(probabilities: Array, factors: Array) -> Array:
    """Return probabilities times their factors, each row with a sum of 1.

    Args:
        probabilities: Shape (n, n_classes).
        factors: Above 0, shape (n_classes,).
    """
    weighted = probabilities * factors
    sums = weighted.sum(axis=1, keepdims=True)
    found: Array = weighted / np.where(sums > 0, sums, 1)
    return found
