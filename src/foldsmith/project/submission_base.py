"""A sample submission, and what all forms of submissions have in common."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.errors import DataError
from foldsmith.project.class_forms import ClassTargets
from foldsmith.project.column_forms import OneNumber
from foldsmith.project.label_forms import SeveralLabels
from foldsmith.project.number_forms import SeveralNumbers
from foldsmith.project.submission_ids import rows_of_ids
from foldsmith.utils.formatting import counted

# Kinds of targets.
ONE_COLUMN, LABELS, NUMBERS = OneNumber.kind, SeveralLabels.kind, SeveralNumbers.kind
CLASS_TARGETS = ClassTargets.kind

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """A sample submission, and the known properties of what is predicted.

    Attributes:
        path: The file.
        table: Its content, all values texts.
        ids: Ids of the test table.
        source: Where these are from, for messages.
        id_name: Name of the project's id column.
        target: Name of the project's target column.
        labels: Text of each class; of several class targets the name of each.
        named: The classes have no order, and submissions name them.
        of_probabilities: Predictions are class probabilities.
        of_decisions: Only the most probable class is judged, not the probability.
        kind: Kind of the target's form.
        needed: Those of several numbers or class targets that a sample must have; computed ones may
            be missing.
        id_column: Its column of the ids; None if the order of the rows is all there is.
    """

    path: Path
    table: pd.DataFrame
    ids: Sequence[str]
    source: str
    id_name: str
    target: str
    labels: Sequence[str]
    named: bool
    of_probabilities: bool
    of_decisions: bool
    kind: str = ONE_COLUMN
    needed: Sequence[str] = ()
    id_column: str | None = None

    @property
    def others(self) -> list[str]:
        """Its columns without the column of the ids."""
        return [name for name in self.table.columns if name != self.id_column]

    def rows(self) -> Rows:
        """Return the row of the test table that each of its rows is about.

        Raises:
            DataError: An id is missing, unknown or doubled, or the number of rows is another.
        """
        if self.id_column is not None:
            return rows_of_ids(
                *(self.path, self.table[self.id_column], self.id_column, self.ids), self.source
            )
        if len(self.table) == len(self.ids):
            return np.arange(len(self.ids))
        raise DataError(
            f"{self.path}: {counted(len(self.table), 'row')}, but {self.source} has {len(self.ids)}"
        )

    def rows_of(self, repeated: pd.Series) -> Rows:
        """Return the row of the test table of each id of a column in which ids repeat.

        Raises:
            DataError: An id is missing or unknown.
        """
        assert self.id_column is not None, "the column has a name"
        ids = pd.Series(repeated.unique())
        found = rows_of_ids(self.path, ids, self.id_column, self.ids, self.source)
        row_of = dict(zip(ids, found, strict=True))
        return np.asarray(repeated.map(row_of), dtype=np.int64)

    def value_column(self) -> str | None:
        """Return the column that predictions go to if there is one such; else None."""
        if self.target in self.table.columns:
            return self.target
        return self.others[0] if self.id_column is not None and len(self.others) == 1 else None

    def needs_probabilities(self, form: str) -> None:
        """Raise an error if predictions are no class probabilities."""
        if not self.of_probabilities:
            raise DataError(
                f"{self.path}: has {form}, which needs class probabilities; take a metric of "
                "probabilities (metric: LogLoss) or classes without an order (class_names, or "
                "'foldsmith new --classes')"
            )


@dataclass(frozen=True)
class SubmissionForm(ABC):
    """The form of a project's submissions.

    Attributes:
        table: Their columns, all values texts as the sample submission has them.
        id_column: Column of the ids; None if the order of the rows is all there is.
        rows: Row of the test table that each row is about, int64, shape (n_rows,).
        labels: Text of each class.
        needs_probabilities: Predictions must be class probabilities.
        suits: Kinds of targets that it suits.
        example: Lines of such a sample, for the documentation: ids a and b, classes cat and dog.
    """

    table: pd.DataFrame
    id_column: str | None
    rows: Rows
    labels: tuple[str, ...]

    needs_probabilities: ClassVar[bool] = True
    suits: ClassVar[tuple[str, ...]] = (ONE_COLUMN,)
    example: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abstractmethod
    def recognise(cls, sample: Sample) -> "SubmissionForm | None":
        """Return the form if a sample has it.

        Raises:
            DataError: It has the form in part.
        """

    @property
    @abstractmethod
    def title(self) -> str:
        """The form, for people."""

    @classmethod
    @abstractmethod
    def wanted(cls, sample: Sample) -> str:
        """Return what a sample needs to have this form, for errors."""

    @property
    @abstractmethod
    def value_columns(self) -> tuple[str, ...]:
        """The columns that predictions go to."""

    @abstractmethod
    def filled(self, outputs: npt.NDArray[Any]) -> pd.DataFrame:
        """Return a submission.

        Args:
            outputs: Class probabilities if the form needs them, shape (n_test, n_classes), rows
                that sum to 1, or those of labels, or 0 and 1. Else the prediction of each test
                image as tables have it, shape (n_test,); of several numbers (n_test, n_columns).
        """

    @abstractmethod
    def read(self, table: pd.DataFrame, n_test: int) -> npt.NDArray[Any]:
        """Return the prediction of each test image from a submission, shape (n_test,).

        Args:
            table: The submission, all values texts, its rows those of the form.
            n_test: Number of test images.

        Returns:
            Texts as tables have them, object, or class probabilities, float64, shape (n_test,
            n_classes), or several numbers or texts, shape (n_test, n_columns).
        """

    @property
    def n_ids(self) -> int:
        """Number of different test images."""
        return len(np.unique(self.rows))
