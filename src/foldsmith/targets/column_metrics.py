"""Metrics of several numbers per image: means over columns of a metric of one, or one of all.

A target that is missing (NaN) is in no score, whatever is predicted for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, update_wrapper
from typing import Any

import numpy as np
import numpy.typing as npt

from foldsmith.targets.judged_columns import JudgedColumns
from foldsmith.targets.metric import COLUMNS, Metric

Array = npt.NDArray[np.float64]


def for_columns(metric: Metric, judged: JudgedColumns) -> Metric:
    """Return a metric for several numbers per image.

    Args:
        metric: One of values, whose mean over the columns is taken by their weights; or one of
            columns, as it is.
        judged: The columns.
    """
    if metric.needs == COLUMNS:
        # Its signature stays, from which a metric learns whether rows may have weights.
        function = update_wrapper(partial(_of_all, metric.function, judged), metric.function)
        return replace(metric, function=function, judged=judged)
    rows = metric.row_function
    return replace(
        metric,
        needs=COLUMNS,
        function=partial(_mean_of_columns, metric.function, judged),
        row_function=None if rows is None else partial(_rows_of_columns, rows, judged),
        from_mean=partial(mean_over_columns, metric.from_mean, judged.weights),
        # A mean of roots is no mean of squares.
        least_squares=metric.least_squares and len(judged.weights) == 1,
        judged=judged,
        of_column=metric,
    )


def scores_of_columns(
    metric: Metric, predictions: Array, targets: Array, weights: Array | None = None
) -> dict[str, float]:
    """Return the score of each judged column that has a target, by its name.

    Args:
        metric: A metric for several numbers.
        predictions: Shape (n, n_targets).
        targets: Shape (n, n_targets), NaN where one is missing.
        weights: Weight of each row, shape (n,); None for 1 each.
    """
    assert metric.judged is not None, "a metric of columns"
    judge = metric.for_column()
    columns = zip(metric.judged.of(predictions).T, metric.judged.of(targets).T, strict=True)
    return {
        name: judge(predicted[seen], wanted[seen], None if weights is None else weights[seen])
        for name, (predicted, wanted) in zip(metric.judged.names, columns, strict=True)
        if (seen := ~np.isnan(wanted)).any()
    }


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return a weighted mean that does not depend on the order of the values, to the digit."""
    total = math.fsum(weights)
    return math.fsum(v * w for v, w in zip(values, weights, strict=True)) / total


def mean_over_columns(
    from_mean: Callable[[Any], Any], weights: Sequence[float], means: Array
) -> float:
    """Return the metric for the mean of each column's rows, shape (n_columns,); NaN has none."""
    kept = np.flatnonzero(~np.isnan(means)).tolist()
    return weighted_mean([float(from_mean(means[k])) for k in kept], [weights[k] for k in kept])


def _mean_of_columns(
    function: Callable[..., float],
    judged: JudgedColumns,
    predictions: Array,
    targets: Array,
    sample_weight: Array | None = None,
    **options: Any,
) -> float:
    """Return the weighted mean of a metric over the columns that have a target."""
    predicted, wanted = judged.of(predictions), judged.of(targets)
    seen = ~np.isnan(wanted)
    kept = np.flatnonzero(seen.any(axis=0)).tolist()

    def value(k: int) -> float:
        rows = seen[:, k]
        of_rows = {} if sample_weight is None else {"sample_weight": sample_weight[rows]}
        return float(function(predicted[rows, k], wanted[rows, k], **of_rows, **options))

    values = [value(k) for k in kept]
    return weighted_mean(values, [judged.weights[k] for k in kept])


def _rows_of_columns(
    function: Callable[..., Array],
    judged: JudgedColumns,
    predictions: Array,
    targets: Array,
    **options: Any,
) -> Array:
    """Return the value of each row and column, NaN without a target: shape (n, n_judged)."""
    predicted, wanted = judged.of(predictions), judged.of(targets)
    found = np.full(wanted.shape, np.nan)
    for k, seen in enumerate((~np.isnan(wanted)).T):
        found[seen, k] = function(predicted[seen, k], wanted[seen, k], **options)
    return found


def _of_all(
    function: Callable[..., float],
    judged: JudgedColumns,
    predictions: Array,
    targets: Array,
    **options: Any,
) -> float:
    return function(
        judged.of(predictions), judged.of(targets), np.asarray(judged.weights), **options
    )


def global_r2(
    predictions: Array, targets: Array, weights: Array, *, sample_weight: Array | None = None
) -> float:
    """Return the coefficient of determination of all numbers of all columns together.

    Args:
        predictions: Shape (n, n_columns).
        targets: Shape (n, n_columns), NaN where one is missing.
        weights: Weight of each number of a column, shape (n_columns,).
        sample_weight: Weight of each row, shape (n,); None for 1 each.

    Returns:
        At most 1; 0 for the weighted mean of all targets, and if all targets are equal.
    """
    seen = ~np.isnan(targets)
    of_rows = np.ones(len(targets)) if sample_weight is None else sample_weight
    weight = (of_rows[:, None] * weights)[seen]
    truth = targets[seen]
    mean = math.fsum(weight * truth) / math.fsum(weight)
    spread = math.fsum(weight * (truth - mean) ** 2)
    missed = math.fsum(weight * (truth - predictions[seen]) ** 2)
    return 1 - missed / spread if spread else 0.0


GLOBAL_R2 = Metric(
    *("GlobalR2", global_r2), greater_is_better=True, needs=COLUMNS, limits=(-math.inf, 1.0)
)
