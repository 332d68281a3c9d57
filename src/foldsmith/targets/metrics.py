"""Metrics of predictions against targets, each with its direction and what it judges."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from foldsmith.config import Types
from foldsmith.errors import ConfigError
from foldsmith.project import ProjectFolder
from foldsmith.project.class_values import nearest as nearest
from foldsmith.utils.suggest import did_you_mean

Array = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]

Needs = Literal["values", "probabilities"]

# No probability counts as less: the logarithm of 0 would make one photo the whole score.
_SMALLEST_PROBABILITY = 1e-15


def _unchanged(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Metric:
    """A metric, called with (predictions, targets).

    Attributes:
        name: As it is written in YAML.
        function: From (predictions, targets) to a number; for a metric of classes from
            (predicted classes or probabilities, classes, number of classes).
        greater_is_better: Its direction.
        needs: What it judges: the point predictions, shape (n,), or ``probabilities`` of the
            classes, shape (n, n_classes).
        of_classes: Targets (and point predictions) are turned into the nearest class.
        class_values: Target value of each class; without it those among the targets.
        row_function: As ``function``, but to one value per row, shape (n,), where the metric is
            a function of their mean.
        from_mean: That function of the mean.
    """

    name: str
    function: Callable[..., float]
    greater_is_better: bool = False
    needs: Needs = "values"
    of_classes: bool = False
    class_values: tuple[float, ...] = ()
    row_function: Callable[..., Array] | None = None
    from_mean: Callable[[Any], Any] = _unchanged

    def __call__(self, predictions: Array, targets: Array) -> float:
        """Return the metric.

        Args:
            predictions: Shape (n,), or (n, n_classes) where the metric needs probabilities.
            targets: Target values, shape (n,).

        Raises:
            ConfigError: There are not as many probabilities per row as classes.
        """
        return self.function(*self._arguments(predictions, targets))

    def rows(self, predictions: Array, targets: Array) -> Array | None:
        """Return one value per row, shape (n,); None if the metric is not made of such.

        ``from_mean`` of their mean is the metric. Arguments as for the metric itself.
        """
        if self.row_function is None:
            return None
        return self.row_function(*self._arguments(predictions, targets))

    @property
    def rounds(self) -> bool:
        """Point predictions are rounded to classes that are known: boundaries can be moved."""
        return self.of_classes and self.needs == "values" and bool(self.class_values)

    def as_judged(self, predictions: Array) -> Array:
        """Return point predictions as the metric judges them: nearest classes, where it rounds."""
        if not self.rounds:
            return predictions
        values = np.sort(np.asarray(self.class_values))
        return values[nearest(predictions, values)]

    def best(self, values: Sequence[float]) -> int:
        """Return the position of the best of some values, the first of equal ones."""
        choose = np.argmax if self.greater_is_better else np.argmin
        return int(choose(values))

    def gain(self, value: float, over: float) -> float:
        """Return by how much a value is better than another; negative if it is worse."""
        return value - over if self.greater_is_better else over - value

    def _arguments(self, predictions: Array, targets: Array) -> tuple[Any, ...]:
        if not self.of_classes:
            return predictions, targets
        values = np.asarray(self.class_values or np.unique(targets))
        if self.needs == "values":
            # What kappa weighs is the distance of classes in their order.
            values = np.sort(values)
            return nearest(predictions, values), nearest(targets, values), len(values)
        if predictions.shape != (len(targets), len(values)):
            raise ConfigError(
                f"metric {self.name}: needs probabilities of shape ({len(targets)}, "
                f"{len(values)}), one per class; there are {predictions.shape}"
            )
        return predictions, nearest(targets, values), len(values)


def rmse(predictions: Array, targets: Array) -> float:
    """Return the root mean squared error of two arrays of shape (n,)."""
    # Here, not above: scikit-learn takes half a second, which `status` and `check` never need.
    from sklearn.metrics import root_mean_squared_error

    return float(root_mean_squared_error(targets, predictions))


def mae(predictions: Array, targets: Array) -> float:
    """Return the mean absolute error of two arrays of shape (n,)."""
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(targets, predictions))


def quadratic_kappa(predicted: Classes, classes: Classes, n_classes: int) -> float:
    """Return Cohen's kappa with quadratic weights (Cohen, 1968).

    Args:
        predicted: Predicted classes in their order, shape (n,).
        classes: True classes, shape (n,).
        n_classes: Number of classes.

    Returns:
        At most 1; 0 for chance, and where only one class is there, predicted and true.
    """
    counts = np.bincount(predicted * n_classes + classes, minlength=n_classes**2)
    table = counts.reshape(n_classes, n_classes)
    order = np.arange(n_classes)
    distance = (order[:, None] - order) ** 2
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    by_chance = (distance * expected).sum()
    return float(1 - (distance * table).sum() / by_chance) if by_chance > 0 else 0.0


def macro_auc(probabilities: Array, classes: Classes, n_classes: int) -> float:
    """Return the area under the ROC curve, for several classes the mean of one against the rest.

    Classes that no row or every row has cannot be ranked and are left out.

    Args:
        probabilities: Shape (n, n_classes).
        classes: True classes, shape (n,).
        n_classes: Number of classes; of two the second is the positive one.

    Returns:
        In 0..1; 0.5 where no class can be ranked.
    """
    first = 0 if n_classes > 2 else 1
    # By ranks (Mann and Whitney, 1947): ten times as fast as drawing the curve.
    from scipy.stats import rankdata

    ranks = rankdata(probabilities[:, first:], axis=0)
    positive = classes[:, None] == np.arange(first, n_classes)
    n_positive = positive.sum(axis=0)
    pairs = n_positive * (len(classes) - n_positive)
    won = (ranks * positive).sum(axis=0) - n_positive * (n_positive + 1) / 2
    return float((won[pairs > 0] / pairs[pairs > 0]).mean()) if pairs.any() else 0.5


def _squared(predictions: Array, targets: Array) -> Array:
    return (predictions - targets) ** 2


def _absolute(predictions: Array, targets: Array) -> Array:
    off: Array = np.abs(predictions - targets)
    return off


def _hits(predicted: Classes, classes: Classes, _: int) -> Array:
    hits: Array = (predicted == classes).astype(np.float64)
    return hits


def _most_probable_hits(probabilities: Array, classes: Classes, _: int) -> Array:
    hits: Array = (probabilities.argmax(axis=1) == classes).astype(np.float64)
    return hits


def _surprise(probabilities: Array, classes: Classes, _: int) -> Array:
    of_truth = probabilities[np.arange(len(classes)), classes]
    surprise: Array = -np.log(np.clip(of_truth, _SMALLEST_PROBABILITY, 1.0))
    return surprise


def accuracy(predicted: Classes, classes: Classes, n_classes: int) -> float:
    """Return the share of predicted classes that are right, arrays of shape (n,)."""
    return float(_hits(predicted, classes, n_classes).mean())


def most_probable_accuracy(probabilities: Array, classes: Classes, n_classes: int) -> float:
    """Return the share of photos whose most probable class is right.

    Args:
        probabilities: Shape (n, n_classes).
        classes: True classes, shape (n,).
        n_classes: Number of classes.
    """
    return float(_most_probable_hits(probabilities, classes, n_classes).mean())


def log_loss(probabilities: Array, classes: Classes, n_classes: int) -> float:
    """Return the mean negative logarithm of the true class's probability.

    Args:
        probabilities: Shape (n, n_classes); none counts as less than 1e-15.
        classes: True classes, shape (n,).
        n_classes: Number of classes.
    """
    return float(_surprise(probabilities, classes, n_classes).mean())


RMSE = Metric("RMSE", rmse, row_function=_squared, from_mean=np.sqrt)
MAE = Metric("MAE", mae, row_function=_absolute)
QWK = Metric("QWK", quadratic_kappa, greater_is_better=True, of_classes=True)
ACCURACY = Metric("Accuracy", accuracy, greater_is_better=True, of_classes=True, row_function=_hits)
LOG_LOSS = Metric(
    "LogLoss",
    log_loss,
    needs="probabilities",
    of_classes=True,
    row_function=_surprise,
)
# Accuracy of classes without an order: no number lies between them that could be rounded.
MOST_PROBABLE = Metric(
    "Accuracy",
    most_probable_accuracy,
    greater_is_better=True,
    needs="probabilities",
    of_classes=True,
    row_function=_most_probable_hits,
)
AUC = Metric("AUC", macro_auc, greater_is_better=True, needs="probabilities", of_classes=True)

# Every name that config.MetricName allows.
METRICS = {metric.name: metric for metric in (RMSE, MAE, QWK, ACCURACY, LOG_LOSS, AUC)}


def metric_named(name: str, class_values: Sequence[float] = ()) -> Metric:
    """Return a metric by its name.

    Args:
        name: One of :data:`METRICS`.
        class_values: Target value of each class, for a metric of classes; without it those
            among the targets.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in METRICS:
        raise ConfigError(f"metric: there is no {name!r}{did_you_mean(name, METRICS)}")
    return replace(METRICS[name], class_values=tuple(class_values))


def project_metric(project: ProjectFolder) -> Metric:
    """Return the metric that a project is judged by, with the project's classes.

    Args:
        project: The project.
    """
    return metric_of_classes(project.settings.metric, project)


def value_metric(project: ProjectFolder) -> Metric:
    """Return what is judged that gives no good class probabilities.

    The project's metric, or RMSE if that needs them; of classes without an order the Accuracy of
    the one that has most.
    """
    if project.class_names:
        return metric_of_classes("Accuracy", project)
    metric = project_metric(project)
    return metric if metric.needs == "values" else RMSE


def metric_of_classes(name: str, project: ProjectFolder) -> Metric:
    """Return a metric of classes, with those of the project: a fold may lack some of them.

    Args:
        name: One of :data:`METRICS`.
        project: The project.
    """
    if project.class_names and name == "Accuracy":
        return replace(MOST_PROBABLE, class_values=tuple(project.class_values))
    return metric_named(name, project.class_values)


def _part(metric: Metric) -> Callable[..., Metric]:
    """Return what makes a metric for an experiment, described as its function is."""
    part = partial(metric_of_classes if metric.of_classes else metric_named, metric.name)
    part.__doc__ = metric.function.__doc__
    return part


# As a part of an experiment, "{type: RMSE}" or "{type: QWK, project: "@/project"}".
TYPES: Types = {
    "ProjectMetric": project_metric,
    **{name: _part(metric) for name, metric in METRICS.items()},
}
