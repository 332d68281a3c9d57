"""The forms of a target of several labels per image: in columns of 0 and 1, or in one text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.project.number_columns import columns_of_numbers
from foldsmith.project.target_forms import Lines, SeveralOutputs
from foldsmith.targets.label_metrics import METRICS_OF_LABELS
from foldsmith.targets.metric import DECIDED, OF_LABELS
from foldsmith.targets.metrics import Metric
from foldsmith.utils.formatting import brief, counted

Array = npt.NDArray[np.float64]

# Characters that may stand between labels that are written as one text, the first possible one.
_BETWEEN = (" ", ";", "|", ",")


@dataclass(frozen=True)
class SeveralLabels(SeveralOutputs):
    """Any number of labels per image, each present or not: targets of 0 and 1, shape (n, n_labels).

    Attributes:
        names: Names of the labels.
    """

    names: tuple[str, ...]

    kind = "several labels"
    needs = OF_LABELS
    texts = True
    project_keys = ("target_columns", "label_separator", "label_names")
    of_probabilities = True
    for_unreadable = "the frequencies of the labels"
    compared_as = "mean probability of the truth of each label"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The package's metrics that can judge labels, by name."""
        return METRICS_OF_LABELS

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self.names

    @property
    def target_range(self) -> tuple[float, float]:
        """0 and 1."""
        return 0.0, 1.0

    @property
    def between(self) -> str:
        """Text between labels that one column holds."""
        joined = "".join(self.names)
        return next((text for text in _BETWEEN if text not in joined), _BETWEEN[0])

    def points_of(self, column: pd.Series) -> Array:
        """Return 0 and 1 for the labels that each text names; NaN for a text with another one."""
        return _indicators(column, self.between, self.names)

    def written(self, points: Array) -> npt.NDArray[Any]:
        """Return the labels with a probability of at least 0.5, as one text."""
        present = points >= DECIDED
        texts = [
            self.between.join(name for name, has in zip(self.names, row, strict=True) if has)
            for row in present
        ]
        return np.array(texts, dtype=object)

    def points(self, probabilities: Array) -> Array:
        """Return the probabilities; a label is decided for from 0.5 on."""
        return probabilities

    @property
    def extremes(self) -> Array:
        """No label and all labels, shape (2, n_labels)."""
        return np.stack([np.zeros(len(self.names)), np.ones(len(self.names))])

    def submitted(self, probabilities: Array, metric: Metric) -> npt.NDArray[Any]:
        """Return 0 and 1 where the metric judges decisions; else the probabilities."""
        return (probabilities >= DECIDED).astype(np.int64) if metric.decides else probabilities

    def judge(self, metric: Metric) -> Metric:
        """Return a metric that knows the labels by name."""
        return metric.for_labels(self.names)

    def classes(self, targets: Array) -> npt.NDArray[np.bool_]:
        """Return which labels each image has."""
        return targets > 0

    def screened_by(self, metric: Metric) -> Metric:
        """Return the AUC for a metric of decisions, whose thresholds are fitted afterwards."""
        return METRICS_OF_LABELS["AUC"] if metric.decides else metric

    def spread(self, of_points: Array, by_model: Array, probabilities: Array) -> Array:
        """Return the mean over the labels of the standard deviation of their probabilities."""
        mean: Array = by_model.std(axis=0).mean(axis=1)
        return mean

    def compared(self, points: Array, probabilities: Array | None, targets: Array) -> Array:
        """Return the mean over the labels of the probability of what is true, and ones."""
        given = 1 - self.mean_errors(points, targets)
        return np.stack([given, np.ones(len(given))])

    def mean_errors(self, points: Array, targets: Array) -> Array:
        """Return the mean distance of the probabilities from 0 and 1, shape (n,)."""
        errors: Array = np.abs(points - targets).mean(axis=1)
        return errors

    def indicators(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the targets as whole numbers."""
        values = self.read(table).astype(np.int64)
        return pd.DataFrame(values, columns=list(self.names), index=table.index)


@dataclass(frozen=True)
class LabelsInColumns(SeveralLabels):
    """Labels as columns of 0 and 1, which their names are the names of."""

    @property
    def columns(self) -> tuple[str, ...]:
        """A column per label."""
        return self.names

    def read(self, table: pd.DataFrame) -> Array:
        """Return the columns; NaN for other values than 0 and 1."""
        values = columns_of_numbers(table, self.names)
        return np.where((values == 0) | (values == 1), values, np.nan)

    def problems(
        self, table: pd.DataFrame, ids: pd.Series, lines: Lines, metric: Metric
    ) -> Iterator[str]:
        """Yield values other than 0 and 1."""
        targets = self.read(table)
        for k, name in enumerate(self.names):
            wrong = pd.Series(np.isnan(targets[:, k]), index=table.index)
            if wrong.any():
                n = counted(int(wrong.sum()), "value is", "values are")
                yield (
                    f"column {name}: {n} neither 0 nor 1, such as "
                    f"{str(table[name][wrong].iloc[0])!r}, the first at id {ids[wrong].iloc[0]} "
                    f"({lines(wrong)})"
                )

    def facts(self) -> dict[str, Any]:
        """Return the columns."""
        return {"target_columns": list(self.names)}


@dataclass(frozen=True)
class LabelsInText(SeveralLabels):
    """Labels in one column, with a separator between them; a gap is no label.

    Attributes:
        column: The column.
        separator: Text between two labels; of blanks any number counts as one.
    """

    column: str
    separator: str

    @property
    def columns(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    @property
    def between(self) -> str:
        """The separator."""
        return self.separator

    def read(self, table: pd.DataFrame) -> Array:
        """Return 0 and 1; NaN in rows with an unknown label."""
        return self.points_of(table[self.column])

    def problems(
        self, table: pd.DataFrame, ids: pd.Series, lines: Lines, metric: Metric
    ) -> Iterator[str]:
        """Yield labels that are none of the names."""
        targets = self.read(table)
        wrong = pd.Series(np.isnan(targets).any(axis=1), index=table.index)
        if wrong.any():
            words = split_labels(table[self.column][wrong].iloc[0], self.separator)
            unknown = next(word for word in words if word not in self.names)
            n = counted(int(wrong.sum()), "row has", "rows have")
            yield (
                f"column {self.column}: {n} a label that is none of label_names, such as "
                f"{brief(repr(unknown))}, the first at id {ids[wrong].iloc[0]} ({lines(wrong)})"
            )

    def facts(self) -> dict[str, Any]:
        """Return the column, the separator and the names."""
        return {
            "target_column": self.column,
            "label_separator": self.separator,
            "label_names": list(self.names),
        }


def split_labels(text: str, separator: str) -> list[str]:
    """Return the labels of a text; none for a gap."""
    parts = text.split() if not separator.strip() else text.split(separator)
    return [part.strip() for part in parts if part.strip()]


def _indicators(column: pd.Series, separator: str, names: Sequence[str]) -> Array:
    position = {name: k for k, name in enumerate(names)}
    # Texts repeat: each is split once.
    codes, texts = pd.factorize(column.astype(str))
    of_text = np.zeros((len(texts), len(names)))
    for row, text in zip(of_text, texts, strict=True):
        for word in split_labels(str(text), separator):
            if word in position:
                row[position[word]] = 1
            else:
                row[:] = np.nan
                break
    found: Array = of_text[codes]
    return found
