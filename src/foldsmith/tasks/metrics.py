"""Metrics of predictions against targets, each with its direction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from foldsmith.config import Types
from foldsmith.config.suggest import did_you_mean
from foldsmith.errors import ConfigError

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """A metric, called with (predictions, targets), two arrays of shape (n,).

    Attributes:
        name: As it is written in YAML.
        function: From (predictions, targets) to a number.
        greater_is_better: Its direction.
    """

    name: str
    function: Callable[[Array, Array], float]
    greater_is_better: bool = False

    def __call__(self, predictions: Array, targets: Array) -> float:
        """Return the metric of predictions, shape (n,), against targets, shape (n,)."""
        return self.function(predictions, targets)

    def best(self, values: Sequence[float]) -> int:
        """Return the position of the best of some values, the first of equal ones."""
        choose = np.argmax if self.greater_is_better else np.argmin
        return int(choose(values))


def rmse(predictions: Array, targets: Array) -> float:
    """Return the root mean squared error of two arrays of shape (n,)."""
    # Here, not above: scikit-learn takes half a second, which `status` and `check` never need.
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(targets, predictions))


def mae(predictions: Array, targets: Array) -> float:
    """Return the mean absolute error of two arrays of shape (n,)."""
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(targets, predictions))


RMSE = Metric("RMSE", rmse)
MAE = Metric("MAE", mae)

METRICS = {metric.name: metric for metric in (RMSE, MAE)}


def metric_named(name: str) -> Metric:
    """Return a metric by its name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in METRICS:
        raise ConfigError(f"metric: there is no {name!r}{did_you_mean(name, METRICS)}")
    return METRICS[name]


# As a part of an experiment, "{type: RMSE}".
TYPES: Types = {name: partial(metric_named, name) for name in METRICS}
