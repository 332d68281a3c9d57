"""The forms that a sample submission may have: one class each, which recognises, fills and reads.

A new form is a class derived from :class:`SubmissionForm` and its place in :data:`FORMS`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.errors import DataError
from foldsmith.project.csv_files import line_numbers
from foldsmith.project.label_forms import SeveralLabels
from foldsmith.project.number_forms import SeveralNumbers
from foldsmith.project.submission_ids import (
    Joined,
    id_column_of,
    joined_ids,
    rows_of_ids,
    rows_of_joined_ids,
)
from foldsmith.project.target_forms import OneNumber
from foldsmith.utils.formatting import brief, counted

# Kinds of targets.
ONE_COLUMN, LABELS, NUMBERS = OneNumber.kind, SeveralLabels.kind, SeveralNumbers.kind

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
        labels: Text of each class.
        named: The classes have no order, and submissions name them.
        of_probabilities: Predictions are class probabilities.
        of_decisions: Only the most probable class is judged, not the probability.
        kind: Kind of the target's form.
        n_needed: How many of the labels a sample must have, the first ones; the others may lack.
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
    n_needed: int = 0
    id_column: str | None = None

    @property
    def others(self) -> list[str]:
        """Its columns beside that of the ids."""
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

    @property
    @abstractmethod
    def value_columns(self) -> tuple[str, ...]:
        """The columns that predictions go to."""

    @abstractmethod
    def filled(self, values: npt.NDArray[Any], probabilities: Array | None) -> pd.DataFrame:
        """Return a submission.

        Args:
            values: Prediction of each test image as tables have it, shape (n_test,); of several
                numbers (n_test, n_columns).
            probabilities: Shape (n_test, n_classes), rows that sum to 1; None if there are none.
        """

    @abstractmethod
    def read(self, table: pd.DataFrame, n_test: int) -> npt.NDArray[Any]:
        """Return the prediction of each test image from a submission, shape (n_test,).

        Args:
            table: The submission, all values texts, its rows those of the form.
            n_test: Number of test images.

        Returns:
            Texts as tables have them, or class probabilities, float64, shape (n_test, n_classes),
            or several numbers, shape (n_test, n_columns).
        """

    @property
    def n_ids(self) -> int:
        """Number of different test images."""
        return len(np.unique(self.rows))


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

    @property
    def title(self) -> str:
        """The form, for people."""
        return f"one column, {brief(self.column)}"

    @property
    def value_columns(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    def filled(self, values: npt.NDArray[Any], probabilities: Array | None) -> pd.DataFrame:
        """Return the table with the predictions."""
        return self.table.assign(**{self.column: values[self.rows]})

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

    def filled(self, values: npt.NDArray[Any], probabilities: Array | None) -> pd.DataFrame:
        """Return the table with the probabilities of the second class."""
        assert probabilities is not None, "checked by submission_table"
        return self.table.assign(**{self.column: probabilities[self.rows, 1]})

    def read(self, table: pd.DataFrame, n_test: int) -> npt.NDArray[Any]:
        """Return the probabilities of both classes."""
        second = np.empty(n_test)
        second[self.rows] = pd.to_numeric(table[self.column], errors="coerce")
        return np.stack([1 - second, second], axis=1)


@dataclass(frozen=True)
class ClassColumns(SubmissionForm):
    """One row per id, and a column with the probability of each class.

    Attributes:
        columns: The column of each class.
    """

    columns: tuple[str, ...]

    example = ("id,cat,dog", "a,0.5,0.5", "b,0.5,0.5")

    @classmethod
    def recognise(cls, sample: Sample) -> "ClassColumns | None":
        """Return the form if the columns are the classes, maybe with one prefix."""
        columns = _columns_of(sample)
        if columns is None:
            return None
        sample.needs_probabilities("a column for each class")
        return cls(sample.table, sample.id_column, sample.rows(), tuple(sample.labels), columns)

    @property
    def title(self) -> str:
        """The form, for people."""
        return f"one column per class ({len(self.columns)} probabilities that sum to 1)"

    @property
    def value_columns(self) -> tuple[str, ...]:
        """The columns."""
        return self.columns

    def filled(self, values: npt.NDArray[Any], probabilities: Array | None) -> pd.DataFrame:
        """Return the table with the probabilities."""
        assert probabilities is not None, "checked by submission_table"
        of_rows = probabilities[self.rows]
        return self.table.assign(**{name: of_rows[:, k] for k, name in enumerate(self.columns)})

    def read(self, table: pd.DataFrame, n_test: int) -> npt.NDArray[Any]:
        """Return the probabilities."""
        found = np.empty((n_test, len(self.columns)))
        found[self.rows] = table[list(self.columns)].apply(pd.to_numeric, errors="coerce")
        return found


@dataclass(frozen=True)
class LabelColumns(ClassColumns):
    """One row per id, and a column for each of several labels: 0 or 1, or its probability."""

    suits = (LABELS,)
    example = ("id,cat,dog", "a,0,0", "b,0,0")

    @classmethod
    def recognise(cls, sample: Sample) -> "LabelColumns | None":
        """Return the form if the columns are the labels, maybe with one prefix."""
        columns = _columns_of(sample)
        if sample.others == list(sample.labels):
            columns = tuple(sample.labels)
        if columns is None:
            return None
        return cls(sample.table, sample.id_column, sample.rows(), tuple(sample.labels), columns)

    @property
    def title(self) -> str:
        """The form, for people."""
        return f"one column per label ({len(self.columns)})"


def _columns_of(sample: Sample) -> tuple[str, ...] | None:
    """Return the column of each class, if the columns are such."""
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
        f"none of {brief(missing[0])}" if missing else f"{brief(unknown[0])}, which is no class"
    )
    raise DataError(
        f"{sample.path}: has columns of classes such as {brief(shared[0])}, but {problem}; it must "
        "have one for each class of the train table, and no others beside the ids"
    )


@dataclass(frozen=True)
class LongForm(SubmissionForm):
    """One row per id and class, with the probability of the class.

    Attributes:
        class_column: Column of the classes.
        column: Column of the probabilities.
        classes: Class of each row, int64, shape (n_rows,).
    """

    class_column: str
    column: str
    classes: Rows

    suits = (ONE_COLUMN, LABELS)
    example = ("id,class,p", "a,cat,0.5", "a,dog,0.5", "b,cat,0.5", "b,dog,0.5")

    @classmethod
    def recognise(cls, sample: Sample) -> "LongForm | None":
        """Return the form if each id stands once with each class."""
        known, others = set(sample.labels), sample.others
        if sample.id_column is None or len(others) != 2:
            return None
        of_class = [name for name in others if set(sample.table[name]) == known]
        if len(of_class) != 1 or not sample.table[sample.id_column].duplicated().any():
            return None
        sample.needs_probabilities("a row for each id and class")
        texts, column = sample.table[of_class[0]], sample.id_column
        twice = sample.table.duplicated([column, of_class[0]])
        n = len(sample.ids) * len(sample.labels)
        if twice.any() or len(sample.table) != n:
            first = int(np.flatnonzero(twice)[0]) if twice.any() else len(sample.table) - 1
            line = line_numbers(sample.path, [first])[0]
            what = f"one stands twice, in line {line}" if twice.any() else "some are missing"
            raise DataError(
                f"{sample.path}: has a row for each id and class, but {what}: it has "
                f"{len(sample.table):,} rows, and {len(sample.ids):,} ids with "
                f"{len(sample.labels)} classes need {n:,}"
            )
        rows = sample.rows_of(sample.table[column])
        position = {label: k for k, label in enumerate(sample.labels)}
        value = next(name for name in others if name != of_class[0])
        return cls(
            *(sample.table, column, rows, tuple(sample.labels), of_class[0], value),
            np.asarray(texts.map(position), dtype=np.int64),
        )

    @property
    def title(self) -> str:
        """The form, for people."""
        return (
            f"long: a row per id and class ({brief(self.class_column)}), its probability in "
            f"{brief(self.column)}"
        )

    @property
    def value_columns(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    def filled(self, values: npt.NDArray[Any], probabilities: Array | None) -> pd.DataFrame:
        """Return the table with the probabilities."""
        assert probabilities is not None, "checked by submission_table"
        return self.table.assign(**{self.column: probabilities[self.rows, self.classes]})

    def read(self, table: pd.DataFrame, n_test: int) -> npt.NDArray[Any]:
        """Return the probabilities."""
        found = np.empty((n_test, len(self.labels)))
        found[self.rows, self.classes] = pd.to_numeric(table[self.column], errors="coerce")
        return found


@dataclass(frozen=True)
class JoinedIds(LongForm):
    """One row per id and class, both in one text such as ``a_cat``, with the class's probability.

    Attributes:
        joined: How ids and classes are joined.
    """

    joined: Joined

    example = ("id,p", "a_cat,0.5", "a_dog,0.5", "b_cat,0.5", "b_dog,0.5")

    @classmethod
    def recognise(cls, sample: Sample) -> "JoinedIds | None":
        """Return the form if a column has each id joined with each class."""
        if len(sample.table.columns) != 2 or sample.kind not in cls.suits:
            return None
        for name in sample.table.columns:
            joined = joined_ids(sample.table[name], sample.ids, sample.labels)
            if joined is not None:
                break
        else:
            return None
        sample.needs_probabilities("a row for each id and class")
        rows, classes = rows_of_joined_ids(
            *(sample.path, sample.table[name], joined, sample.ids, sample.labels, sample.source)
        )
        value = next(other for other in sample.table.columns if other != name)
        return cls(
            *(sample.table, name, rows, tuple(sample.labels), name, value, classes, joined),
        )

    @property
    def title(self) -> str:
        """The form, for people."""
        return (
            f"long: a row per id and label, joined as {self.joined.example} in "
            f"{brief(self.class_column)}, its probability in {brief(self.column)}"
        )


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

    def filled(self, values: npt.NDArray[Any], probabilities: Array | None) -> pd.DataFrame:
        """Return the table with the most probable classes."""
        assert probabilities is not None, "checked by submission_table"
        # Of equal probabilities the first class comes first, as metrics of ranks count.
        ranked = np.argsort(-probabilities, axis=1, kind="stable")[:, : self.k]
        names = np.asarray(self.labels, dtype=object)[ranked]
        texts = np.array([" ".join(row) for row in names], dtype=object)
        return self.table.assign(**{self.column: texts[self.rows]})

    def read(self, table: pd.DataFrame, n_test: int) -> npt.NDArray[Any]:
        """Return the first class of each row."""
        found = np.empty(n_test, dtype=object)
        found[self.rows] = table[self.column].str.split(" ").str[0].to_numpy()
        return found


@dataclass(frozen=True)
class NumberColumns(SubmissionForm):
    """One row per id, and a column for each of several numbers.

    Attributes:
        columns: Their columns.
        positions: Number of each among the predicted columns.
    """

    columns: tuple[str, ...]
    positions: tuple[int, ...]

    needs_probabilities = False
    suits = (NUMBERS,)
    example = ("id,width,height", "a,0,0", "b,0,0")

    @classmethod
    def recognise(cls, sample: Sample) -> "NumberColumns | None":
        """Return the form if the columns are targets, or computed from them."""
        shared = [name for name in sample.others if name in sample.labels]
        if not shared:
            return None
        needed = sample.labels[: sample.n_needed]
        missing = [name for name in needed if name not in shared]
        unknown = [name for name in sample.others if name not in shared]
        if missing or unknown:
            problem = (
                f"no column of the target {brief(missing[0])}"
                if missing
                else f"a column {brief(unknown[0])}, which is no target and no derived column"
            )
            raise DataError(f"{sample.path}: has columns such as {brief(shared[0])}, but {problem}")
        positions = tuple(list(sample.labels).index(name) for name in shared)
        return cls(
            *(sample.table, sample.id_column, sample.rows(), tuple(sample.labels)),
            *(tuple(shared), positions),
        )

    @property
    def title(self) -> str:
        """The form, for people."""
        return f"one column per target ({len(self.columns)})"

    @property
    def value_columns(self) -> tuple[str, ...]:
        """The columns."""
        return self.columns

    def filled(self, values: npt.NDArray[Any], probabilities: Array | None) -> pd.DataFrame:
        """Return the table with the numbers."""
        of_rows = zip(self.columns, self.positions, strict=True)
        return self.table.assign(**{name: values[self.rows, k] for name, k in of_rows})

    def read(self, table: pd.DataFrame, n_test: int) -> npt.NDArray[Any]:
        """Return the numbers; NaN for a computed column that the sample lacks."""
        found = np.full((n_test, len(self.labels)), np.nan)
        for name, k in zip(self.columns, self.positions, strict=True):
            found[self.rows, k] = pd.to_numeric(table[name], errors="coerce")
        return found


@dataclass(frozen=True)
class LongNumbers(SubmissionForm):
    """One row per id and target, with its number.

    Attributes:
        name_column: Column of the targets' names.
        column: Column of the numbers.
        positions: Number of each row's target among the predicted columns, shape (n_rows,).
    """

    name_column: str
    column: str
    positions: Rows

    needs_probabilities = False
    suits = (NUMBERS,)
    example = ("id,name,value", "a,width,0", "a,height,0", "b,width,0", "b,height,0")

    @classmethod
    def recognise(cls, sample: Sample) -> "LongNumbers | None":
        """Return the form if a column holds the names of targets."""
        others, known = sample.others, set(sample.labels)
        if sample.id_column is None or len(others) != 2:
            return None
        of_name = [name for name in others if known & set(sample.table[name])]
        if len(of_name) != 1:
            return None
        names, ids = sample.table[of_name[0]], sample.table[sample.id_column]
        named = [name for name in sample.labels if (names == name).any()]
        for name in [*sample.labels[: sample.n_needed], *names.unique()]:
            if name not in named:
                what = "no row of the target" if name in known else "a row of"
                raise DataError(
                    f"{sample.path}: has a row for each id and target, but {what} {brief(name)}"
                    f"{'' if name in known else ', which is no target and no derived column'}"
                )
        twice = sample.table.duplicated([sample.id_column, of_name[0]])
        n = len(sample.ids) * len(named)
        if twice.any() or len(sample.table) != n:
            raise DataError(
                f"{sample.path}: has {len(sample.table):,} rows, but {len(sample.ids):,} ids with "
                f"{len(named)} targets each need {n:,}, every pair once"
            )
        rows = sample.rows_of(ids)
        position = {label: k for k, label in enumerate(sample.labels)}
        value = next(name for name in others if name != of_name[0])
        return cls(
            *(sample.table, sample.id_column, rows, tuple(sample.labels), of_name[0], value),
            np.asarray(names.map(position), dtype=np.int64),
        )

    @property
    def title(self) -> str:
        """The form, for people."""
        return (
            f"long: a row per id and target ({brief(self.name_column)}), its number in "
            f"{brief(self.column)}"
        )

    @property
    def value_columns(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    def filled(self, values: npt.NDArray[Any], probabilities: Array | None) -> pd.DataFrame:
        """Return the table with the numbers."""
        return self.table.assign(**{self.column: values[self.rows, self.positions]})

    def read(self, table: pd.DataFrame, n_test: int) -> npt.NDArray[Any]:
        """Return the numbers; NaN for a computed column that the sample lacks."""
        found = np.full((n_test, len(self.labels)), np.nan)
        found[self.rows, self.positions] = pd.to_numeric(table[self.column], errors="coerce")
        return found


FORMS: tuple[type[SubmissionForm], ...] = (
    ClassColumns,
    LabelColumns,
    LongForm,
    JoinedIds,
    RankedClasses,
    SecondClass,
    OneColumn,
    NumberColumns,
    LongNumbers,
)


def form_of(sample: Sample) -> SubmissionForm:
    """Return the form of a sample submission.

    Raises:
        DataError: It has none of the forms, or its ids are not those of the test table.
    """
    # Before the ids are looked for: joined with labels they are none.
    found = JoinedIds.recognise(sample)
    if found is not None:
        return found
    sample = replace(
        sample,
        id_column=id_column_of(
            *(sample.path, sample.table, sample.ids),
            id_name=sample.id_name,
            target=sample.target,
            source=sample.source,
        ),
    )
    for form in FORMS:
        recognised = form.recognise(sample) if sample.kind in form.suits else None
        if recognised is not None:
            return recognised
    if sample.kind == NUMBERS:
        raise DataError(
            f"{sample.path}: has no columns of the targets {', '.join(sample.labels)} (it has: "
            f"{', '.join(sample.table.columns)}); have one column per target, or a row per id and "
            "target"
        )
    raise DataError(
        f"{sample.path}: no column {sample.target!r} (it has: {', '.join(sample.table.columns)}); "
        "name the column of the predictions so and keep one such column, or have one column per "
        "class, or a row per id and class"
    )
