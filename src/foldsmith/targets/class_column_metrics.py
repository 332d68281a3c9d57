"""Metrics of several class targets per image: means over columns, and whether all are right.

A target that is missing (NaN) is in no score, whatever is predicted for it.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial, update_wrapper
from typing import Any

import numpy as np
import numpy.typing as npt

from foldsmith.targets.class_blocks import ClassBlocks
from foldsmith.targets.column_metrics import mean_over_columns
from foldsmith.targets.metric import CLASS_COLUMNS, UP_TO_1, Metric

Array = npt.NDArray[np.float64]


def for_blocks(metric: Metric, blocks: ClassBlocks) -> Metric:
    """Return a metric for several class targets per image.

    Args:
        metric: One of classes or their probabilities, whose mean over the columns is taken by
            their weights; or one of all columns.
        blocks: The columns.
    """
    if metric.needs == CLASS_COLUMNS:
        rows = metric.row_function
        # Its signature stays, from which a metric learns whether rows may have weights.
        function = update_wrapper(partial(metric.function, blocks), metric.function)
        return replace(
            metric,
            function=function,
            row_function=None if rows is None else partial(rows, blocks),
            blocks=blocks,
        )
    rows = metric.row_function
    return replace(
        metric,
        needs=CLASS_COLUMNS,
        function=partial(_mean_of_columns, metric, blocks),
        row_function=None if rows is None else partial(_rows_of_columns, metric, blocks),
        from_mean=partial(mean_over_columns, metric.from_mean, blocks.weights),
        problem_of=partial(_problem_of_columns, metric.problem_of, blocks),
        # The number of classes and of missing targets differs from column to column.
        least_squares=metric.least_squares and len(blocks.names) == 1,
        blocks=blocks,
        of_column=metric,
    )


def column_metrics(metric: Metric) -> dict[str, Metric]:
    """Return the metric of each column alone, by its name: the accuracy if it is no mean of such.

    Args:
        metric: A metric of several class targets.
    """
    blocks = metric.blocks
    assert blocks is not None, "a metric of several class targets"
    alone = metric.for_column()
    return {
        name: alone.for_classes(tuple(map(float, range(size))), unordered=True)
        for name, size in zip(blocks.names, blocks.sizes, strict=True)
    }


def _mean_of_columns(
    metric: Metric,
    blocks: ClassBlocks,
    probabilities: Array,
    targets: Array,
    sample_weight: Array | None = None,
    **options: Any,
) -> float:
    """Return the weighted mean of a metric over the columns that have a target."""
    means = np.full(len(blocks.names), np.nan)
    for k, (judge, block) in enumerate(_judges(metric, blocks, probabilities, options)):
        seen = ~np.isnan(targets[:, k])
        if seen.any():
            of_rows = None if sample_weight is None else sample_weight[seen]
            means[k] = judge(block[seen], targets[seen, k], of_rows)
    return mean_over_columns(float, blocks.weights, means)


def _rows_of_columns(
    metric: Metric, blocks: ClassBlocks, probabilities: Array, targets: Array, **options: Any
) -> Array:
    """Return the value of each row and column, NaN without a target: shape (n, n_columns)."""
    found = np.full(targets.shape, np.nan)
    for k, (judge, block) in enumerate(_judges(metric, blocks, probabilities, options)):
        seen = ~np.isnan(targets[:, k])
        if seen.any():
            found[seen, k] = judge.rows(block[seen], targets[seen, k])
    return found


def _judges(
    metric: Metric, blocks: ClassBlocks, probabilities: Array, options: Mapping[str, Any]
) -> list[tuple[Metric, Array]]:
    """Return the metric and the probabilities of each column."""
    alone = replace(metric, options=options)
    return [
        (alone.for_classes(tuple(map(float, range(size))), unordered=True), block)
        for size, block in zip(blocks.sizes, blocks.of(probabilities), strict=True)
    ]


def _problem_of_columns(
    problem_of: Callable[..., str | None] | None,
    blocks: ClassBlocks,
    _: int | None,
    **options: Any,
) -> str | None:
    """Return why options cannot be for a column."""
    for name, size in zip(blocks.names, blocks.sizes, strict=True):
        problem = None if problem_of is None else problem_of(size, **options)
        if problem:
            return f"column {name}: {problem}"
    return None


def exact_match(blocks: ClassBlocks, probabilities: Array, targets: Array) -> float:
    """Return the share of images for which the most probable class of every target is right.

    Args:
        blocks: The columns.
        probabilities: Shape (n, n_outputs).
        targets: Class numbers, shape (n, n_columns), NaN where one is missing.

    Returns:
        0..1; a missing target counts as right, and an image without any target as right too.
    """
    return float(exact_match_rows(blocks, probabilities, targets).mean())


def exact_match_rows(blocks: ClassBlocks, probabilities: Array, targets: Array) -> Array:
    """Return 1 where every target is right and 0 elsewhere, shape (n,)."""
    right = (blocks.decided(probabilities) == targets) | np.isnan(targets)
    all_right: Array = right.all(axis=1).astype(np.float64)
    return all_right


EXACT_MATCH = Metric(
    *("ExactMatch", exact_match),
    greater_is_better=True,
    needs=CLASS_COLUMNS,
    row_function=exact_match_rows,
    limits=UP_TO_1,
)
