"""The computations of the metrics of classes: of decisions, and of probabilities.

Decisions come as (predicted classes, classes, number of classes), int64, shape (n,); probabilities
as (probabilities, classes, number of classes), the first float64, shape (n, n_classes). The weights
of the rows, ``sample_weight``, are float64, above 0, shape (n,); None for 1 each. Metrics that are
means over rows have none: :class:`~foldsmith.targets.metric.Metric` weighs their rows. Those of
decisions are computed from counts: searches for thresholds and resampling call them thousands of
times, and scikit-learn's, which check their input and make a table each time, take 50 times as long
or more (2 ms for 2,000 rows). The tests compare them with scikit-learn's.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from foldsmith.targets.ranks import area_of_precision, ranked_areas

Array = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]

# Smaller probabilities count as this one: the logarithm of 0 would make one image the whole score.
_SMALLEST_PROBABILITY = 1e-15

# Ways to average over classes; binary is of the second of two classes alone.
AVERAGES = ("macro", "micro", "weighted", "binary")


class _Counts(NamedTuple):
    """Images of each class, or the sums of their weights, float64, shape (n_classes,).

    Attributes:
        hits: Images of the class that are predicted as it.
        predicted: Images that are predicted as the class.
        true: Images of the class.
    """

    hits: Array
    predicted: Array
    true: Array

    @property
    def seen(self) -> npt.NDArray[np.bool_]:
        """Classes that are predicted or true for an image: scikit-learn averages over these."""
        return (self.predicted + self.true) > 0


def _counts(
    predicted: Classes, classes: Classes, n_classes: int, sample_weight: Array | None
) -> _Counts:
    def count(of: Classes, among: npt.NDArray[np.bool_] | slice = slice(None)) -> Array:
        weights = None if sample_weight is None else sample_weight[among]
        counted: Array = np.bincount(of[among], weights, minlength=n_classes).astype(np.float64)
        return counted

    return _Counts(count(classes, predicted == classes), count(predicted), count(classes))


def _ratio(numerator: Array, denominator: Array) -> Array:
    """Return a ratio of counts; 0 where nothing was counted."""
    return np.divide(numerator, denominator, out=np.zeros_like(denominator), where=denominator > 0)


def _average(numerator: Array, denominator: Array, counts: _Counts, average: str) -> float:
    """Return the average over the classes of a ratio of counts, one numerator each."""
    if average == "micro":
        return float(numerator.sum() / denominator.sum())
    ratios = _ratio(numerator, denominator)
    if average == "binary":
        return float(ratios[1])
    if average == "weighted":
        return float((ratios * counts.true).sum() / counts.true.sum())
    return float(ratios[counts.seen].mean())


def average_problem(n_classes: int | None, *, average: str) -> str | None:
    """Return why classes cannot be averaged over in some way; None if they can."""
    if average not in AVERAGES:
        return f"average must be {', '.join(AVERAGES[:-1])} or {AVERAGES[-1]}"
    if average == "binary" and n_classes is not None and n_classes != 2:
        return f"average=binary is of 2 classes, and there are {n_classes}; take macro"
    return None


def quadratic_kappa(
    predicted: Classes, classes: Classes, n_classes: int, *, sample_weight: Array | None = None
) -> float:
    """Return Cohen's kappa with quadratic weights (Cohen, 1968).

    Args:
        predicted: Predicted classes in their order, shape (n,).
        classes: True classes, shape (n,).
        n_classes: Number of classes.
        sample_weight: Weight of each row.

    Returns:
        At most 1; 0 for chance, and where only one class is there, predicted and true.
    """
    counts = np.bincount(predicted * n_classes + classes, sample_weight, minlength=n_classes**2)
    table = counts.reshape(n_classes, n_classes)
    order = np.arange(n_classes)
    distance = (order[:, None] - order) ** 2
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    by_chance = (distance * expected).sum()
    return float(1 - (distance * table).sum() / by_chance) if by_chance > 0 else 0.0


def accuracy(predicted: Classes, classes: Classes, n_classes: int) -> float:
    """Return the share of predicted classes that are right."""
    return float(hits(predicted, classes, n_classes).mean())


def hits(predicted: Classes, classes: Classes, _: int) -> Array:
    """Return 1 for each row whose predicted class is right, else 0."""
    right: Array = (predicted == classes).astype(np.float64)
    return right


def balanced_accuracy(
    predicted: Classes, classes: Classes, n_classes: int, *, sample_weight: Array | None = None
) -> float:
    """Return the mean over the classes of the share of its images that are predicted as it.

    Classes without images are left out.
    """
    counts = _counts(predicted, classes, n_classes, sample_weight)
    there = counts.true > 0
    return float((counts.hits[there] / counts.true[there]).mean())


def f1(
    predicted: Classes,
    classes: Classes,
    n_classes: int,
    *,
    average: str,
    sample_weight: Array | None = None,
) -> float:
    """Return the F1 score: the harmonic mean of precision and recall.

    Args:
        predicted: Predicted classes, shape (n,).
        classes: True classes, shape (n,).
        n_classes: Number of classes.
        average: Over the classes: ``macro`` (every class alike), ``weighted`` (by their number of
            images), ``micro`` (of all counts together) or ``binary`` (the second of two classes).
        sample_weight: Weight of each row.
    """
    return f_beta(
        predicted, classes, n_classes, beta=1.0, average=average, sample_weight=sample_weight
    )


def f_beta(
    predicted: Classes,
    classes: Classes,
    n_classes: int,
    *,
    beta: float,
    average: str,
    sample_weight: Array | None = None,
) -> float:
    """Return the F-beta score: recall counts beta times as much as precision.

    Args:
        predicted: Predicted classes, shape (n,).
        classes: True classes, shape (n,).
        n_classes: Number of classes.
        beta: Above 0; 2 favours recall, 0.5 precision.
        average: Over the classes, as for F1: ``macro``, ``weighted``, ``micro`` or ``binary``.
        sample_weight: Weight of each row.
    """
    counts, weight = _counts(predicted, classes, n_classes, sample_weight), beta**2
    both = weight * counts.true + counts.predicted
    return _average((1 + weight) * counts.hits, both, counts, average)


def f_beta_problem(n_classes: int | None, *, beta: float, average: str) -> str | None:
    """Return why the options of F-beta cannot be; None if they can."""
    return "beta must be above 0" if beta <= 0 else average_problem(n_classes, average=average)


def jaccard(
    predicted: Classes,
    classes: Classes,
    n_classes: int,
    *,
    average: str,
    sample_weight: Array | None = None,
) -> float:
    """Return Jaccard's index: the images of a class that are right, over those true or predicted.

    Args:
        predicted: Predicted classes, shape (n,).
        classes: True classes, shape (n,).
        n_classes: Number of classes.
        average: Over the classes, as for F1: ``macro``, ``weighted``, ``micro`` or ``binary``.
        sample_weight: Weight of each row.
    """
    counts = _counts(predicted, classes, n_classes, sample_weight)
    either = counts.true + counts.predicted - counts.hits
    return _average(counts.hits, either, counts, average)


def matthews(
    predicted: Classes, classes: Classes, n_classes: int, *, sample_weight: Array | None = None
) -> float:
    """Return the correlation coefficient of Matthews, for several classes that of Gorodkin (2004).

    Returns:
        In -1..1; 0 for chance, and where only one class is predicted or true.
    """
    counts = _counts(predicted, classes, n_classes, sample_weight)
    n = float(counts.true.sum())
    together = counts.hits.sum() * n - counts.predicted @ counts.true
    spread = (n**2 - counts.predicted @ counts.predicted) * (n**2 - counts.true @ counts.true)
    return float(together / np.sqrt(spread)) if spread > 0 else 0.0


def surprise(probabilities: Array, classes: Classes, _: int) -> Array:
    """Return the negative logarithm of the probability of each true class, shape (n,)."""
    of_truth = probabilities[np.arange(len(classes)), classes]
    surprise: Array = -np.log(np.clip(of_truth, _SMALLEST_PROBABILITY, 1.0))
    return surprise


def log_loss(probabilities: Array, classes: Classes, n_classes: int) -> float:
    """Return the mean negative logarithm of the true class's probability.

    Args:
        probabilities: Shape (n, n_classes); none counts as less than 1e-15.
        classes: True classes, shape (n,).
        n_classes: Number of classes.
    """
    return float(surprise(probabilities, classes, n_classes).mean())


def weighted_log_loss(
    probabilities: Array,
    classes: Classes,
    n_classes: int,
    *,
    weights: str | Sequence[float],
    sample_weight: Array | None = None,
) -> float:
    """Return the weighted mean of the negative logarithm of the true class's probability.

    Args:
        probabilities: Shape (n, n_classes); none counts as less than 1e-15.
        classes: True classes, shape (n,).
        n_classes: Number of classes.
        weights: Weight of an image of each class, in the order of the classes; ``balanced`` gives
            every class the same weight, whatever its number of images.
        sample_weight: Weight of each row.
    """
    of_rows = surprise(probabilities, classes, n_classes)
    if isinstance(weights, str):
        by_class = _ratio(
            np.ones(n_classes), _counts(classes, classes, n_classes, sample_weight).true
        )
    else:
        by_class = np.asarray(weights, dtype=np.float64)
    by_row = by_class[classes] if sample_weight is None else by_class[classes] * sample_weight
    return float(by_row @ of_rows / by_row.sum())


def weights_problem(n_classes: int | None, *, weights: str | Sequence[float]) -> str | None:
    """Return why weights of classes cannot be; None if they can."""
    if isinstance(weights, str):
        return None if weights == "balanced" else "weights must be balanced, or one per class"
    if not all(isinstance(w, int | float) and np.isfinite(w) and w > 0 for w in weights):
        return "weights must be numbers above 0"
    if n_classes is not None and len(weights) != n_classes:
        return f"weights has {len(weights)} numbers for {n_classes} classes"
    return None


def brier(probabilities: Array, classes: Classes, n_classes: int) -> float:
    """Return Brier's score: the mean squared distance of the probabilities from 0 and 1.

    Returns:
        In 0..2, the sum over the classes; of two classes in 0..1, of one of them alone.
    """
    return float(brier_rows(probabilities, classes, n_classes).mean())


def brier_rows(probabilities: Array, classes: Classes, n_classes: int) -> Array:
    """Return Brier's score of each row."""
    off = probabilities.copy()
    off[np.arange(len(classes)), classes] -= 1
    rows: Array = (off**2).sum(axis=1)
    return rows / 2 if n_classes == 2 else rows


def macro_auc(
    probabilities: Array, classes: Classes, n_classes: int, *, sample_weight: Array | None = None
) -> float:
    """Return the area under the ROC curve, for several classes the mean of one against the rest.

    Classes that no row or every row has cannot be ranked and are left out.

    Args:
        probabilities: Shape (n, n_classes).
        classes: True classes, shape (n,).
        n_classes: Number of classes; of two the second is the positive one.
        sample_weight: Weight of each row.

    Returns:
        In 0..1; 0.5 where no class can be ranked.
    """
    found, _ = _areas(probabilities, classes, n_classes, sample_weight)
    return float(found.mean()) if len(found) else 0.5


def weighted_auc(
    probabilities: Array, classes: Classes, n_classes: int, *, sample_weight: Array | None = None
) -> float:
    """Return the mean area under the ROC curve of one class against the rest, by frequency.

    Classes that no row or every row has cannot be ranked and are left out.

    Args:
        probabilities: Shape (n, n_classes).
        classes: True classes, shape (n,).
        n_classes: Number of classes; of two the second is the positive one, and counts alone.
        sample_weight: Weight of each row.

    Returns:
        In 0..1; 0.5 where no class can be ranked.
    """
    found, n_positive = _areas(probabilities, classes, n_classes, sample_weight)
    return float((found * n_positive).sum() / n_positive.sum()) if len(found) else 0.5


def _areas(
    probabilities: Array, classes: Classes, n_classes: int, sample_weight: Array | None
) -> tuple[Array, Array]:
    """Return the area of each class that can be ranked, and its number of images."""
    first = 0 if n_classes > 2 else 1
    positive = classes[:, None] == np.arange(first, n_classes)
    return ranked_areas(probabilities[:, first:], positive, sample_weight)


def average_precision(
    probabilities: Array, classes: Classes, n_classes: int, *, sample_weight: Array | None = None
) -> float:
    """Return the area under the precision-recall curve, the mean of one class against the rest.

    It is the sum of the precisions at each recall, without interpolation. Classes that no row has
    are left out.

    Args:
        probabilities: Shape (n, n_classes).
        classes: True classes, shape (n,).
        n_classes: Number of classes; of two the second is the positive one, and counts alone.
        sample_weight: Weight of each row.

    Returns:
        In 0..1; 0 if no row has a class that counts.
    """
    found = []
    for k in range(0 if n_classes > 2 else 1, n_classes):
        positive = classes == k
        if positive.any():
            found.append(area_of_precision(probabilities[:, k], positive, sample_weight))
    return float(np.mean(found)) if found else 0.0


def ranked_classes(probabilities: Array, k: int) -> Classes:
    """Return the k most probable classes of each row, the most probable first, shape (n, k).

    Of equal probabilities the first class comes first.
    """
    ranked: Classes = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return ranked


def _ranks(probabilities: Array, classes: Classes) -> Classes:
    """Return the rank of each true class, 1 for the most probable, as they are handed in."""
    of_truth = probabilities[np.arange(len(classes)), classes][:, None]
    before = np.arange(probabilities.shape[1]) < classes[:, None]
    ahead = (probabilities > of_truth) | ((probabilities == of_truth) & before)
    ranks: Classes = 1 + ahead.sum(axis=1)
    return ranks


def top_k(probabilities: Array, classes: Classes, n_classes: int, *, k: int) -> float:
    """Return the share of images whose class is among the k most probable ones.

    Args:
        probabilities: Shape (n, n_classes).
        classes: True classes, shape (n,).
        n_classes: Number of classes.
        k: Below the number of classes.
    """
    return float(top_k_rows(probabilities, classes, n_classes, k=k).mean())


def top_k_rows(probabilities: Array, classes: Classes, _: int, *, k: int) -> Array:
    """Return 1 for each row whose class is among the k most probable ones, else 0."""
    right: Array = (_ranks(probabilities, classes) <= k).astype(np.float64)
    return right


def top_k_problem(n_classes: int | None, *, k: int) -> str | None:
    """Return why there cannot be k classes among which an image's is or is not; None if so."""
    if k < 1:
        return "k must be at least 1"
    if n_classes is not None and k >= n_classes:
        return f"k={k} must be below the number of classes, which is {n_classes}"
    return None


def mean_precision_at_k(probabilities: Array, classes: Classes, n_classes: int, *, k: int) -> float:
    """Return the mean average precision at k of ranked classes (MAP@k).

    An image has one true class: it counts 1 / its rank, and 0 beyond the first k.

    Args:
        probabilities: Shape (n, n_classes).
        classes: True classes, shape (n,).
        n_classes: Number of classes.
        k: Number of ranked classes.
    """
    return float(precision_at_k_rows(probabilities, classes, n_classes, k=k).mean())


def precision_at_k_rows(probabilities: Array, classes: Classes, _: int, *, k: int) -> Array:
    """Return 1 / the rank of the true class of each row, 0 beyond the first k."""
    ranks = _ranks(probabilities, classes)
    return np.where(ranks <= k, 1 / ranks, 0.0)


def rank_problem(n_classes: int | None, *, k: int) -> str | None:
    """Return why no k classes can be ranked; None if they can."""
    if k < 1:
        return "k must be at least 1"
    if n_classes is not None and k > n_classes:
        return f"k={k} is more than the number of classes, which is {n_classes}"
    return None
