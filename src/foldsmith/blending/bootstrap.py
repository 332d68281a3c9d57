"""How far a score would move with other images: the bootstrap over groups."""

from collections.abc import Mapping

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

    Returns:
        Name -> float64, shape (:data:`RESAMPLES`,), fewer where the metric is no mean over rows.
    """
    rng = np.random.default_rng(seed)
    n_groups = int(groups.max()) + 1
    sums = {}
    for name, predicted in predictions.items():
        rows = metric.rows(predicted, targets)
        if rows is not None:
            sums[name] = _sums_of_groups(rows, groups, n_groups)
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
            for name, predicted in predictions.items():
                found[name].append(metric(predicted[drawn], targets[drawn]))
    return {name: np.asarray(values) for name, values in found.items()}


def _sums_of_groups(
    rows: Array, groups: npt.NDArray[np.int64], n_groups: int
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return the sum of each group's values, and how many there are: shape (n_groups, ...).

    Args:
        rows: Shape (n,), or (n, n_columns) with NaN for values that are not there.
        groups: Group of each row, shape (n,).
        n_groups: Number of groups.
    """
    if rows.ndim == 1:
        sums: Array = np.bincount(groups, weights=rows, minlength=n_groups).astype(np.float64)
        return sums, np.bincount(groups, minlength=n_groups)
    columns = [
        _sums_of_groups(column[seen], groups[seen], n_groups)
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
