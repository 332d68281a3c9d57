"""The forms that the target of a project may have: one class each.

A form contains everything that depends on it: its columns, how they are read, checked and written,
the shape of predictions, and what the folds balance. ``ProjectFolder.form`` is the form of a
project; a new form is a class derived from :class:`TargetForm`, and its keys and place in
``ProjectSettings`` (``form``).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.project.number_columns import numbers
from foldsmith.targets.class_values import nearest, off_values
from foldsmith.targets.metric import OF_ONE_COLUMN, Needs
from foldsmith.targets.metrics import METRICS, Metric
from foldsmith.utils.formatting import counted, number_text

Array = npt.NDArray[np.float64]

# From the mask of rows to their lines in the file, as in "lines 8, 9".
Lines = Callable[[pd.Series], str]


class TargetForm(ABC):
    """The form of a project's target.

    Attributes:
        kind: Name of the form, which a task names as its own (``Task.form``).
        needs: What its metrics need.
        several: Predictions of an image are an array, a number per output.
        texts: Predictions are written as texts.
        sums_to_1: The probabilities of an image sum to 1.
        for_unreadable: Prediction of images that cannot be read, for people.
        compared_as: The number by which two runs are compared on an image, for people.
    """

    kind: ClassVar[str] = "one column"
    needs: ClassVar[tuple[Needs, ...]] = OF_ONE_COLUMN
    several: ClassVar[bool] = False
    texts: ClassVar[bool] = False
    sums_to_1: ClassVar[bool] = True
    for_unreadable: ClassVar[str] = "the mean of the train targets"
    compared_as: ClassVar[str] = "predictions"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The package's metrics that can judge it, by name."""
        return METRICS

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Columns of the train table."""

    @property
    def number_columns(self) -> tuple[str, ...]:
        """Those of them that are read as numbers; a wrong value of others is shown as written."""
        return ()

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Text of each class or label, in the order of their probabilities."""

    @property
    def handed_in(self) -> tuple[str, ...]:
        """Columns of a submission if there is no sample of one."""
        return self.columns

    @property
    def unordered(self) -> bool:
        """Whether it is classes without an order."""
        return False

    @property
    @abstractmethod
    def target_range(self) -> tuple[float, float]:
        """Lowest and highest possible target."""

    @property
    def class_values(self) -> tuple[float, ...]:
        """Target value of each class; empty if it is no classes."""
        return ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of classes without an order; empty for others."""
        return ()

    @abstractmethod
    def read(self, table: pd.DataFrame) -> Array:
        """Return the targets of a table, NaN for wrong ones: shape (n,), or (n, n_outputs)."""

    @abstractmethod
    def points_of(self, column: pd.Series) -> Array:
        """Return predictions that one column holds, inverse of :meth:`written`."""

    @abstractmethod
    def written(self, points: Array) -> npt.NDArray[Any]:
        """Return predictions as one column of a table has them, shape (n,).

        Of several numbers all columns, shape (n, n_columns).
        """

    @abstractmethod
    def problems(
        self, table: pd.DataFrame, ids: pd.Series, lines: Lines, metric: Metric
    ) -> Iterator[str]:
        """Yield what is wrong with the targets of a table, for people.

        Args:
            table: The train table.
            ids: Ids of its rows.
            lines: Returns the lines of rows in the file.
            metric: The metric of the project.
        """

    @abstractmethod
    def encoded(self, targets: Array) -> Array:
        """Return the ideal probabilities of targets, shape (n, n_outputs)."""

    @abstractmethod
    def points(self, probabilities: Array) -> Array:
        """Return point predictions for probabilities, shape (n, n_outputs)."""

    @property
    @abstractmethod
    def extremes(self) -> Array:
        """The lowest and the highest possible target, shape (2,), or (2, n_outputs)."""

    @abstractmethod
    def stored(self, points: Array) -> Array:
        """Return point predictions as files hold them, shape (n, k); inverse of ``of_stored``."""

    @abstractmethod
    def of_stored(self, array: npt.NDArray[Any]) -> Array:
        """Return point predictions from the array of a file, float64."""

    @abstractmethod
    def submitted(self, probabilities: Array, metric: Metric) -> npt.NDArray[Any]:
        """Return probabilities as columns of a submission have them, shape (n, n_outputs)."""

    @abstractmethod
    def spread(self, of_points: Array, by_model: Array, probabilities: Array) -> Array:
        """Return how far models differ on each image, shape (n,).

        Args:
            of_points: Standard deviation of their point predictions.
            by_model: Their probabilities, shape (n_models, n, n_outputs).
            probabilities: The joint probabilities, shape (n, n_outputs).
        """

    @abstractmethod
    def compared(self, points: Array, probabilities: Array | None, targets: Array) -> Array:
        """Return the number of each image by which runs are compared, and the ideal ones.

        Args:
            points: Point predictions, as ``of_stored`` returns them.
            probabilities: Shape (n, n_outputs), if there are any.
            targets: As ``read`` returns them.

        Returns:
            Shape (2, n).
        """

    @property
    def bounds(self) -> tuple[Any, Any]:
        """Lowest and highest possible value; of several numbers an array of each, (n_targets,)."""
        return self.target_range

    @property
    def loss_weights(self) -> tuple[float, ...]:
        """Weight of each of several numbers in a loss; empty for other targets."""
        return ()

    def judge(self, metric: Metric) -> Metric:
        """Return a metric of the package or the project for this target."""
        return metric

    def names_of(self, name: str) -> tuple[str, ...]:
        """Return the columns of :meth:`table_of`."""
        return (name,)

    def shown(self, points: Array) -> list[str]:
        """Return targets or predictions as a text for each image."""
        return [
            value if isinstance(value, str) else number_text(value)
            for value in self.written(points).tolist()
        ]

    def table_of(self, name: str, points: Array) -> dict[str, npt.NDArray[Any]]:
        """Return predictions as columns of a table.

        Args:
            name: Name of the column; the beginning of their names, where there are several.
            points: Point predictions.
        """
        return {name: self.written(points)}

    def spreads_of(self, spread: Array) -> dict[str, Array]:
        """Return how far models differ as columns of a table."""
        return {"spread": spread}

    def no_prediction(self, n: int) -> dict[str, npt.NDArray[Any]]:
        """Return the columns of predictions and spreads for images that cannot be read."""
        return dict.fromkeys(("prediction", "spread"), np.full(n, np.nan))

    def predicted(self, table: pd.DataFrame) -> npt.NDArray[Any]:
        """Return a table's predictions as :meth:`written` does."""
        return table["prediction"].to_numpy(dtype=object)

    def range_of(self, column: str) -> tuple[float, float]:
        """Return the lowest and highest value of a column of predictions or spreads."""
        return self.target_range

    def of_table(self, table: pd.DataFrame, name: str) -> Array:
        """Return predictions from columns of a table, inverse of :meth:`table_of`."""
        return self.points_of(table[name])

    def for_folds(self, targets: Array) -> Array:
        """Return the values that folds balance: numbers, (n,), or labels of 0 and 1, (n, k)."""
        return targets

    def numbers_of(self, table: pd.DataFrame) -> pd.DataFrame | None:
        """Return several numbers, a column each by its name; None for other targets."""
        return None

    def notes(self, table: pd.DataFrame) -> Iterator[str]:
        """Yield remarks on a table's targets that are no errors."""
        yield from ()

    def classes(self, targets: Array) -> npt.NDArray[np.bool_] | None:
        """Return which classes or labels each image has, shape (n, n_classes).

        None if the targets are no classes.
        """
        return None

    def screened_by(self, metric: Metric) -> Metric:
        """Return the metric by which a member of a blend has to beat the constant."""
        return metric

    def indicators(self, table: pd.DataFrame) -> pd.DataFrame | None:
        """Return a column of 0 and 1 per label, by its name; None if there are no labels."""
        return None

    def mean_errors(self, points: Array, targets: Array) -> Array:
        """Return the mean absolute error of each image, shape (n,)."""
        return np.abs(points - targets)

    def errors(self, points: Array, targets: Array) -> Array:
        """Return the errors of all predictions in one line, by which members are correlated."""
        return (points - targets).ravel()

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return the values of ``project.yml`` that decide how targets are read."""

    def wrong(self, table: pd.DataFrame) -> pd.Series:
        """Return which rows of a table have a target that cannot be, bool, shape (n,)."""
        targets = self.read(table).reshape(len(table), -1)
        low, high = self.target_range
        return pd.Series(~((targets >= low) & (targets <= high)).all(axis=1), index=table.index)


class SeveralOutputs(TargetForm):
    """Several labels or numbers per image: predictions are the outputs, shape (n, n_outputs)."""

    several = True
    sums_to_1 = False

    def encoded(self, targets: Array) -> Array:
        """Return the targets."""
        return targets

    def stored(self, points: Array) -> Array:
        """Return the predictions as they are, shape (n, n_outputs)."""
        return points

    def of_stored(self, array: npt.NDArray[Any]) -> Array:
        """Return the predictions, shape (n, n_outputs)."""
        return array.astype(np.float64)


@dataclass(frozen=True)
class OneNumber(TargetForm):
    """One number per image, which may be treated as classes in an order.

    Attributes:
        column: Its column.
        limits: Lowest and highest possible target.
        values: Target value of each class.
    """

    column: str
    limits: tuple[float, float]
    values: tuple[float, ...] = ()

    @property
    def target_range(self) -> tuple[float, float]:
        """Lowest and highest possible target."""
        return self.limits

    @property
    def class_values(self) -> tuple[float, ...]:
        """Target value of each class."""
        return self.values

    @property
    def columns(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    @property
    def number_columns(self) -> tuple[str, ...]:
        """The column, if it contains numbers."""
        return () if self.texts else self.columns

    @property
    def labels(self) -> tuple[str, ...]:
        """All digits of the value of each class."""
        return tuple(map(number_text, self.class_values))

    def read(self, table: pd.DataFrame) -> Array:
        """Return the targets, shape (n,); float32 has seven digits, a Unix time has ten."""
        return self.points_of(table[self.column])

    def points_of(self, column: pd.Series) -> Array:
        """Return the numbers of a column."""
        return numbers(column).to_numpy(dtype=np.float64, copy=True)

    def written(self, points: Array) -> npt.NDArray[Any]:
        """Return the numbers as they are."""
        return points

    def problems(
        self, table: pd.DataFrame, ids: pd.Series, lines: Lines, metric: Metric
    ) -> Iterator[str]:
        """Yield missing targets, those out of range, and those that the metric cannot judge."""
        targets = pd.Series(self.read(table), index=table.index)
        low, high = self.target_range
        outside = f"outside target_range {number_text(low)}..{number_text(high)}"
        for wrong, what in (
            (targets.isna(), self._missing),
            ((targets < low) | (targets > high), outside),
        ):
            if wrong.any():
                yield (
                    f"column {self.column}: {counted(wrong.sum(), 'target is', 'targets are')} "
                    f"{what}, the first at id {ids[wrong].iloc[0]} ({lines(wrong)})"
                )
        yield from self._off_values(table, targets, metric, lines)
        unjudged = metric.unjudged
        if unjudged is not None and (cannot := unjudged.among(targets)).any():
            yield (
                f"column {self.column}: {counted(cannot.sum(), 'target is', 'targets are')} "
                f"{unjudged.text} ({lines(cannot)}), which {metric.name} cannot judge; mend or "
                "leave out these rows, or set another metric in project.yml, such as MAE"
            )

    @property
    def _missing(self) -> str:
        return "missing or no number"

    def _off_values(
        self, table: pd.DataFrame, targets: pd.Series, metric: Metric, lines: Lines
    ) -> Iterator[str]:
        off = pd.Series(off_values(targets.to_numpy(), self.class_values)) & targets.notna()
        if metric.of_classes and off.any():
            known = tuple(map(number_text, self.values))
            listed = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
            yield (
                f"column {self.column}: {counted(off.sum(), 'target is', 'targets are')} none of "
                f"the {len(self.values)} class values ({listed}), the first is "
                f"{table[self.column][off].iloc[0]} ({lines(off)}), but {metric.title} judges "
                "classes; set class_values and n_classes in project.yml, or another metric"
            )

    def encoded(self, targets: Array) -> Array:
        """Return 0 and 1 for each class, shape (n, n_classes)."""
        identity: Array = np.eye(len(self.class_values))
        return identity[nearest(targets, self.class_values)]

    def points(self, probabilities: Array) -> Array:
        """Return the expectation of the class values, shape (n,)."""
        expectation: Array = probabilities @ np.asarray(self.class_values)
        return expectation

    def classes(self, targets: Array) -> npt.NDArray[np.bool_] | None:
        """Return the class of each image; None if a target is none of the class values."""
        if not self.class_values or off_values(targets, self.class_values).any():
            return None
        return self.encoded(targets) > 0

    @property
    def extremes(self) -> Array:
        """The range, shape (2,)."""
        return np.asarray(self.limits, dtype=np.float64)

    def stored(self, points: Array) -> Array:
        """Return the numbers as a column, shape (n, 1)."""
        return points[:, None]

    def of_stored(self, array: npt.NDArray[Any]) -> Array:
        """Return the column, shape (n,)."""
        values: Array = array[:, 0].astype(np.float64)
        return values

    def submitted(self, probabilities: Array, metric: Metric) -> npt.NDArray[Any]:
        """Return rows that sum to 1."""
        proper: Array = probabilities / probabilities.sum(axis=1, keepdims=True)
        return proper

    def spread(self, of_points: Array, by_model: Array, probabilities: Array) -> Array:
        """Return the standard deviation of the point predictions."""
        return of_points

    def compared(self, points: Array, probabilities: Array | None, targets: Array) -> Array:
        """Return the predictions and the targets."""
        return np.stack([points, targets])

    def facts(self) -> dict[str, Any]:
        """Return the column, the range and the values of the classes."""
        return {
            "target_column": self.column,
            "target_range": list(self.target_range),
            "class_values": list(self.class_values),
        }


@dataclass(frozen=True)
class Classes(OneNumber):
    """One class per image, without an order; in computations classes are 0, 1, ....

    Attributes:
        names: Text of each class.
    """

    names: tuple[str, ...] = ()

    texts = True
    for_unreadable = "the most frequent class"
    compared_as = "probability of the true class"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Text of each class."""
        return self.names

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.class_names

    @property
    def unordered(self) -> bool:
        """They have no order."""
        return True

    @property
    def _missing(self) -> str:
        return "none of class_names"

    def points_of(self, column: pd.Series) -> Array:
        """Return the number of each name."""
        known = dict(zip(self.class_names, self.class_values, strict=True))
        return numbers(column.map(known)).to_numpy(dtype=np.float64, copy=True)

    def written(self, points: Array) -> npt.NDArray[Any]:
        """Return the name of each class number."""
        found: npt.NDArray[Any] = np.array(self.class_names, dtype=object)[points.astype(np.int64)]
        return found

    def points(self, probabilities: Array) -> Array:
        """Return the most probable class, shape (n,)."""
        most_probable: Array = np.asarray(self.class_values)[probabilities.argmax(axis=-1)]
        return most_probable

    def spread(self, of_points: Array, by_model: Array, probabilities: Array) -> Array:
        """Return the standard deviation of the predicted class's probability."""
        chosen = probabilities.argmax(axis=1)
        of_chosen: Array = by_model[:, np.arange(len(chosen)), chosen].std(axis=0)
        return of_chosen

    def compared(self, points: Array, probabilities: Array | None, targets: Array) -> Array:
        """Return the probabilities of the true classes, and ones."""
        assert probabilities is not None, "metrics of classes without an order need them"
        given = probabilities[np.arange(len(targets)), targets.astype(np.int64)]
        return np.stack([given, np.ones(len(given))])

    def facts(self) -> dict[str, Any]:
        """Return also the names."""
        return super().facts() | {"class_names": list(self.class_names)}
