"""Submissions with a column per class, label or target."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.errors import DataError
from foldsmith.project.submission_base import (
    LABELS,
    NUMBERS,
    Sample,
    SubmissionForm,
)
from foldsmith.utils.formatting import brief


@dataclass(frozen=True)
class Columns(SubmissionForm):
    """One row per id, and a column for each output.

    Attributes:
        columns: The column of each.
    """

    columns: tuple[str, ...]

    @property
    def value_columns(self) -> tuple[str, ...]:
        """The columns."""
        return self.columns

    @property
    def positions(self) -> tuple[int, ...]:
        """Number of each column's output; of classes and labels there is a column for each."""
        return tuple(range(len(self.columns)))

    def filled(self, outputs: npt.NDArray[Any]) -> pd.DataFrame:
        """Return the table with the outputs."""
        pairs = zip(self.columns, self.positions, strict=True)
        return self.table.assign(**{name: outputs[self.rows, k] for name, k in pairs})

    def read(self, table: pd.DataFrame, n_test: int) -> npt.NDArray[Any]:
        """Return the outputs; NaN for a computed column that the sample lacks."""
        found = np.full((n_test, len(self.labels)), np.nan)
        for name, k in zip(self.columns, self.positions, strict=True):
            found[self.rows, k] = pd.to_numeric(table[name], errors="coerce")
        return found


@dataclass(frozen=True)
class ClassColumns(Columns):
    """One row per id, and a column with the probability of each class."""

    example = ("id,cat,dog", "a,0.5,0.5", "b,0.5,0.5")

    @classmethod
    def recognise(cls, sample: Sample) -> "ClassColumns | None":
        """Return the form if the columns are the classes, maybe with one prefix."""
        columns = _columns_of(sample, "class", "classes")
        if columns is None:
            return None
        sample.needs_probabilities("a column for each class")
        return cls(sample.table, sample.id_column, sample.rows(), tuple(sample.labels), columns)

    @classmethod
    def wanted(cls, sample: Sample) -> str:
        """Return the text for errors."""
        return "one column per class"

    @property
    def title(self) -> str:
        """The form, for people."""
        return f"one column per class ({len(self.columns)} probabilities that sum to 1)"


@dataclass(frozen=True)
class LabelColumns(Columns):
    """One row per id, and a column for each of several labels: 0 or 1, or its probability."""

    suits = (LABELS,)
    example = ("id,cat,dog", "a,0,0", "b,0,0")

    @classmethod
    def recognise(cls, sample: Sample) -> "LabelColumns | None":
        """Return the form if the columns are the labels, maybe with one prefix."""
        columns = _columns_of(sample, "label", "labels")
        if sample.others == list(sample.labels):
            columns = tuple(sample.labels)
        if columns is None:
            return None
        return cls(sample.table, sample.id_column, sample.rows(), tuple(sample.labels), columns)

    @classmethod
    def wanted(cls, sample: Sample) -> str:
        """Return the text for errors."""
        return "one column per label"

    @property
    def title(self) -> str:
        """The form, for people."""
        return f"one column per label ({len(self.columns)})"


@dataclass(frozen=True)
class NumberColumns(Columns):
    """One row per id, and a column for each of several numbers."""

    needs_probabilities = False
    suits = (NUMBERS,)
    example = ("id,width,height", "a,0,0", "b,0,0")

    @classmethod
    def recognise(cls, sample: Sample) -> "NumberColumns | None":
        """Return the form if the columns are targets, or computed from them."""
        shared = tuple(name for name in sample.others if name in sample.labels)
        if not shared:
            return None
        missing = [name for name in sample.needed if name not in shared]
        unknown = [name for name in sample.others if name not in shared]
        if missing or unknown:
            problem = (
                f"no column of the target {brief(missing[0])}"
                if missing
                else f"a column {brief(unknown[0])}, which is no target and no derived column"
            )
            raise DataError(f"{sample.path}: has columns such as {brief(shared[0])}, but {problem}")
        return cls(sample.table, sample.id_column, sample.rows(), tuple(sample.labels), shared)

    @classmethod
    def wanted(cls, sample: Sample) -> str:
        """Return the names of the columns."""
        return f"one column per target ({', '.join(map(brief, sample.labels))})"

    @property
    def positions(self) -> tuple[int, ...]:
        """Number of each column among the predicted ones, by its name."""
        return tuple(map(self.labels.index, self.columns))

    @property
    def title(self) -> str:
        """The form, for people."""
        return f"one column per target ({len(self.columns)})"


def _columns_of(sample: Sample, one: str, several: str) -> tuple[str, ...] | None:
    """Return the column of each class or label, if the columns are such.

    Args:
        sample: The sample submission.
        one: The word for a class or label.
        several: Its plural.

    Raises:
        DataError: Some columns are, and others are not.
    """
    others, labels = sample.others, list(sample.labels)
    if len(others) < 2:
        return None
    # The same letters at the beginning of all names, as in class_cat, class_dog.
    first, last = min(others), max(others)
    same = [one == other for one, other in zip(first, last, strict=False)]
    prefix = first[: (*same, False).index(False)]
    for cut in (0, len(prefix), prefix.rfind("_") + 1):
        by_label = {name[cut:]: name for name in others}
        if set(labels) == set(by_label):
            return tuple(by_label[label] for label in labels)
    shared = [name for name in others if name in labels]
    if len(shared) < 2 or sample.target in others:
        return None
    missing = [label for label in labels if label not in others]
    unknown = [name for name in others if name not in labels]
    problem = (
        f"none of {brief(missing[0])}" if missing else f"{brief(unknown[0])}, which is no {one}"
    )
    raise DataError(
        f"{sample.path}: has columns of {several} such as {brief(shared[0])}, but {problem}; it "
        f"must have one for each {one} of the train table, and no others beside the ids"
    )
