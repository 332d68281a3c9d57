"""A metric: its input, direction, computation, rounding and averaging.

Everything else asks the object, and compares no names.
"""

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from foldsmith.errors import ConfigError, FoldsmithError, one_line
from foldsmith.targets import scores_of_classes as of_classes
from foldsmith.targets import scores_of_values as of_values
from foldsmith.targets.class_blocks import ClassBlocks
from foldsmith.targets.class_values import nearest
from foldsmith.targets.judged_columns import JudgedColumns
from foldsmith.targets.label_means import EQUAL, label_weights, label_weights_problem
from foldsmith.targets.metric_text import KINDS, joined_metric, same_kind
from foldsmith.targets.row_means import mean_of_rows, takes_sample_weight
from foldsmith.utils.suggest import did_you_mean

Array = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]

Needs = Literal[
    "values",
    "classes",
    "probabilities",
    "labels",
    "label probabilities",
    "columns",
    "class columns",
]
Decision = Literal["thresholds", "priors", "none"]
VALUES: Needs = "values"
CLASSES: Needs = "classes"
PROBABILITIES: Needs = "probabilities"
LABELS: Needs = "labels"
LABEL_PROBABILITIES: Needs = "label probabilities"
COLUMNS: Needs = "columns"
CLASS_COLUMNS: Needs = "class columns"

# What metrics of each form of the target need (``TargetForm.needs``).
OF_ONE_COLUMN: tuple[Needs, ...] = (VALUES, CLASSES, PROBABILITIES)
OF_LABELS: tuple[Needs, ...] = (LABELS, LABEL_PROBABILITIES)
OF_NUMBERS: tuple[Needs, ...] = (COLUMNS,)
OF_CLASS_COLUMNS: tuple[Needs, ...] = (CLASS_COLUMNS,)

# Option of metrics of labels: the weight of each in a mean.
_WEIGHTS = "weights"

# A label with this probability or a higher one is decided for.
DECIDED = 0.5

# Relative difference from the metric that the mean of its values per row may have, by rounding.
_ROUNDING = 1e-9


def _unchanged(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Unjudged:
    """Targets that a metric cannot judge.

    Attributes:
        text: Which, as in ``below 0``.
        among: From targets, an array or a column, shape (n,), to the mask of those.
    """

    text: str
    among: Callable[[Any], Any]


@dataclass(frozen=True)
class Metric:
    """A metric, called with (predictions, targets).

    Attributes:
        name: Its name in YAML, without its options.
        function: Returns a finite number, whichever rows it gets. Its arguments follow from
            ``needs``, and its keyword arguments are the options: for ``values`` (predictions,
            targets), float64, shape (n,) each; for ``classes`` (predicted classes, classes, number
            of classes), int64, shape (n,); for ``probabilities`` (probabilities, classes, number
            of classes), the first float64, shape (n, n_classes). Classes are positions, 0 to
            n_classes - 1. For several labels per image: ``labels`` gets (decisions, labels), int64
            of 0 and 1, shape (n, n_labels) each; ``label probabilities`` gets (probabilities,
            labels). For several numbers per image: ``columns`` gets (predictions, targets,
            weights), float64, shapes (n, n_columns), (n, n_columns) with NaN where a target is
            missing, and (n_columns,). For several class targets per image: ``class columns`` gets
            (blocks, probabilities, targets), a :class:`~foldsmith.targets.class_blocks.ClassBlocks`
            and float64, shapes (n, n_outputs) and (n, n_columns), the latter class numbers with
            NaN where one is missing. If it has the keyword argument ``sample_weight``, it gets the
            weights of the rows in a project with ``metric_weight_column``, float64, above 0, shape
            (n,), or None.
        greater_is_better: Its direction.
        needs: ``values``, ``classes`` or ``probabilities``; ``labels`` or ``label probabilities``
            of several labels per image; ``columns`` of several numbers, for which one of ``values``
            is taken for each column; ``class columns`` of several class targets, for which one of
            ``classes`` or ``probabilities`` is taken for each column. A prediction becomes a class
            by rounding to the nearest class value; if the classes have no order, the most probable
            class is taken. A label is decided for from a probability of 0.5 on.
        uses_order: Classes without an order cannot be judged by it. Always so for ``values``.
        row_function: Arguments as for ``function``; returns one value per row, shape (n,). Only for
            a metric that is a function of their mean. Resampling is faster with it.
        from_mean: That function of the mean.
        limits: Its lowest and highest value.
        options: Name of each option -> its value; a number or a text is replaced by one of its
            kind, as in ``metric: {name: FBeta, beta: 2}``.
        problem_of: Returns why options cannot be, from (number of classes, or None where it is
            not known yet) and the options; None if they can.
        unjudged: Targets that it cannot judge, if there are any.
        least_squares: It is best where the squared error is lowest, that of probabilities from 0
            and 1. Blends with the lowest squared error are then its exact optimum.
        argmax_is_best: The most probable class is the best decision by this metric, so that
            blends are not calibrated for it unless ``ensemble/calibrate`` asks for it.
        class_values: Target value of each class; if empty, the values among the targets.
        unordered: The classes have no order.
        labels: Names of the labels, which the option ``weights`` names; if empty, they are not
            known yet.
        judged: The columns of several numbers that it judges; None for others.
        blocks: The columns of several class targets that it judges; None for others.
        of_column: The metric of one column, if it is a mean of such.
    """

    name: str
    function: Callable[..., float]
    _: KW_ONLY
    greater_is_better: bool
    needs: Needs = VALUES
    uses_order: bool = False
    row_function: Callable[..., Array] | None = None
    from_mean: Callable[[Any], Any] = _unchanged
    limits: tuple[float, float] = (0.0, math.inf)
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    problem_of: Callable[..., str | None] | None = None
    unjudged: Unjudged | None = None
    least_squares: bool = False
    argmax_is_best: bool = False
    class_values: tuple[float, ...] = ()
    unordered: bool = False
    labels: tuple[str, ...] = ()
    judged: JudgedColumns | None = None
    blocks: ClassBlocks | None = None
    of_column: "Metric | None" = None

    def __post_init__(self) -> None:
        known = (*OF_ONE_COLUMN, *OF_LABELS, *OF_NUMBERS, *OF_CLASS_COLUMNS)
        if self.needs not in known:
            hint = did_you_mean(str(self.needs), known)
            raise ConfigError(
                f"metric {self.name}: needs {self.needs!r}; must be one of {', '.join(known)}{hint}"
            )

    def __call__(self, predictions: Array, targets: Array, weights: Array | None = None) -> float:
        """Return the metric.

        Args:
            predictions: Shape (n,), or (n, n_classes) if the metric takes probabilities.
            targets: Target values, shape (n,); of several labels 0 and 1, shape (n, n_labels).
            weights: Weight of each row, at least 0, some above it, shape (n,); None for 1 each. A
                row of weight 0 counts as one that is not there.

        Raises:
            ConfigError: There are not as many probabilities per row as classes, the function fails
                or returns no finite number, or the metric cannot weigh rows.
        """
        if weights is not None:
            there = weights > 0
            predictions, targets, weights = predictions[there], targets[there], weights[there]
            if not len(targets):
                raise ConfigError(f"metric {self.title}: every row has the weight 0")
        arguments = self._arguments(predictions, targets)
        try:
            value = float(self._value(arguments, weights))
        except FoldsmithError:
            raise
        except Exception as error:
            raise self._failed(error) from error
        # A training that diverges is noticed by its loss.
        if not math.isfinite(value) and np.isfinite(predictions).all():
            raise ConfigError(
                f"metric {self.title}: returned {value} for {len(targets)} rows; its function must "
                "return a finite number for any rows, also if some classes are missing"
            )
        return value

    def rows(self, predictions: Array, targets: Array) -> Array | None:
        """Return one value per row, shape (n,); None if the metric has none.

        ``from_mean`` of their mean is the metric. For a mean over columns they have the shape (n,
        n_columns), with NaN where a target is missing, and the mean is that of each column.
        Arguments as for the metric itself.

        Raises:
            ConfigError: It is not, or the function fails.
        """
        if self.row_function is None:
            return None
        try:
            values = self.row_function(*self._arguments(predictions, targets), **self._given())
            mean = mean_of_rows(values)
            found, whole = float(self.from_mean(mean)), self(predictions, targets)
        except FoldsmithError:
            raise
        except Exception as error:
            raise self._failed(error) from error
        if (
            len(values) != len(targets)
            or values.ndim != 1 + self.by_column
            or not math.isclose(found, whole, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
        ):
            raise ConfigError(
                f"metric {self.title}: row_function and from_mean give {found:g}, function gives "
                f"{whole:g}; both must be the same metric (row_function: one value per row)"
            )
        return values

    @property
    def takes_weights(self) -> bool:
        """Rows may have weights: it is a mean over rows, or its function takes them."""
        if self.of_column is not None:
            return self.of_column.takes_weights
        return self.row_function is not None or takes_sample_weight(self.function)

    def _value(self, arguments: tuple[Any, ...], weights: Array | None) -> Any:
        given = self._given()
        if weights is None:
            return self.function(*arguments, **given)
        if self.row_function is not None:
            return self.from_mean(mean_of_rows(self.row_function(*arguments, **given), weights))
        if not self.takes_weights:
            raise ConfigError(
                f"metric {self.title}: cannot weigh rows; give its function a keyword argument "
                "sample_weight, or leave metric_weight_column out of project.yml"
            )
        return self.function(*arguments, **given, sample_weight=weights)

    @property
    def title(self) -> str:
        """Its name and options, for people and for ``metric`` in ``project.yml``."""
        shown = {key: value for key, value in self.options.items() if value != EQUAL}
        return joined_metric(self.name, shown)

    @property
    def of_classes(self) -> bool:
        """Every target must be the value of a class."""
        return self.needs in (CLASSES, PROBABILITIES)

    @property
    def of_labels(self) -> bool:
        """It judges several labels per image."""
        return self.needs in OF_LABELS

    @property
    def of_numbers(self) -> bool:
        """It judges several numbers per image."""
        return self.needs == COLUMNS

    @property
    def by_column(self) -> bool:
        """Its values per row are those of each column."""
        return self.of_numbers or self.of_column is not None

    def for_column(self) -> "Metric":
        """Return the metric of one of several columns.

        If it is no mean over them, that is the RMSE of numbers and the accuracy of classes.
        """
        if self.of_column is not None:
            return replace(self.of_column, options=self.options)
        return RMSE if self.of_numbers else ACCURACY

    @property
    def needs_probabilities(self) -> bool:
        """Only class probabilities can be judged, whether or not the classes have an order."""
        return self.needs == PROBABILITIES

    @property
    def takes_probabilities(self) -> bool:
        """It is called with probabilities of classes or labels, not with point predictions."""
        of_classes = self.needs_probabilities or (self.needs == CLASSES and self.unordered)
        return of_classes or self.of_labels or self.needs == CLASS_COLUMNS

    @property
    def needs_order(self) -> bool:
        """It judges a scale; classes without an order cannot be judged by it."""
        return self.uses_order or self.needs == VALUES

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

    def with_options(self, given: Mapping[str, Any]) -> "Metric":
        """Return the metric with other values of some options.

        Raises:
            ConfigError: It has no such option, or the value is of another kind or cannot be.
        """
        for key, value in given.items():
            if key not in self.options:
                hint = did_you_mean(key, self.options) if self.options else " (it has none)"
                raise ConfigError(f"metric {self.name}: there is no option {key}{hint}")
            if not same_kind(value, self.options[key]):
                kind = KINDS[type(self.options[key])]
                raise ConfigError(f"metric {self.name}: {key} must be {kind}, not {value!r}")
        changed = replace(self, options={**self.options, **given})
        changed._check_options(None)
        return changed

    def _check_options(self, n_classes: int | None) -> None:
        others = dict(self.options)
        problem = None
        if self.of_labels and _WEIGHTS in others:
            weights = others.pop(_WEIGHTS)
            problem = label_weights_problem(weights, self.labels)
            if weights != EQUAL and others.get("average", "macro") != "macro":
                problem = "weights need average=macro"
        problem = problem or (self.problem_of and self.problem_of(n_classes, **others))
        if problem:
            raise ConfigError(f"metric {self.title}: {problem}")

    def for_labels(self, labels: Sequence[str]) -> "Metric":
        """Return the metric for labels with names; any other metric as it is."""
        return replace(self, labels=tuple(labels)) if self.of_labels else self

    def of_one_label(self) -> "Metric":
        """Return the metric of one label alone, which has no weight."""
        options = {**self.options, _WEIGHTS: EQUAL} if _WEIGHTS in self.options else self.options
        return replace(self, options=options, labels=())

    def for_classes(self, values: Sequence[float], unordered: bool = False) -> "Metric":
        """Return the metric for known classes: a fold may lack some of them.

        Args:
            values: Target value of each class.
            unordered: The classes have no order.

        Raises:
            ConfigError: They have none, and the metric needs one; or an option does not fit
                their number.
        """
        if unordered and self.needs_order:
            raise ConfigError(f"metric {self.name}: needs an order, which the classes do not have")
        if not self.of_classes:
            return self
        if values:
            self._check_options(len(values))
        return replace(self, class_values=tuple(values), unordered=unordered)

    def for_points(self) -> "Metric":
        """Return the metric for predictions without probabilities: itself unless it needs them.

        The substitute is the default metric of such targets. Classes without an order are then
        judged by the class with the largest value, whether or not it is a probability.
        """
        if not self.needs_probabilities:
            return self
        return default_metric(self.unordered).for_classes(self.class_values, self.unordered)

    @property
    def decides(self) -> bool:
        """It judges decisions: one class for each image, or yes or no for each label."""
        return self.needs in (CLASSES, LABELS)

    @property
    def decision(self) -> Decision:
        """Thresholds or priors if these may make its decisions better than as they come."""
        if self.rounds or self.needs == LABELS:
            return "thresholds"
        better = self.decides and self.takes_probabilities and not self.argmax_is_best
        return "priors" if better else "none"

    @property
    def calibration(self) -> Decision:
        """The calibration of blends that ``ensemble/calibrate: auto`` stands for."""
        return "none" if self.argmax_is_best else self.decision

    def same_judge(self, other: "Metric") -> bool:
        """Return whether another metric, maybe of another project, judges the same classes alike.

        By name and attributes: the functions of a project's own metrics are made anew whenever a
        project is opened.
        """
        return _described(self) == _described(other)

    def _given(self) -> Mapping[str, Any]:
        """Return the options as the functions take them."""
        if not self.of_labels or _WEIGHTS not in self.options:
            return self.options
        weights = label_weights(self.options[_WEIGHTS], self.labels)
        return {**self.options, _WEIGHTS: weights}

    def _arguments(self, predictions: Array, targets: Array) -> tuple[Any, ...]:
        if self.of_labels:
            if predictions.shape != targets.shape:
                raise ConfigError(
                    f"metric {self.title}: needs a probability of each label, shape "
                    f"{targets.shape}; there are {predictions.shape}"
                )
            decided = (predictions >= DECIDED).astype(np.int64)
            given = decided if self.needs == LABELS else predictions
            return given, targets.astype(np.int64)
        if self.of_numbers and predictions.shape != targets.shape:
            raise ConfigError(
                f"metric {self.title}: needs a number of each target, shape {targets.shape}; "
                f"there are {predictions.shape}"
            )
        if self.blocks is not None and predictions.shape != (len(targets), self.blocks.n_outputs):
            raise ConfigError(
                f"metric {self.title}: needs a probability of each class of each target, shape "
                f"({len(targets)}, {self.blocks.n_outputs}); there are {predictions.shape}"
            )
        if not self.of_classes:
            return predictions, targets
        values = np.asarray(self.class_values or np.unique(targets))
        if not self.takes_probabilities:
            # Kappa weighs the distance of classes in their order.
            values = np.sort(values)
            return nearest(predictions, values), nearest(targets, values), len(values)
        if predictions.shape != (len(targets), len(values)):
            raise ConfigError(
                f"metric {self.title}: needs probabilities of shape ({len(targets)}, "
                f"{len(values)}), one per class; there are {predictions.shape}"
            )
        given = predictions if self.needs_probabilities else predictions.argmax(axis=1)
        return given, nearest(targets, values), len(values)

    def _failed(self, error: Exception) -> ConfigError:
        """Return the error of a function that failed, with its file and line."""
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename}, line {place.lineno}"
        return ConfigError(
            f"metric {self.title}: {type(error).__name__}: {one_line(error)} ({where})"
        )


def _described(metric: Metric) -> tuple[Any, ...]:
    return (
        *(metric.title, metric.greater_is_better, metric.needs, metric.uses_order),
        *(metric.class_values, metric.unordered, metric.labels, metric.judged, metric.blocks),
    )


# Limits of a share.
UP_TO_1 = (0.0, 1.0)

RMSE = Metric(
    *("RMSE", of_values.rmse),
    greater_is_better=False,
    row_function=of_values.squared,
    from_mean=np.sqrt,
    least_squares=True,
)
ACCURACY = Metric(
    *("Accuracy", of_classes.accuracy),
    greater_is_better=True,
    needs=CLASSES,
    row_function=of_classes.hits,
    limits=UP_TO_1,
    argmax_is_best=True,
)


def default_metric(unordered: bool) -> Metric:
    """Return the metric of a project that names none.

    Args:
        unordered: Its targets are classes without an order.
    """
    return ACCURACY if unordered else RMSE
