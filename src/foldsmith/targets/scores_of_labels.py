"""The computations of the metrics of several labels per image: of decisions, and of probabilities.

Decisions come as (decisions, labels), int64 of 0 and 1, shape (n, n_labels) each; probabilities as
(probabilities, labels), the first float64. As for classes, scores of decisions are computed from
counts, and the tests compare them with scikit-learn's. A label that is neither decided nor true in
any row has no score, and is left out of an average; where nothing is decided and nothing is true,
every decision is right.
"""

import numpy as np
import numpy.typing as npt

from foldsmith.targets.scores_of_classes import area_of_precision

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


def f1(decisions: Labels, labels: Labels, *, average: str) -> float:
    """Return the F1 score of decisions: the harmonic mean of precision and recall.

    Args:
        decisions: 0 or 1, shape (n, n_labels).
        labels: 0 or 1, shape (n, n_labels).
        average: ``macro`` (every label alike), ``weighted`` (by its number of images), ``micro``
            (of all decisions together) or ``samples`` (of each image, every image alike).
    """
    return f_beta(decisions, labels, beta=1.0, average=average)


def f_beta(decisions: Labels, labels: Labels, *, beta: float, average: str) -> float:
    """Return the F-beta score of decisions: recall counts beta times as much as precision.

    Args:
        decisions: 0 or 1, shape (n, n_labels).
        labels: 0 or 1, shape (n, n_labels).
        beta: Above 0; 2 favours recall, 0.5 precision.
        average: Over the labels, as for F1: ``macro``, ``weighted``, ``micro`` or ``samples``.
    """
    weight = beta**2
    hits, decided, true = _counts(decisions, labels, average)
    return _average((1 + weight) * hits, weight * true + decided, true, average)


def jaccard(decisions: Labels, labels: Labels, *, average: str) -> float:
    """Return Jaccard's index: labels that are decided and true, over those decided or true.

    Args:
        decisions: 0 or 1, shape (n, n_labels).
        labels: 0 or 1, shape (n, n_labels).
        average: Over the labels, as for F1: ``macro``, ``weighted``, ``micro`` or ``samples``.
    """
    hits, decided, true = _counts(decisions, labels, average)
    return _average(hits, decided + true - hits, true, average)


def exact_accuracy(decisions: Labels, labels: Labels) -> float:
    """Return the share of images whose labels are all decided rightly."""
    return float(exact_rows(decisions, labels).mean())


def exact_rows(decisions: Labels, labels: Labels) -> Array:
    """Return 1 for each row whose labels are all decided rightly, else 0."""
    right: Array = (decisions == labels).all(axis=1).astype(np.float64)
    return right


def hamming(decisions: Labels, labels: Labels) -> float:
    """Return the share of wrong decisions, over images and labels."""
    return float(hamming_rows(decisions, labels).mean())


def hamming_rows(decisions: Labels, labels: Labels) -> Array:
    """Return the share of wrong decisions of each row."""
    wrong: Array = (decisions != labels).mean(axis=1)
    return wrong


def log_loss(probabilities: Array, labels: Labels) -> float:
    """Return the mean negative logarithm of the probability of what is true, over all labels.

    Args:
        probabilities: Shape (n, n_labels); none counts as less than 1e-15 from 0 and 1.
        labels: 0 or 1, shape (n, n_labels).
    """
    return float(surprise(probabilities, labels).mean())


def surprise(probabilities: Array, labels: Labels) -> Array:
    """Return the log loss of each row, the mean over its labels."""
    of_truth = np.where(labels == 1, probabilities, 1 - probabilities)
    rows: Array = -np.log(np.clip(of_truth, _NEAREST, 1.0)).mean(axis=1)
    return rows


def brier(probabilities: Array, labels: Labels) -> float:
    """Return Brier's score: the mean squared distance of the probabilities from 0 and 1."""
    return float(brier_rows(probabilities, labels).mean())


def brier_rows(probabilities: Array, labels: Labels) -> Array:
    """Return Brier's score of each row, the mean over its labels."""
    rows: Array = ((probabilities - labels) ** 2).mean(axis=1)
    return rows


def auc(probabilities: Array, labels: Labels, *, average: str) -> float:
    """Return the area under the ROC curve.

    Labels that no row or every row has cannot be ranked and are left out.

    Args:
        probabilities: Shape (n, n_labels).
        labels: 0 or 1, shape (n, n_labels).
        average: ``macro`` (every label alike) or ``micro`` (all probabilities ranked together).

    Returns:
        In 0..1; 0.5 where no label can be ranked.
    """
    from scipy.stats import rankdata

    probabilities, labels = _ranked_as(average, probabilities, labels)
    ranks = rankdata(probabilities, axis=0)
    n_positive = labels.sum(axis=0).astype(np.float64)
    pairs = n_positive * (len(labels) - n_positive)
    won = (ranks * labels).sum(axis=0) - n_positive * (n_positive + 1) / 2
    return float((won[pairs > 0] / pairs[pairs > 0]).mean()) if pairs.any() else 0.5


def average_precision(probabilities: Array, labels: Labels, *, average: str) -> float:
    """Return the area under the precision-recall curve: the mean of precisions at each recall.

    Labels that no row has are left out.

    Args:
        probabilities: Shape (n, n_labels).
        labels: 0 or 1, shape (n, n_labels).
        average: ``macro`` (every label alike) or ``micro`` (all probabilities ranked together).

    Returns:
        In 0..1; 0 where no row has a label.
    """
    probabilities, labels = _ranked_as(average, probabilities, labels)
    positive = labels == 1
    found = [
        area_of_precision(probabilities[:, k], positive[:, k])
        for k in np.flatnonzero(positive.any(axis=0))
    ]
    # In the order of size, so that the order of the labels does not change a digit.
    return float(np.sort(found).mean()) if found else 0.0


def _ranked_as(average: str, probabilities: Array, labels: Labels) -> tuple[Array, Labels]:
    """Return the columns to rank, one for each label or a single one of all."""
    if average == "micro":
        return probabilities.reshape(-1, 1), labels.reshape(-1, 1)
    return probabilities, labels


def _counts(decisions: Labels, labels: Labels, average: str) -> tuple[Array, Array, Array]:
    """Return how many decisions are hits, positive and truly positive.

    Of each row for ``samples``, shape (n,); of each label otherwise, shape (n_labels,).
    """
    axis = 1 if average == "samples" else 0
    found = ((decisions & labels), decisions, labels)
    hits, decided, true = (each.sum(axis=axis).astype(np.float64) for each in found)
    return hits, decided, true


def _average(numerator: Array, denominator: Array, true: Array, average: str) -> float:
    if average == "micro":
        return float(numerator.sum() / denominator.sum()) if denominator.any() else 1.0
    seen = denominator > 0
    ratios = np.divide(numerator, denominator, out=np.ones_like(denominator), where=seen)
    if average == "samples":
        return float(ratios.mean())
    if average == "weighted" and true.any():
        return float((ratios * true).sum() / true.sum())
    return float(np.sort(ratios[seen]).mean()) if seen.any() else 1.0


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
