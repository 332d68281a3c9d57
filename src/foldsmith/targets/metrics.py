"""The metrics: input, direction, computation, rounding and averaging of each.

A metric is one object, :class:`Metric`, in :data:`METRICS`; a project's own one stands in the
``TYPES`` of its Python. Everything else asks the object, and compares no names.
"""

import math
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from foldsmith.errors import ConfigError, FoldsmithError, one_line
from foldsmith.targets.class_values import nearest
from foldsmith.utils.suggest import did_you_mean

Array = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]

Needs = Literal["values", "classes", "probabilities"]
VALUES: Needs = "values"
CLASSES: Needs = "classes"
PROBABILITIES: Needs = "probabilities"

# Smaller probabilities count as this one: the logarithm of 0 would make one image the whole score.
_SMALLEST_PROBABILITY = 1e-15

# Relative difference from the metric that the mean of its values per row may have, by rounding.
_ROUNDING = 1e-9


def _unchanged(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Metric:
    """A metric, called with (predictions, targets).

    Attributes:
        name: Its name in YAML.
        function: Returns a finite number, whichever rows it gets. Its arguments follow from
            ``needs``: for ``values`` (predictions, targets), float64, shape (n,) each; for
            ``classes`` (predicted classes, classes, number of classes), int64, shape (n,); for
            ``probabilities`` (probabilities, classes, number of classes), the first float64,
            shape (n, n_classes). Classes are positions, 0 to n_classes - 1.
        greater_is_better: Its direction.
        needs: ``values``, ``classes`` or ``probabilities``. A prediction becomes a class by
            rounding to the nearest class value; if the classes have no order, the most probable
            class is taken.
        uses_order: Classes without an order cannot be judged by it. Always so for ``values``.
        row_function: Arguments as for ``function``; returns one value per row, shape (n,). Only for
            a metric that is a function of their mean. Resampling is faster with it.
        from_mean: That function of the mean.
        class_values: Target value of each class; if empty, the values among the targets.
        unordered: The classes have no order.
    """

    name: str
    function: Callable[..., float]
    _: KW_ONLY
    greater_is_better: bool
    needs: Needs = VALUES
    uses_order: bool = False
    row_function: Callable[..., Array] | None = None
    from_mean: Callable[[Any], Any] = _unchanged
    class_values: tuple[float, ...] = ()
    unordered: bool = False

    def __post_init__(self) -> None:
        known = (VALUES, CLASSES, PROBABILITIES)
        if self.needs not in known:
            hint = did_you_mean(str(self.needs), known)
            raise ConfigError(
                f"metric {self.name}: needs {self.needs!r}; must be one of {', '.join(known)}{hint}"
            )

    def __call__(self, predictions: Array, targets: Array) -> float:
        """Return the metric.

        Args:
            predictions: Shape (n,), or (n, n_classes) if the metric takes probabilities.
            targets: Target values, shape (n,).

        Raises:
            ConfigError: There are not as many probabilities per row as classes, or the function
                fails or returns no finite number.
        """
        arguments = self._arguments(predictions, targets)
        try:
            value = float(self.function(*arguments))
        except FoldsmithError:
            raise
        except Exception as error:
            raise self._failed(error) from error
        # A training that diverges is noticed by its loss.
        if not math.isfinite(value) and np.isfinite(predictions).all():
            raise ConfigError(
                f"metric {self.name}: returned {value} for {len(targets)} rows; its function must "
                "return a finite number for any rows, also if some classes are missing"
            )
        return value

    def rows(self, predictions: Array, targets: Array) -> Array | None:
        """Return one value per row, shape (n,); None if the metric has none.

        ``from_mean`` of their mean is the metric. Arguments as for the metric itself.

        Raises:
            ConfigError: It is not, or the function fails.
        """
        if self.row_function is None:
            return None
        try:
            values = self.row_function(*self._arguments(predictions, targets))
            found, whole = float(self.from_mean(values.mean())), self(predictions, targets)
        except FoldsmithError:
            raise
        except Exception as error:
            raise self._failed(error) from error
        if values.shape != targets.shape or not math.isclose(
            found, whole, rel_tol=_ROUNDING, abs_tol=_ROUNDING
        ):
            raise ConfigError(
                f"metric {self.name}: row_function and from_mean give {found:g}, function gives "
                f"{whole:g}; both must be the same metric (row_function: one value per row)"
            )
        return values

    @property
    def of_classes(self) -> bool:
        """Every target must be the value of a class."""
        return self.needs != VALUES

    @property
    def needs_probabilities(self) -> bool:
        """Only class probabilities can be judged, whether or not the classes have an order."""
        return self.needs == PROBABILITIES

    @property
    def takes_probabilities(self) -> bool:
        """It is called with class probabilities, not with point predictions."""
        return self.needs_probabilities or (self.needs == CLASSES and self.unordered)

    @property
    def needs_order(self) -> bool:
        """It judges a scale; classes without an order cannot be judged by it."""
        return self.uses_order or not self.of_classes

    @property
    def rounds(self) -> bool:
        """Point predictions are rounded to known classes, between which boundaries can move."""
        return self.of_classes and not self.takes_probabilities and bool(self.class_values)

    def as_judged(self, predictions: Array) -> Array:
        """Return point predictions as the metric judges them: the nearest classes if it rounds."""
        if not self.rounds:
            return predictions
        values = np.sort(np.asarray(self.class_values))
        return values[nearest(predictions, values)]

    def best(self, values: Sequence[float]) -> int:
        """Return the position of the best of some values, the first of equal ones."""
        choose = np.argmax if self.greater_is_better else np.argmin
        return int(choose(values))

    def gain(self, value: Any, over: Any) -> Any:
        """Return by how much a value is better than another; negative if it is worse.

        Both may also be arrays of values, of one shape.
        """
        return value - over if self.greater_is_better else over - value

    def for_classes(self, values: Sequence[float], unordered: bool = False) -> "Metric":
        """Return the metric for known classes: a fold may lack some of them.

        Args:
            values: Target value of each class.
            unordered: The classes have no order.

        Raises:
            ConfigError: They have none, and the metric needs one.
        """
        if unordered and self.needs_order:
            raise ConfigError(f"metric {self.name}: needs an order, which the classes do not have")
        if not self.of_classes:
            return self
        return replace(self, class_values=tuple(values), unordered=unordered)

    def for_points(self) -> "Metric":
        """Return the metric for predictions without probabilities: itself unless it needs them.

        The substitute is the default metric of such targets. Classes without an order are then
        judged by the class with the largest value, whether or not it is a probability.
        """
        if not self.needs_probabilities:
            return self
        return default_metric(self.unordered).for_classes(self.class_values, self.unordered)

    def calibration_problem(self, how: str) -> str | None:
        """Return why blends of a project with this metric cannot be calibrated; None if they can.

        Args:
            how: ``none``, ``isotonic`` or ``thresholds``, as in ``ensemble/calibrate``.
        """
        known = names_of(metric for metric in METRICS.values() if metric.needs == CLASSES)
        can_be, needed = {
            "none": (True, ""),
            "isotonic": (not self.takes_probabilities, "a metric of point predictions"),
            "thresholds": (self.rounds, f"a metric of classes in an order, such as {known}"),
        }[how]
        return None if can_be else f"{how} needs {needed}; the project's is {self.name}"

    def same_judge(self, other: "Metric") -> bool:
        """Return whether another metric, maybe of another project, judges the same classes alike.

        By name and attributes: the functions of a project's own metrics are made anew whenever a
        project is opened.
        """
        return _described(self) == _described(other)

    def _arguments(self, predictions: Array, targets: Array) -> tuple[Any, ...]:
        if not self.of_classes:
            return predictions, targets
        values = np.asarray(self.class_values or np.unique(targets))
        if not self.takes_probabilities:
            # Kappa weighs the distance of classes in their order.
            values = np.sort(values)
            return nearest(predictions, values), nearest(targets, values), len(values)
        if predictions.shape != (len(targets), len(values)):
            raise ConfigError(
                f"metric {self.name}: needs probabilities of shape ({len(targets)}, "
                f"{len(values)}), one per class; there are {predictions.shape}"
            )
        given = predictions if self.needs_probabilities else predictions.argmax(axis=1)
        return given, nearest(targets, values), len(values)

    def _failed(self, error: Exception) -> ConfigError:
        """Return the error of a function that failed, with its file and line."""
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename}, line {place.lineno}"
        return ConfigError(
            f"metric {self.name}: {type(error).__name__}: {one_line(error)} ({where})"
        )


def _described(metric: Metric) -> tuple[Any, ...]:
    return (
        *(metric.name, metric.greater_is_better, metric.needs, metric.uses_order),
        *(metric.class_values, metric.unordered),
    )


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


def surprise(probabilities: Array, classes: Classes, _: int) -> Array:
    """Return the negative logarithm of the probability of each true class, shape (n,)."""
    of_truth = probabilities[np.arange(len(classes)), classes]
    surprise: Array = -np.log(np.clip(of_truth, _SMALLEST_PROBABILITY, 1.0))
    return surprise


def accuracy(predicted: Classes, classes: Classes, n_classes: int) -> float:
    """Return the share of predicted classes that are right, arrays of shape (n,)."""
    return float(_hits(predicted, classes, n_classes).mean())


def log_loss(probabilities: Array, classes: Classes, n_classes: int) -> float:
    """Return the mean negative logarithm of the true class's probability.

    Args:
        probabilities: Shape (n, n_classes); none counts as less than 1e-15.
        classes: True classes, shape (n,).
        n_classes: Number of classes.
    """
    return float(surprise(probabilities, classes, n_classes).mean())


RMSE = Metric("RMSE", rmse, greater_is_better=False, row_function=_squared, from_mean=np.sqrt)
MAE = Metric("MAE", mae, greater_is_better=False, row_function=_absolute)
QWK = Metric("QWK", quadratic_kappa, greater_is_better=True, needs=CLASSES, uses_order=True)
ACCURACY = Metric("Accuracy", accuracy, greater_is_better=True, needs=CLASSES, row_function=_hits)
LOG_LOSS = Metric(
    *("LogLoss", log_loss),
    greater_is_better=False,
    needs=PROBABILITIES,
    row_function=surprise,
)
AUC = Metric("AUC", macro_auc, greater_is_better=True, needs=PROBABILITIES)

METRICS = {metric.name: metric for metric in (RMSE, MAE, QWK, ACCURACY, LOG_LOSS, AUC)}

METRICS_OF_CLASSES = tuple(name for name, metric in METRICS.items() if metric.of_classes)


def default_metric(unordered: bool) -> Metric:
    """Return the metric of a project that names none.

    Args:
        unordered: Its targets are classes without an order.
    """
    return ACCURACY if unordered else RMSE


def metric_named(
    name: str, class_values: Sequence[float] = (), metrics: Mapping[str, Metric] = METRICS
) -> Metric:
    """Return a metric by its name.

    Args:
        name: The name.
        class_values: Target value of each class, for a metric of classes; without it the values
            among the targets.
        metrics: The metrics to choose from.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in metrics:
        raise ConfigError(f"metric: there is no metric {name}{did_you_mean(name, metrics)}")
    return metrics[name].for_classes(class_values)


def names_of(metrics: Iterable[Metric], last: str = "or") -> str:
    """Return the names of metrics for a sentence, as in "RMSE, MAE or QWK"."""
    names = [metric.name for metric in metrics]
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), names[-1])))


class JudgedProject(Protocol):
    """The attributes of a project that a metric depends on.

    The project itself depends on its metric, so it cannot be imported here.
    """

    metric: Metric

    @property
    def class_values(self) -> Sequence[float]:
        """Target value of each class, in order."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names of unordered classes."""


def project_metric(project: JudgedProject) -> Metric:
    """Return the metric that a project is judged by, with the project's classes.

    Args:
        project: The project.
    """
    return project.metric


def component(metric: Metric) -> Callable[..., Metric]:
    """Return a function that makes a metric for an experiment, with the docstring of its function.

    A metric of classes takes the classes of the project.
    """
    made: Any = partial(_with_classes_of if metric.of_classes else _itself, metric)
    made.__doc__ = metric.function.__doc__
    if metric.of_classes:
        # As customize_type of pytorch-pfn-extras declares it, whose import takes seconds.
        made._custom_default_kwargs = {"project": "/project"}
    return cast(Callable[..., Metric], made)


def _itself(metric: Metric) -> Metric:
    """Return a metric of values, which needs no classes."""
    return metric


def _with_classes_of(metric: Metric, project: JudgedProject) -> Metric:
    """Return a metric with the classes of a project.

    Args:
        metric: The metric.
        project: The project.
    """
    return metric.for_classes(project.class_values, unordered=bool(project.class_names))


TYPES: dict[str, Callable[..., Metric]] = {
    "ProjectMetric": project_metric,
    **{name: component(metric) for name, metric in METRICS.items()},
}
