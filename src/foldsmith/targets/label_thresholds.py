"""Thresholds of probabilities of labels: one per label, for metrics of decisions.

A threshold is applied to the probability itself: its odds are divided by those of the threshold, so
that a probability at the threshold becomes 0.5. So everything that decides at 0.5 (submissions,
metrics, predictions of new images) decides by the thresholds, and the order of the images by each
label stays.
"""

import numpy as np
import numpy.typing as npt

from foldsmith.targets.metric import Metric

Array = npt.NDArray[np.float64]

_SWEEPS = 2
_CANDIDATES = 40
# Thresholds and probabilities this near to 0 and 1 have no odds.
_NEAREST = 1e-12


def fit_label_thresholds(
    probabilities: Array, labels: Array, metric: Metric, weights: Array | None = None
) -> Array:
    """Find the threshold of each label with the best metric.

    Candidates lie just below probabilities of images with the label. First all labels get one
    common threshold. Each sweep then finds the best threshold of every label while the others
    stay, and moves all labels together; if that is worse than the best single move, it makes that
    one alone. A label moves only if the metric of all labels becomes better, so that a label
    without a hit keeps the common threshold.

    Args:
        probabilities: Shape (n, n_labels).
        labels: 0 or 1, shape (n, n_labels).
        metric: A metric of decisions.
        weights: Weight of each row in the metric, shape (n,); None for 1 each.

    Returns:
        In 0..1, shape (n_labels,). In sample they are never worse than 0.5 for all labels.
    """
    n_labels = probabilities.shape[1]
    cuts: Array = np.full(n_labels, 0.5)
    best = metric(apply_label_thresholds(probabilities, cuts), labels, weights)
    for candidate in _candidates(probabilities.ravel(), labels.ravel()):
        common = np.full(n_labels, candidate)
        value = metric(apply_label_thresholds(probabilities, common), labels, weights)
        if metric.gain(value, best) > 0:
            best, cuts = value, common
    moved = apply_label_thresholds(probabilities, cuts)
    by_label = [_candidates(*columns) for columns in zip(probabilities.T, labels.T, strict=True)]
    for _ in range(_SWEEPS):
        before = best
        found: dict[int, tuple[float, float]] = {}
        # Each label against the others as they are at the beginning of the sweep: their order
        # does not matter.
        for k in range(n_labels):
            for candidate in by_label[k]:
                tried = moved.copy()
                tried[:, k] = apply_label_thresholds(probabilities[:, k], candidate)
                value = metric(tried, labels, weights)
                if metric.gain(value, found.get(k, (before, 0.0))[0]) > 0:
                    found[k] = value, candidate
        if not found:
            break
        together = cuts.copy()
        for k, (_, candidate) in found.items():
            together[k] = candidate
        value = metric(apply_label_thresholds(probabilities, together), labels, weights)
        # Moves that help alone may harm together; then the best one alone counts.
        alone = [one for one, _ in found.values()]
        top = alone[metric.best(alone)]
        if metric.gain(value, top) < 0:
            # Among equal moves the lowest threshold wins, whatever the order of the labels.
            equal = [k for k, (one, _) in found.items() if one == top]
            k = min(equal, key=lambda k: (found[k][1], float(np.sort(probabilities[:, k]).sum())))
            together = cuts.copy()
            value, together[k] = found[k]
        best, cuts = value, together
        moved = apply_label_thresholds(probabilities, cuts)
        if metric.gain(best, before) <= 0:
            break
    return cuts


def apply_label_thresholds(probabilities: Array, thresholds: Array | float) -> Array:
    """Return probabilities whose value at the threshold is 0.5, of the same shape.

    Args:
        probabilities: Shape (n, n_labels); (n,) for one label.
        thresholds: In 0..1, shape (n_labels,); a number for one label.
    """
    cut = np.clip(thresholds, _NEAREST, 1 - _NEAREST)
    yes, no = probabilities * (1 - cut), (1 - probabilities) * cut
    shifted: Array = yes / (yes + no)
    return shifted


def _candidates(probabilities: Array, labels: Array) -> Array:
    """Return thresholds to try, ascending, shape (n,).

    They lie halfway between the probability of an image with the label and the next lower one; a
    metric that rewards right decisions is best at one of these. The last one decides for no image.
    """
    values = np.unique(probabilities)
    of_positive = np.unique(probabilities[labels == 1])
    if len(of_positive) > _CANDIDATES:
        chosen = np.linspace(0, len(of_positive) - 1, _CANDIDATES).round().astype(int)
        of_positive = of_positive[np.unique(chosen)]
    places = np.searchsorted(values, of_positive)
    below = np.where(places > 0, values[places - 1], 0.0)
    found: Array = np.append((of_positive + below) / 2, (values[-1] + 1) / 2)
    return found
