"""The forms of a target in one column: a number, or a class."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.project.number_columns import numbers
from foldsmith.project.target_forms import Lines, TargetForm
from foldsmith.targets.class_values import nearest, off_values
from foldsmith.targets.metrics import Metric
from foldsmith.utils.formatting import counted, number_text

Array = npt.NDArray[np.float64]


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

    def said(self, points: Array) -> list[str]:
        """Return the numbers with two decimals."""
        return [f"{value:.2f}" for value in points]

    def problems(
        self, table: pd.DataFrame, ids: pd.Series, lines: Lines, metric: Metric
    ) -> Iterator[str]:
        """Yield targets that are missing, out of range, or that the metric cannot judge."""
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
    project_keys = ("class_names",)
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

    def said(self, points: Array) -> list[str]:
        """Return the names of the classes."""
        return self.shown(points)

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
