"""Parts of the area under the ROC curve, and the probabilistic F score, of classes and of labels.

The scores are of (probabilities, labels), each label by itself; :func:`of_classes` makes them
scores of classes.
"""

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import numpy as np
import numpy.typing as npt

from foldsmith.targets.label_means import weighted_mean

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def max_fpr_problem(_: int | None, *, max_fpr: float) -> str | None:
    """Return why a highest false positive rate cannot be; None if it can."""
    return None if 0 < max_fpr <= 1 else "max_fpr must be above 0 and at most 1"


def min_tpr_problem(_: int | None, *, min_tpr: float) -> str | None:
    """Return why a lowest true positive rate cannot be; None if it can."""
    return None if 0 <= min_tpr < 1 else "min_tpr must be at least 0 and below 1"


def beta_problem(_: int | None, *, beta: float) -> str | None:
    """Return why a beta cannot be; None if it can."""
    return "beta must be above 0" if beta <= 0 else None


def roc_area(scores: Array, positive: Mask, sample_weight: Array | None, max_fpr: float) -> float:
    """Return the area under the ROC curve up to a false positive rate, in 0..max_fpr.

    Args:
        scores: Shape (n,).
        positive: Which rows are positive, some but not all, shape (n,).
        sample_weight: Weight of each row, shape (n,); None for 1 each.
        max_fpr: In 0..1, not 0.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, there = scores[order], positive[order]
    # Rows with one score are ranked together.
    ends = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    found, missed = (
        each if sample_weight is None else each * sample_weight[order] for each in (there, ~there)
    )
    right = np.append(0, np.cumsum(found)[ends]) / found.sum()
    wrong = np.append(0, np.cumsum(missed)[ends]) / missed.sum()
    inside = wrong <= max_fpr
    height = np.interp(max_fpr, wrong, right)
    x, y = np.append(wrong[inside], max_fpr), np.append(right[inside], height)
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())


def _up_to(scores: Array, positive: Mask, sample_weight: Array | None, max_fpr: float) -> float:
    lowest = max_fpr**2 / 2
    area = roc_area(scores, positive, sample_weight, max_fpr)
    return 0.5 + (area - lowest) / (max_fpr - lowest) / 2


def _above(scores: Array, positive: Mask, sample_weight: Array | None, min_tpr: float) -> float:
    # The curve mirrored: negative rows are found by low scores.
    return roc_area(-scores, ~positive, sample_weight, 1 - min_tpr)


def _probabilistic_f(
    scores: Array, positive: Mask, sample_weight: Array | None, beta: float
) -> float:
    found = positive if sample_weight is None else positive * sample_weight
    certain = scores if sample_weight is None else scores * sample_weight
    hits, weight = float(certain[positive].sum()), beta**2
    both = weight * found.sum() + certain.sum()
    return float((1 + weight) * hits / both) if both > 0 else 0.0


def _ranked(positive: Mask) -> bool:
    return bool(positive.any() and not positive.all())


def _any(positive: Mask) -> bool:
    return bool(positive.any())


def _mean(
    function: Callable[[Array, Mask, Array | None], float],
    judged: Callable[[Mask], bool],
    probabilities: Array,
    labels: Labels | Mask,
    weights: Array | None,
    sample_weight: Array | None,
    otherwise: float,
) -> float:
    """Return the mean over the columns that can be judged."""
    positive = labels == 1
    seen = np.array([judged(column) for column in positive.T])
    if not seen.any():
        return otherwise
    found = [
        function(probabilities[:, k], positive[:, k], sample_weight) for k in np.flatnonzero(seen)
    ]
    return weighted_mean(np.array(found), None if weights is None else weights[seen])


def of_classes(of_labels: Callable[..., float]) -> Callable[..., float]:
    """Return a score of labels as one of classes: each against the rest, of two the second alone.

    Args:
        of_labels: Called with (probabilities, labels) and its options.

    Returns:
        A function of (probabilities, classes, number of classes) and the same options.
    """

    @wraps(of_labels)
    def score(probabilities: Array, classes: Labels, n_classes: int, **options: Any) -> float:
        first = 0 if n_classes > 2 else 1
        positive = classes[:, None] == np.arange(first, n_classes)
        return of_labels(probabilities[:, first:], positive, **options)

    return score


def partial_auc(
    probabilities: Array,
    labels: Labels | Mask,
    *,
    max_fpr: float,
    weights: Array | None = None,
    sample_weight: Array | None = None,
) -> float:
    """Return the area under the ROC curve up to a false positive rate (McClish 1989).

    Classes or labels that no row or every row has cannot be ranked and are left out.

    Args:
        probabilities: Shape (n, n_labels).
        labels: 0 or 1, shape (n, n_labels).
        max_fpr: The highest false positive rate, above 0.
        weights: Weight of each label in the mean, by its name; ``equal`` for none.
        sample_weight: Weight of each row.

    Returns:
        1 for the best order, 0.5 for chance.
    """
    area = partial(_up_to, max_fpr=max_fpr)
    return _mean(area, _ranked, probabilities, labels, weights, sample_weight, 0.5)


def auc_above(
    probabilities: Array,
    labels: Labels | Mask,
    *,
    min_tpr: float,
    weights: Array | None = None,
    sample_weight: Array | None = None,
) -> float:
    """Return the area under the ROC curve that lies above a true positive rate (ISIC 2024).

    Classes or labels that no row or every row has cannot be ranked and are left out.

    Args:
        probabilities: Shape (n, n_labels).
        labels: 0 or 1, shape (n, n_labels).
        min_tpr: The lowest true positive rate, below 1.
        weights: Weight of each label in the mean, by its name; ``equal`` for none.
        sample_weight: Weight of each row.

    Returns:
        In 0..1 - min_tpr.
    """
    area = partial(_above, min_tpr=min_tpr)
    by_chance = (1 - min_tpr) ** 2 / 2
    return _mean(area, _ranked, probabilities, labels, weights, sample_weight, by_chance)


def probabilistic_f(
    probabilities: Array,
    labels: Labels | Mask,
    *,
    beta: float,
    weights: Array | None = None,
    sample_weight: Array | None = None,
) -> float:
    """Return the probabilistic F score: probabilities count in the place of decisions (RSNA 2022).

    Classes or labels that no row has are left out.

    Args:
        probabilities: Shape (n, n_labels).
        labels: 0 or 1, shape (n, n_labels).
        beta: Above 0; recall counts beta times as much as precision.
        weights: Weight of each label in the mean, by its name; ``equal`` for none.
        sample_weight: Weight of each row.
    """
    score = partial(_probabilistic_f, beta=beta)
    return _mean(score, _any, probabilities, labels, weights, sample_weight, 0.0)
