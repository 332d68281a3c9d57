"""Submissions with one column of predictions: a number, a class, or ranked classes per image."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.errors import DataError
from foldsmith.project.csv_files import line_numbers
from foldsmith.project.submission_base import LABELS, ONE_COLUMN, Sample, SubmissionForm
from foldsmith.utils.formatting import brief


@dataclass(frozen=True)
class OneColumn(SubmissionForm):
    """One row per id: a number, or the name of a class.

    Attributes:
        column: Column of the predictions.
    """

    column: str

    needs_probabilities = False
    suits: ClassVar[tuple[str, ...]] = (ONE_COLUMN, LABELS)
    example = ("id,target", "a,cat", "b,cat")

    @classmethod
    def recognise(cls, sample: Sample) -> "OneColumn | None":
        """Return the form if there is one column of predictions."""
        column = sample.value_column()
        if column is None:
            return None
        return cls(sample.table, sample.id_column, sample.rows(), tuple(sample.labels), column)

    @classmethod
    def wanted(cls, sample: Sample) -> str:
        """Return the name of the column."""
        return f"a column {sample.target!r}, or one column beside the ids"

    @property
    def title(self) -> str:
        """The form, for people."""
        return f"one column, {brief(self.column)}"

    @property
    def value_columns(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    def filled(self, outputs: npt.NDArray[Any]) -> pd.DataFrame:
        """Return the table with the predictions."""
        return self.table.assign(**{self.column: outputs[self.rows]})

    def read(self, table: pd.DataFrame, n_test: int) -> npt.NDArray[Any]:
        """Return the predictions as they stand."""
        found = np.empty(n_test, dtype=object)
        found[self.rows] = table[self.column].to_numpy()
        return found


@dataclass(frozen=True)
class SecondClass(OneColumn):
    """One row per id: the probability of the second of two classes, the positive one."""

    needs_probabilities = True
    suits = (ONE_COLUMN,)
    example = ("id,target", "a,0.5", "b,0.5")

    @classmethod
    def recognise(cls, sample: Sample) -> "SecondClass | None":
        """Return the form if the sample has numbers where two classes have names."""
        column = sample.value_column()
        wanted = sample.named and sample.of_probabilities and not sample.of_decisions
        if column is None or not wanted or len(sample.labels) != 2:
            return None
        if pd.to_numeric(sample.table[column], errors="coerce").isna().any():
            return None
        return cls(sample.table, sample.id_column, sample.rows(), tuple(sample.labels), column)

    @property
    def title(self) -> str:
        """The form, for people."""
        return f"one column, {brief(self.column)}: the probability of {brief(self.labels[1])}"

    def filled(self, outputs: npt.NDArray[Any]) -> pd.DataFrame:
        """Return the table with the probabilities of the second class."""
        return self.table.assign(**{self.column: outputs[self.rows, 1]})

    def read(self, table: pd.DataFrame, n_test: int) -> npt.NDArray[Any]:
        """Return the probabilities of both classes."""
        second = np.empty(n_test)
        second[self.rows] = pd.to_numeric(table[self.column], errors="coerce")
        return np.stack([1 - second, second], axis=1)


@dataclass(frozen=True)
class RankedClasses(OneColumn):
    """One row per id, and the most probable classes in order, with spaces between them.

    Attributes:
        k: Number of classes.
    """

    k: int = 0

    needs_probabilities = True
    suits = (ONE_COLUMN,)
    example = ("id,target", "a,cat dog", "b,cat dog")

    @classmethod
    def recognise(cls, sample: Sample) -> "RankedClasses | None":
        """Return the form if a row has several classes with spaces between them."""
        column = sample.value_column()
        if column is None or not sample.named:
            return None
        known = set(sample.labels)
        several = [
            (row, text.split())
            for row, text in enumerate(sample.table[column])
            if text not in known and known & set(text.split()) and len(text.split()) > 1
        ]
        if not several:
            return None
        for row, words in several:
            for word in words:
                if word not in known:
                    raise DataError(
                        f"{sample.path}: column {column}, line "
                        f"{line_numbers(sample.path, [row])[0]}: ranks classes, and {word!r} is "
                        "none of the train table"
                    )
        k = max(len(words) for _, words in several)
        spaced = next((label for label in sample.labels if label.split() != [label]), None)
        if k > len(sample.labels) or spaced is not None:
            problem = f"{k} classes of {len(sample.labels)}"
            if spaced is not None:
                problem = f"classes with spaces between them, and {spaced!r} has one itself"
            raise DataError(f"{sample.path}: column {column}: ranks {problem}")
        return cls(sample.table, sample.id_column, sample.rows(), tuple(sample.labels), column, k)

    @property
    def title(self) -> str:
        """The form, for people."""
        return f"ranked classes in {brief(self.column)}, the {self.k} most probable ones"

    def filled(self, outputs: npt.NDArray[Any]) -> pd.DataFrame:
        """Return the table with the most probable classes."""
        # Of equal probabilities the first class comes first, as metrics of ranks count.
        ranked = np.argsort(-outputs, axis=1, kind="stable")[:, : self.k]
        names = np.asarray(self.labels, dtype=object)[ranked]
        texts = np.array([" ".join(row) for row in names], dtype=object)
        return self.table.assign(**{self.column: texts[self.rows]})

    def read(self, table: pd.DataFrame, n_test: int) -> npt.NDArray[Any]:
        """Return the first class of each row."""
        found = np.empty(n_test, dtype=object)
        found[self.rows] = table[self.column].str.split(" ").str[0].to_numpy()
        return found
