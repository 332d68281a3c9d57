"""Means over labels, by the weights that ``metric`` gives to some of them by name."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# The value of the option ``weights`` without any.
EQUAL = "equal"


def weighted_mean(values: Array, weights: Array | None) -> float:
    """Return a mean that does not depend on the order of the values, to the digit.

    Args:
        values: Shape (n,), at least one.
        weights: Above 0, shape (n,); None for equal ones.
    """
    if weights is None:
        return float(np.sort(values).mean())
    return math.fsum(values * weights) / math.fsum(weights)


def row_means(values: Array, weights: Array | None) -> Array:
    """Return the mean over the labels of each row, shape (n,).

    Args:
        values: Shape (n, n_labels).
        weights: Above 0, shape (n_labels,); None for equal ones.
    """
    means: Array = values.mean(axis=1) if weights is None else values @ (weights / weights.sum())
    return means


def label_weights(given: Any, labels: Sequence[str]) -> Array | None:
    """Return the weights of labels as the scores take them.

    Args:
        given: The option: :data:`EQUAL`, or name -> weight.
        labels: All names, in order.
    """
    return None if given == EQUAL else np.array([given[name] for name in labels], np.float64)


def label_weights_problem(given: Any, labels: Sequence[str]) -> str | None:
    """Return why weights of labels cannot be; None if they can.

    Args:
        given: The option.
        labels: The names; empty while they are not known.
    """
    if given == EQUAL:
        return None
    if not isinstance(given, Mapping):
        return "weights must be equal, or a weight of each label, as in {red: 2, blue: 1}"
    for name, weight in given.items():
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight <= 0:
            return f"weights: {name}: {weight!r} must be a number above 0"
        if labels and name not in labels:
            return f"weights: {name!r} is no label"
    missing = next((name for name in labels if name not in given), None)
    return None if missing is None else f"weights: there is none of {missing!r}"
