"""The computations of the metrics of several labels per image: of decisions, and of probabilities.

Decisions come as (decisions, labels), int64 of 0 and 1, shape (n, n_labels) each; probabilities as
(probabilities, labels), the first float64. As for classes, scores of decisions are computed from
counts, and the tests compare them with scikit-learn's. A label that is neither decided nor true in
any row has no score, and is left out of an average; where nothing is decided and nothing is true,
every decision is right.
``sample_weight`` is as for classes: float64, above 0, shape (n,), or None.
"""

import numpy as np
import numpy.typing as npt

from foldsmith.targets.label_means import row_means, weighted_mean
from foldsmith.targets.ranks import area_of_precision, ranked_areas

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

# Probabilities nearer to 0 or 1 count as this near: one sure error would be the whole score.
_NEAREST = 1e-15

AVERAGES = ("macro", "micro", "weighted", "samples")
AVERAGES_OF_RANKS = ("macro", "micro")


def average_problem(_: int | None, *, average: str) -> str | None:
    """Return why labels cannot be averaged over in some way; None if they can."""
    return None if average in AVERAGES else f"average must be {_listed(AVERAGES)}"


def rank_average_problem(_: int | None, *, average: str) -> str | None:
    """Return why ranks of labels cannot be averaged over in some way; None if they can."""
    return None if average in AVERAGES_OF_RANKS else f"average must be {_listed(AVERAGES_OF_RANKS)}"


def f_beta_problem(_: int | None, *, beta: float, average: str) -> str | None:
    """Return why the options of F-beta cannot be; None if they can."""
    return "beta must be above 0" if beta <= 0 else average_problem(None, average=average)


def f1(
    decisions: Labels,
    labels: Labels,
    *,
    average: str,
    weights: Array | None = None,
    sample_weight: Array | None = None,
) -> float:
    """Return the F1 score of decisions: the harmonic mean of precision and recall.

    Args:
        decisions: 0 or 1, shape (n, n_labels).
        labels: 0 or 1, shape (n, n_labels).
        average: ``macro`` (every label alike), ``weighted`` (by its number of images), ``micro``
            (of all decisions together) or ``samples`` (of each image, every image alike).
        weights: Weight of each label in the mean, by its name (with ``macro``); ``equal`` for none.
        sample_weight: Weight of each row.
    """
    return f_beta(
        *(decisions, labels),
        beta=1.0,
        average=average,
        weights=weights,
        sample_weight=sample_weight,
    )


def f_beta(
    decisions: Labels,
    labels: Labels,
    *,
    beta: float,
    average: str,
    weights: Array | None = None,
    sample_weight: Array | None = None,
) -> float:
    """Return the F-beta score of decisions: recall counts beta times as much as precision.

    Args:
        decisions: 0 or 1, shape (n, n_labels).
        labels: 0 or 1, shape (n, n_labels).
        beta: Above 0; 2 favours recall, 0.5 precision.
        average: Over the labels, as for F1: ``macro``, ``weighted``, ``micro`` or ``samples``.
        weights: Weight of each label in the mean, by its name (with ``macro``); ``equal`` for none.
        sample_weight: Weight of each row.
    """
    weight = beta**2
    hits, decided, true = _counts(decisions, labels, average, sample_weight)
    both = weight * true + decided
    return _average((1 + weight) * hits, both, true, average, weights, sample_weight)


def jaccard(
    decisions: Labels,
    labels: Labels,
    *,
    average: str,
    weights: Array | None = None,
    sample_weight: Array | None = None,
) -> float:
    """Return Jaccard's index: labels that are decided and true, over those decided or true.

    Args:
        decisions: 0 or 1, shape (n, n_labels).
        labels: 0 or 1, shape (n, n_labels).
        average: Over the labels, as for F1: ``macro``, ``weighted``, ``micro`` or ``samples``.
        weights: Weight of each label in the mean, by its name (with ``macro``); ``equal`` for none.
        sample_weight: Weight of each row.
    """
    hits, decided, true = _counts(decisions, labels, average, sample_weight)
    return _average(hits, decided + true - hits, true, average, weights, sample_weight)


def exact_accuracy(decisions: Labels, labels: Labels) -> float:
    """Return the share of images whose labels are all decided rightly."""
    return float(exact_rows(decisions, labels).mean())


def exact_rows(decisions: Labels, labels: Labels) -> Array:
    """Return 1 for each row whose labels are all decided rightly, else 0."""
    right: Array = (decisions == labels).all(axis=1).astype(np.float64)
    return right


def hamming(decisions: Labels, labels: Labels, *, weights: Array | None = None) -> float:
    """Return the share of wrong decisions, over images and labels.

    Args:
        decisions: 0 or 1, shape (n, n_labels).
        labels: 0 or 1, shape (n, n_labels).
        weights: Weight of each label in the mean, by its name; ``equal`` for none.
    """
    return float(hamming_rows(decisions, labels, weights=weights).mean())


def hamming_rows(decisions: Labels, labels: Labels, *, weights: Array | None = None) -> Array:
    """Return the share of wrong decisions of each row."""
    return row_means((decisions != labels).astype(np.float64), weights)


def log_loss(probabilities: Array, labels: Labels, *, weights: Array | None = None) -> float:
    """Return the mean negative logarithm of the probability of the truth, over all labels.

    Args:
        probabilities: Shape (n, n_labels); none counts as less than 1e-15 from 0 and 1.
        labels: 0 or 1, shape (n, n_labels).
        weights: Weight of each label in the mean, by its name; ``equal`` for none.
    """
    return float(surprise(probabilities, labels, weights=weights).mean())


def surprise(probabilities: Array, labels: Labels, *, weights: Array | None = None) -> Array:
    """Return the log loss of each row, the mean over its labels."""
    of_truth = np.where(labels == 1, probabilities, 1 - probabilities)
    return row_means(-np.log(np.clip(of_truth, _NEAREST, 1.0)), weights)


def brier(probabilities: Array, labels: Labels, *, weights: Array | None = None) -> float:
    """Return Brier's score: the mean squared distance of the probabilities from 0 and 1.

    Args:
        probabilities: Shape (n, n_labels).
        labels: 0 or 1, shape (n, n_labels).
        weights: Weight of each label in the mean, by its name; ``equal`` for none.
    """
    return float(brier_rows(probabilities, labels, weights=weights).mean())


def brier_rows(probabilities: Array, labels: Labels, *, weights: Array | None = None) -> Array:
    """Return Brier's score of each row, the mean over its labels."""
    return row_means((probabilities - labels) ** 2, weights)


def auc(
    probabilities: Array,
    labels: Labels,
    *,
    average: str,
    weights: Array | None = None,
    sample_weight: Array | None = None,
) -> float:
    """Return the area under the ROC curve.

    Labels that no row or every row has cannot be ranked and are left out.

    Args:
        probabilities: Shape (n, n_labels).
        labels: 0 or 1, shape (n, n_labels).
        average: ``macro`` (every label alike) or ``micro`` (all probabilities ranked together).
        weights: Weight of each label in the mean, by its name (with ``macro``); ``equal`` for none.
        sample_weight: Weight of each row.

    Returns:
        In 0..1; 0.5 where no label can be ranked.
    """
    probabilities, labels, sample_weight = _ranked_as(average, probabilities, labels, sample_weight)
    positive = labels == 1
    found, _ = ranked_areas(probabilities, positive, sample_weight)
    if not len(found):
        return 0.5
    seen = positive.any(axis=0) & ~positive.all(axis=0)
    return weighted_mean(found, None if weights is None else weights[seen])


def average_precision(
    probabilities: Array,
    labels: Labels,
    *,
    average: str,
    weights: Array | None = None,
    sample_weight: Array | None = None,
) -> float:
    """Return the area under the precision-recall curve: the mean of precisions at each recall.

    Labels that no row has are left out.

    Args:
        probabilities: Shape (n, n_labels).
        labels: 0 or 1, shape (n, n_labels).
        average: ``macro`` (every label alike) or ``micro`` (all probabilities ranked together).
        weights: Weight of each label in the mean, by its name (with ``macro``); ``equal`` for none.
        sample_weight: Weight of each row.

    Returns:
        In 0..1; 0 where no row has a label.
    """
    probabilities, labels, sample_weight = _ranked_as(average, probabilities, labels, sample_weight)
    positive = labels == 1
    seen = positive.any(axis=0)
    found = [
        area_of_precision(probabilities[:, k], positive[:, k], sample_weight)
        for k in np.flatnonzero(seen)
    ]
    if not found:
        return 0.0
    return weighted_mean(np.array(found), None if weights is None else weights[seen])


def _ranked_as(
    average: str, probabilities: Array, labels: Labels, sample_weight: Array | None
) -> tuple[Array, Labels, Array | None]:
    """Return the columns to rank, one for each label or a single one of all, and their weights."""
    if average != "micro":
        return probabilities, labels, sample_weight
    each = None if sample_weight is None else np.repeat(sample_weight, labels.shape[1])
    return probabilities.reshape(-1, 1), labels.reshape(-1, 1), each


def _counts(
    decisions: Labels, labels: Labels, average: str, sample_weight: Array | None
) -> tuple[Array, Array, Array]:
    """Return how many decisions are hits, positive and truly positive, or their weights' sums.

    Of each row for ``samples``, shape (n,), where its weight plays no part; of each label
    otherwise, shape (n_labels,).
    """
    found = ((decisions & labels), decisions, labels)
    if average != "samples" and sample_weight is not None:
        hits, decided, true = (sample_weight @ each for each in found)
        return hits, decided, true
    axis = 1 if average == "samples" else 0
    hits, decided, true = (each.sum(axis=axis).astype(np.float64) for each in found)
    return hits, decided, true


def _average(
    numerator: Array,
    denominator: Array,
    true: Array,
    average: str,
    weights: Array | None,
    sample_weight: Array | None,
) -> float:
    if average == "micro":
        return float(numerator.sum() / denominator.sum()) if denominator.any() else 1.0
    seen = denominator > 0
    ratios = np.divide(numerator, denominator, out=np.ones_like(denominator), where=seen)
    if average == "samples":
        return weighted_mean(ratios, sample_weight)
    if average == "weighted" and true.any():
        return weighted_mean(ratios, true)
    if not seen.any():
        return 1.0
    return weighted_mean(ratios[seen], None if weights is None else weights[seen])


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
