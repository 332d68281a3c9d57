"""Metrics of predictions against targets; lower is better for all of them."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from foldsmith.config import Types

Metric = Callable[[npt.NDArray[np.float64], npt.NDArray[np.float64]], float]


def rmse(predictions: npt.NDArray[np.float64], targets: npt.NDArray[np.float64]) -> float:
    """Return the root mean squared error of two arrays of shape (n,)."""
    return float(root_mean_squared_error(targets, predictions))


def mae(predictions: npt.NDArray[np.float64], targets: npt.NDArray[np.float64]) -> float:
    """Return the mean absolute error of two arrays of shape (n,)."""
    return float(mean_absolute_error(targets, predictions))


def create_rmse() -> Metric:
    """Return :func:`rmse`, for ``type: RMSE``."""
    return rmse


def create_mae() -> Metric:
    """Return :func:`mae`, for ``type: MAE``."""
    return mae


TYPES: Types = {"RMSE": create_rmse, "MAE": create_mae}
