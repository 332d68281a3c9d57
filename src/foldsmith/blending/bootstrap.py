"""How far a score would move with other images: the bootstrap over groups."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from foldsmith.targets.metrics import Metric
from foldsmith.utils.formatting import counted

Array = npt.NDArray[np.float64]

RESAMPLES = 1000
# For metrics that are no mean over rows, each of which is computed anew.
RESAMPLES_OF_WHOLES = 300

_OUTSIDE = 0.05


def bootstrap(
    metric: Metric,
    predictions: Mapping[str, Array],
    targets: Array,
    groups: npt.NDArray[np.int64],
    seed: int,
    weights: Array | None = None,
) -> dict[str, Array]:
    """Return the metric of resampled groups, the same ones for all predictions.

    Whole groups are drawn with replacement (the cluster bootstrap; Davison and Hinkley,
    "Bootstrap Methods and their Application", 1997, section 3.8): images of one group err
    alike, and drawing single images would promise more certainty than there is. As all
    predictions meet the same draws, differences of two columns are paired.

    Args:
        metric: The metric.
        predictions: Name -> predictions, shape (n,) or (n, n_classes).
        targets: Shape (n,).
        groups: Number of each row's group, 0 to n_groups - 1, shape (n,).
        seed: Seed of the draws.
        weights: Weight of each row in the metric, at least 0, shape (n,); None for 1 each. Rows of
            weight 0 are not drawn.

    Returns:
        Name -> float64, shape (:data:`RESAMPLES`,), fewer where the metric is no mean over rows.
    """
    if weights is not None and not weights.all():
        there = weights > 0
        predictions = {name: predicted[there] for name, predicted in predictions.items()}
        targets, weights = targets[there], weights[there]
        groups = np.unique(groups[there], return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    n_groups = int(groups.max()) + 1
    sums = {}
    for name, predicted in predictions.items():
        rows = metric.rows(predicted, targets)
        if rows is not None:
            sums[name] = _sums_of_groups(rows, groups, n_groups, weights)
    found: dict[str, list[float]] = {name: [] for name in predictions}
    for _ in range(RESAMPLES if sums else RESAMPLES_OF_WHOLES):
        counts = np.bincount(rng.integers(0, n_groups, n_groups), minlength=n_groups)
        if sums:
            for name, (values, sizes) in sums.items():
                with np.errstate(invalid="ignore"):  # a column without a target in the draw
                    means = counts @ values / (counts @ sizes)
                found[name].append(float(metric.from_mean(means)))
        else:
            drawn = np.repeat(np.arange(len(targets)), counts[groups])
            of_drawn = None if weights is None else weights[drawn]
            for name, predicted in predictions.items():
                found[name].append(metric(predicted[drawn], targets[drawn], of_drawn))
    return {name: np.asarray(values) for name, values in found.items()}


def _sums_of_groups(
    rows: Array, groups: npt.NDArray[np.int64], n_groups: int, weights: Array | None
) -> tuple[Array, npt.NDArray[Any]]:
    """Return the sum of each group's values, and that of their weights: shape (n_groups, ...).

    Args:
        rows: Shape (n,), or (n, n_columns) with NaN for values that are not there.
        groups: Group of each row, shape (n,).
        n_groups: Number of groups.
        weights: Weight of each row, shape (n,); None for 1 each.
    """
    if rows.ndim == 1:
        values = rows if weights is None else rows * weights
        sums: Array = np.bincount(groups, weights=values, minlength=n_groups).astype(np.float64)
        return sums, np.bincount(groups, weights, minlength=n_groups)
    columns = [
        _sums_of_groups(
            column[seen], groups[seen], n_groups, None if weights is None else weights[seen]
        )
        for column, seen in zip(rows.T, ~np.isnan(rows.T), strict=True)
    ]
    return np.stack([s for s, _ in columns], axis=1), np.stack([n for _, n in columns], axis=1)


def resampled_units(groups: npt.NDArray[np.int64]) -> str:
    """Return how many units the bootstrap draws from, as in "34 groups" or "400 images".

    Args:
        groups: Number of each row's group, from 0 on, shape (n,).
    """
    n_groups = int(groups.max()) + 1
    return counted(n_groups, "image" if n_groups == len(groups) else "group")


def interval(values: Array) -> tuple[float, float]:
    """Return the middle 95 % of resampled values."""
    low, high = np.quantile(values, [_OUTSIDE / 2, 1 - _OUTSIDE / 2])
    return float(low), float(high)
