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

from foldsmith.targets.metric import OF_ONE_COLUMN, Needs
from foldsmith.targets.metrics import METRICS, Metric
from foldsmith.utils.formatting import number_text

Array = npt.NDArray[np.float64]

# From the mask of rows to their lines in the file, as in "lines 8, 9".
Lines = Callable[[pd.Series], str]


@dataclass(frozen=True)
class OneTarget:
    """A single number or class of each image.

    Attributes:
        values: float64, shape (n,), NaN for images without it.
        class_values: Target value of each class; empty if it is no classes.
        unordered: The classes have no order.
    """

    values: Array
    class_values: tuple[float, ...]
    unordered: bool


class TargetForm(ABC):
    """The form of a project's target.

    Attributes:
        kind: Name of the form, which a task names as its own (``Task.form``).
        needs: What its metrics need.
        project_keys: Keys of ``project.yml`` beside ``target_column`` by which tables are read.
        of_probabilities: Point predictions are probabilities, of which tables have the decisions.
        between_runs: Text between the predictions of two runs.
        texts: Predictions are written as texts.
        for_unreadable: Prediction of images that cannot be read, for people.
        compared_as: The number by which two runs are compared on an image, for people.
    """

    kind: ClassVar[str] = "one column"
    needs: ClassVar[tuple[Needs, ...]] = OF_ONE_COLUMN
    project_keys: ClassVar[tuple[str, ...]] = ()
    of_probabilities: ClassVar[bool] = False
    between_runs: ClassVar[str] = ", "
    texts: ClassVar[bool] = False
    for_unreadable: ClassVar[str] = "the mean of the train targets"
    compared_as: ClassVar[str] = "predictions"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The package's metrics that can judge it, by name."""
        return METRICS

    @property
    def of_kind(self) -> str:
        """The form as the end of a sentence; empty for a target in one column."""
        return ""

    @property
    def figures_problem(self) -> str | None:
        """Why there are no figures of one column; None if there are."""
        return None

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
    def outputs(self) -> tuple[str, ...]:
        """Name of each column of a submission with a column for each output."""
        return self.labels

    @property
    def sum_to_1(self) -> tuple[slice, ...]:
        """Places of the probabilities of an image that sum to 1: all together, or several blocks.

        Empty for labels, which do not exclude each other, and for numbers.
        """
        return (slice(None),)

    @property
    def class_texts(self) -> tuple[tuple[str, ...], ...]:
        """Texts of the classes of each of several class targets; empty for other targets."""
        return ()

    @property
    def block_sizes(self) -> tuple[int, ...]:
        """Number of classes of each of several class targets; empty for other targets."""
        return tuple(map(len, self.class_texts))

    @property
    def output_weights(self) -> Array | None:
        """Weight of each output in blends of least squares, shape (n_outputs,); None for equal.

        Ideal predictions then may have gaps, NaN.
        """
        return None

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
        """Weight of each of several numbers or class targets in a loss; empty for others."""
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

    def said(self, points: Array) -> list[str]:
        """Return predictions as a short text for each image."""
        return self.shown(points)

    def colours(self, targets: Array) -> Array:
        """Return the number of each image that colours its point in a figure, shape (n,)."""
        return targets

    def on_map(self, targets: Array) -> Array | None:
        """Return the numbers that a map of the images shows, shape (n,); None for no map."""
        return targets

    def one_by_one(self, targets: Array) -> tuple[OneTarget, ...]:
        """Return the targets that a small model learns one by one, to test mirror images."""
        return (OneTarget(targets, self.class_values, self.unordered),)

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

    @property
    def sum_to_1(self) -> tuple[slice, ...]:
        """Nothing."""
        return ()

    @property
    def of_kind(self) -> str:
        """The form as the end of a sentence."""
        return f" of {self.kind}"

    @property
    def figures_problem(self) -> str:
        """Why there are no figures of one column."""
        return f"this figure is of one column, but the target is {self.kind}"

    def colours(self, targets: Array) -> Array:
        """Return the sum of the targets of each image, of labels their number."""
        sums: Array = np.nansum(targets, axis=1)
        return sums

    def on_map(self, targets: Array) -> None:
        """Return None: no single number stands for an image."""

    def one_by_one(self, targets: Array) -> tuple[OneTarget, ...]:
        """Return nothing: mirror images are not tested."""
        return ()

    def encoded(self, targets: Array) -> Array:
        """Return the targets."""
        return targets

    def stored(self, points: Array) -> Array:
        """Return the predictions as they are, shape (n, n_outputs)."""
        return points

    def of_stored(self, array: npt.NDArray[Any]) -> Array:
        """Return the predictions, shape (n, n_outputs)."""
        return array.astype(np.float64)
