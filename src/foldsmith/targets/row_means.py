"""Means over rows that may have weights."""

from collections.abc import Callable
from functools import lru_cache
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Argument of a metric's function that takes the weights of rows, as scikit-learn calls it.
_SAMPLE_WEIGHT = "sample_weight"


@lru_cache(maxsize=256)
def takes_sample_weight(function: Callable[..., Any]) -> bool:
    """Return whether a function takes the weights of rows."""
    try:
        return _SAMPLE_WEIGHT in signature(function).parameters
    except (TypeError, ValueError):  # a callable written in C has no signature
        return False


def mean_of_rows(values: Array, weights: Array | None = None) -> Any:
    """Return the mean of values, or of each column without NaN.

    Args:
        values: Shape (n,), or (n, n_columns).
        weights: Weight of each row, above 0, shape (n,); None for 1 each.

    Returns:
        A number, or shape (n_columns,).
    """
    if values.ndim > 1:
        return column_means(values, weights)
    return values.mean() if weights is None else np.average(values, weights=weights)


def column_means(values: Array, weights: Array | None = None) -> Array:
    """Return the mean of each column without NaN; NaN for a column of NaN alone.

    Args:
        values: Shape (n, n_columns).
        weights: Weight of each row, above 0, shape (n,); None for 1 each.

    Returns:
        Shape (n_columns,).
    """
    seen = ~np.isnan(values)
    known = np.where(seen, values, 0.0)
    if weights is None:
        sums, n = known.sum(axis=0), seen.sum(axis=0)
        return np.where(n > 0, sums / np.maximum(n, 1), np.nan)
    sums, total = weights @ known, weights @ seen
    return np.where(total > 0, sums / np.where(total > 0, total, 1), np.nan)
