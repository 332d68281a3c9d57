"""Submissions in long form: a row per image and class, label or target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.errors import DataError
from foldsmith.project.csv_files import line_numbers
from foldsmith.project.image_files import without_suffix
from foldsmith.project.submission_base import (
    LABELS,
    NUMBERS,
    ONE_COLUMN,
    Rows,
    Sample,
    SubmissionForm,
)
from foldsmith.project.submission_ids import Joined, joined_ids, rows_of_joined_ids
from foldsmith.utils.formatting import brief

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class LongForm(SubmissionForm):
    """One row per id and output.

    Attributes:
        name_column: Column of the outputs' names.
        column: Column of the outputs.
        positions: Number of each row's output, int64, shape (n_rows,).
    """

    name_column: str
    column: str
    positions: Rows

    # The word for an output, and its plural.
    output: ClassVar[tuple[str, str]] = ("class", "classes")

    @classmethod
    def of_pairs(cls, sample: Sample, name_column: str, names: Sequence[str]) -> Self:
        """Return the form of a sample with two columns beside the ids.

        Args:
            sample: The sample submission.
            name_column: Its column of the outputs' names.
            names: The outputs that each id must have a row of, in whatever order.

        Raises:
            DataError: A pair of an id and an output stands twice or is missing.
        """
        table, id_column = sample.table, sample.id_column
        assert id_column is not None, "checked by recognise"
        twice = table.duplicated([id_column, name_column]).to_numpy()
        n = len(sample.ids) * len(names)
        one, several = cls.output
        if twice.any() or len(table) != n:
            what = "some are missing"
            if twice.any():
                line = line_numbers(sample.path, [int(twice.argmax())])[0]
                what = f"one stands twice, in line {line}"
            raise DataError(
                f"{sample.path}: has a row for each id and {one}, but {what}: it has "
                f"{len(table):,} rows, and {len(sample.ids):,} ids with {len(names)} {several} "
                f"need {n:,}"
            )
        position = {label: k for k, label in enumerate(sample.labels)}
        value = next(name for name in sample.others if name != name_column)
        return cls(
            *(table, id_column, sample.rows_of(table[id_column]), tuple(sample.labels)),
            *(name_column, value),
            np.asarray(table[name_column].map(position), dtype=np.int64),
        )

    @classmethod
    def wanted(cls, sample: Sample) -> str:
        """Return what each row is about."""
        return f"a row per id and {cls.output[0]}"

    @property
    def value_columns(self) -> tuple[str, ...]:
        """The column."""
        return (self.column,)

    def filled(self, outputs: npt.NDArray[Any]) -> pd.DataFrame:
        """Return the table with the outputs."""
        return self.table.assign(**{self.column: outputs[self.rows, self.positions]})

    def read(self, table: pd.DataFrame, n_test: int) -> npt.NDArray[Any]:
        """Return the outputs; NaN for a computed column that the sample lacks."""
        found = np.full((n_test, len(self.labels)), np.nan)
        found[self.rows, self.positions] = pd.to_numeric(table[self.column], errors="coerce")
        return found


@dataclass(frozen=True)
class LongClasses(LongForm):
    """One row per id and class, with the probability of the class."""

    suits = (ONE_COLUMN, LABELS)
    example = ("id,class,p", "a,cat,0.5", "a,dog,0.5", "b,cat,0.5", "b,dog,0.5")

    @classmethod
    def recognise(cls, sample: Sample) -> LongClasses | None:
        """Return the form if each id stands once with each class."""
        known, others = set(sample.labels), sample.others
        if sample.id_column is None or len(others) != 2:
            return None
        of_class = [name for name in others if set(sample.table[name]) == known]
        if len(of_class) != 1 or not sample.table[sample.id_column].duplicated().any():
            return None
        sample.needs_probabilities("a row for each id and class")
        return cls.of_pairs(sample, of_class[0], sample.labels)

    @property
    def title(self) -> str:
        """The form, for people."""
        return (
            f"long: a row per id and class ({brief(self.name_column)}), its probability in "
            f"{brief(self.column)}"
        )


@dataclass(frozen=True)
class JoinedIds(LongForm):
    """One row per id and class, both in one text such as ``a_cat``, with the class's probability.

    Attributes:
        joined: How ids and classes are joined.
    """

    joined: Joined

    suits: ClassVar[tuple[str, ...]] = (ONE_COLUMN, LABELS)
    # The word for what ids are joined with.
    joined_with: ClassVar[str] = "label"
    example = ("id,p", "a_cat,0.5", "a_dog,0.5", "b_cat,0.5", "b_dog,0.5")

    @classmethod
    def recognise(cls, sample: Sample) -> Self | None:
        """Return the form if a column has each id joined with each class."""
        if len(sample.table.columns) != 2 or sample.kind not in cls.suits:
            return None
        for name in sample.table.columns:
            joined = joined_ids(sample.table[name], sample.ids, sample.labels, cls.joined_with)
            if joined is not None:
                break
        else:
            return None
        if cls.needs_probabilities:
            sample.needs_probabilities("a row for each id and class")
        names = cls.named_by(sample, sample.table[name], joined)
        rows, numbers = rows_of_joined_ids(
            *(sample.path, sample.table[name], joined, sample.ids, names, sample.source)
        )
        positions = np.array([sample.labels.index(each) for each in names], dtype=np.int64)
        value = next(other for other in sample.table.columns if other != name)
        return cls(
            *(sample.table, name, rows, tuple(sample.labels)),
            *(name, value, positions[numbers], joined),
        )

    @classmethod
    def named_by(cls, sample: Sample, texts: pd.Series, joined: Joined) -> Sequence[str]:
        """Return the outputs that each id must be joined with: all of them."""
        return sample.labels

    @property
    def title(self) -> str:
        """The form, for people."""
        return (
            f"long: a row per id and label, joined as {self.joined.example} in "
            f"{brief(self.name_column)}, its probability in {brief(self.column)}"
        )


@dataclass(frozen=True)
class LongNumbers(LongForm):
    """One row per id and target, with its number."""

    needs_probabilities = False
    suits = (NUMBERS,)
    output = ("target", "targets")
    example = ("id,name,value", "a,width,0", "a,height,0", "b,width,0", "b,height,0")

    @classmethod
    def recognise(cls, sample: Sample) -> LongNumbers | None:
        """Return the form if a column holds the names of targets."""
        others, known = sample.others, set(sample.labels)
        if sample.id_column is None or len(others) != 2:
            return None
        of_name = [name for name in others if known & set(sample.table[name])]
        if len(of_name) != 1:
            return None
        names = set(sample.table[of_name[0]])
        missing = [name for name in sample.needed if name not in names]
        unknown = sorted(names - known)
        if missing or unknown:
            problem = (
                f"no row of the target {brief(missing[0])}"
                if missing
                else f"a row of {brief(unknown[0])}, which is no target and no derived column"
            )
            raise DataError(f"{sample.path}: has a row for each id and target, but {problem}")
        return cls.of_pairs(sample, of_name[0], [name for name in sample.labels if name in names])

    @property
    def title(self) -> str:
        """The form, for people."""
        return (
            f"long: a row per id and target ({brief(self.name_column)}), its number in "
            f"{brief(self.column)}"
        )


@dataclass(frozen=True)
class JoinedNumbers(JoinedIds):
    """One row per id and target, both in one text such as ``a_width``, with the target's number."""

    needs_probabilities = False
    suits = (NUMBERS,)
    output = ("target", "targets")
    joined_with = "target"
    example = ("id,value", "a_width,0", "a_height,0", "b_width,0", "b_height,0")

    @classmethod
    def named_by(cls, sample: Sample, texts: pd.Series, joined: Joined) -> Sequence[str]:
        """Return the targets, and the derived columns that an id is joined with."""
        there, ids = set(texts), [*sample.ids, *map(without_suffix, sample.ids)]
        return [
            name
            for name in sample.labels
            if name in sample.needed or not there.isdisjoint(joined.texts(ids, name))
        ]

    @property
    def title(self) -> str:
        """The form, for people."""
        return (
            f"long: a row per id and target, joined as {self.joined.example} in "
            f"{brief(self.name_column)}, its number in {brief(self.column)}"
        )
