"""The target as a project needs it, and the folds that the data bears."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.data.folds import MAX_CLASSES, assign_folds, strata
from foldsmith.errors import DataError
from foldsmith.new.survey.columns import ColumnFacts, Source
from foldsmith.new.survey.values import (
    DECIMAL_COMMA,
    GAPS,
    GROUPED,
    THOUSANDS_OR_NOT,
    are_dates,
    finite,
    mixed_signs,
    without_sign,
)
from foldsmith.project.column_forms import OneNumber
from foldsmith.project.number_columns import numbers
from foldsmith.project.settings import FoldMethod, FoldSettings
from foldsmith.utils.formatting import brief, counted

# A continuous target has so many classes, steps of its range, for whatever needs some.
_CONTINUOUS_CLASSES = 4
# Whole numbers this far apart at most are all classes where a metric rounds to classes.
_MOST_STEPS = 1000

# Separators of several labels of one image.
_SEPARATORS = re.compile(r"\s*[,;|/]\s*")


@dataclass(frozen=True)
class Target:
    """The target as the project needs it.

    Attributes:
        values: Number of each row, float64, shape (n,).
        range: Lowest and highest.
        n_classes: Classes, when it is treated as such.
        class_values: Their values; empty if they are evenly spaced over the range.
        classes: Texts that the numbers 0, 1, ... stand for; empty if it holds numbers.
        notes: Changes of the values, and remarks for people.
    """

    values: npt.NDArray[np.float64]
    range: tuple[float, float]
    n_classes: int
    class_values: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    kind: ClassVar[str] = OneNumber.kind

    @property
    def values_of_classes(self) -> tuple[float, ...]:
        """Value of each class, evenly spaced over the range if none are given."""
        low, high = self.range
        step = (high - low) / (self.n_classes - 1)
        return self.class_values or tuple(low + step * k for k in range(self.n_classes))

    @property
    def few(self) -> bool:
        """Whether the values are classes: texts, or at most 20 numbers."""
        return bool(self.classes) or self.n_distinct <= MAX_CLASSES

    @property
    def repeats(self) -> bool:
        """Whether there are at most 20 values, and each stands twice on average."""
        return self.few and self.n_distinct * 2 <= len(self.values)

    @property
    def n_distinct(self) -> int:
        """Number of different values."""
        return len(np.unique(self.values))

    @property
    def labels(self) -> list[str]:
        """Text of each row's class; of numbers their shortest form."""
        if self.classes:
            return [self.classes[int(value)] for value in self.values]
        return [f"{value:g}" for value in self.values]

    @property
    def labels_in_order(self) -> list[str]:
        """Text of each class that occurs, in the order of the classes."""
        return list(self.classes) or [f"{value:g}" for value in np.unique(self.values)]


def missing_targets(source: Source, column: str) -> pd.Series:
    """Return which rows have no target: no text, or none that is a number among numbers."""
    text = source.table[column]
    if ColumnFacts.of(text).numeric:
        return text.str.strip().isin(GAPS)
    return text.str.strip() == ""


def may_be_ids(source: Source, column: str) -> bool:
    """Return whether numbers may be ids of classes: whole ones, two or more, that repeat."""
    text = source.table[column]
    if not ColumnFacts.of(text).numeric:
        return False
    present = finite(text).dropna()
    distinct = present.nunique()
    return bool((present == present.round()).all()) and 2 <= distinct <= max(2, len(present) // 2)


def is_text(source: Source, column: str) -> bool:
    """Return whether a target is text rather than numbers."""
    return not ColumnFacts.of(source.table[column]).numeric


def examine_target(
    source: Source,
    column: str,
    id_column: str,
    as_classes: bool = False,
    judge: str = "",
    as_text: bool = False,
) -> Target:
    """Turn the target column into numbers.

    Numbers stay as they are; their decimal point may be a comma, and one sign that all have (%, $)
    is left out. With at most 20 values they are classes: the values if those are evenly spaced,
    else all integers between them if those are at most 20, else the values as they are. With more
    values the target is continuous, and has four classes evenly spaced over the range, for
    whatever needs some; but where a metric rounds to classes, each value is one. Text becomes 0,
    1, ... in alphabetical order (``grade 2`` before ``grade 10``).

    Args:
        source: The table of the labelled images.
        column: Its target column.
        id_column: Its id column, for messages.
        as_classes: Take numbers for texts too: ids of classes.
        judge: A metric that judges classes, to which predictions are rounded.
        as_text: Take numbers for names, as they stand: of folders.

    Raises:
        DataError: Rows have no target, it does not vary, its texts hardly repeat, or its numbers
            are written so that they may mean several.
    """
    text = source.table[column]
    where = f"{source.file}: column {column}"
    numeric = not as_text and ColumnFacts.of(text).numeric
    if not as_text:
        _refuse_signs(where, text)
        _refuse_separators(where, text)
    values = finite(text)
    gaps = values.isna() if numeric else text.str.strip() == ""
    if gaps.any():
        rows = source.table[id_column][gaps].tolist()
        what = "number" if numeric else "text"
        have = "row has" if len(rows) == 1 else "rows have"
        raise DataError(
            f"{where}: {len(rows)} {have} no {what} ({_listed(rows)}); fill them in, leave "
            "such rows out with --skip-missing, or name another column with --target"
        )
    distinct = text.nunique() if not numeric else values.nunique()
    if distinct < 2:
        raise DataError(
            f"{where}: has the same value in every row, which is nothing to learn; name another "
            "column with --target"
        )
    first = f"such as {brief(text.iloc[0])!r} of {brief(source.table[id_column].iloc[0])}"
    if not numeric:
        if not as_text and are_dates(text):
            raise DataError(
                f"{where}: holds dates, {first}; write a number instead (a year, the days since a "
                "day), or name another column with --target"
            )
        if distinct > max(2, len(text) // 2):
            raise DataError(
                f"{where}: {distinct} texts in {len(text)} rows are no classes, {first}; if they "
                "are numbers, write digits alone; or name another column with --target"
            )
        return _of_classes(text.str.strip(), _text_notes(text))
    if as_classes:
        if not may_be_ids(source, column):
            raise DataError(
                f"{where}: {distinct:,} numbers in {len(text):,} rows, {first}, are no ids of "
                "classes; leave out --classes, or name another column with --target"
            )
        return _of_ids(text, values)
    notes = []
    _, sign = without_sign(text)
    if sign:
        notes.append(f"{brief(text.iloc[0])} is read as {values.iloc[0]:g}, and so are the others")
    elif numbers(text).isna().any():
        notes.append("the decimal commas are written as points")
    return _of_numbers(where, values.to_numpy(), judge, tuple(notes))


def _of_classes(text: pd.Series, notes: tuple[str, ...]) -> Target:
    classes = sorted(text.unique(), key=natural_order)
    numbered = text.map({name: k for k, name in enumerate(classes)}).to_numpy(np.float64)
    n = len(classes)
    return Target(numbered, (0.0, n - 1.0), n, classes=tuple(classes), notes=notes)


def _of_ids(text: pd.Series, values: pd.Series) -> Target:
    """Return numbers that are ids of classes: as they stand, if each is written in one way."""
    notes = []
    if text.nunique() > values.nunique():
        notes.append(
            "ids that are written in several ways (1 and 1.0) are written as whole numbers"
        )
        text = values.map(lambda value: f"{value:.0f}")
    of_text = dict(zip(text, values, strict=True))
    classes = sorted(of_text, key=lambda name: of_text[name])
    numbered = text.map({name: k for k, name in enumerate(classes)}).to_numpy(np.float64)
    n = len(classes)
    return Target(numbered, (0.0, n - 1.0), n, classes=tuple(classes), notes=tuple(notes))


def _of_numbers(
    where: str, values: npt.NDArray[np.float64], judge: str, notes: tuple[str, ...]
) -> Target:
    unique = np.unique(values)
    low, high = float(unique[0]), float(unique[-1])
    whole = bool((unique == unique.round()).all())
    n_classes, class_values = len(unique), tuple(unique.tolist())
    many = len(unique) > MAX_CLASSES
    if many and judge and not whole and len(unique) * 2 > len(values):
        raise DataError(
            f"{where}: --metric {judge} judges classes, but these are {len(unique):,} numbers in "
            f"{len(values):,} rows; name another metric or another column"
        )
    if many and not judge:
        n_classes, class_values = _CONTINUOUS_CLASSES, ()
    elif np.allclose(np.diff(unique), (high - low) / (len(unique) - 1)):
        class_values = ()
    elif whole and high - low < (_MOST_STEPS if judge else MAX_CLASSES):
        n_classes, class_values = int(high - low) + 1, ()
    return Target(values, (low, high), n_classes, class_values, notes=notes)


def _text_notes(text: pd.Series) -> tuple[str, ...]:
    """Return warnings about texts of classes."""
    notes = []
    counts = Counter(text.str.strip())
    alike = Counter(" ".join(name.casefold().split()) for name in counts)
    for name, n in alike.items():
        if n > 1:
            written = [brief(repr(o)) for o in counts if " ".join(o.casefold().split()) == name]
            notes.append(f"{', '.join(written)} are different classes")
    parts = {name: [part for part in _SEPARATORS.split(name) if part] for name in counts}
    several = {name: found for name, found in parts.items() if len(found) > 1}
    seen = Counter(part for found in parts.values() for part in set(found))
    several = {
        name: found for name, found in several.items() if all(seen[part] > 1 for part in found)
    }
    by_blanks = {
        name: name.split()
        for name in counts
        if len(name.split()) > 1 and all(part in counts for part in name.split())
    }
    if found := (several or by_blanks):
        first = next(iter(found))
        n = sum(counts[name] for name in found)
        has = "row holds" if n == 1 else "rows hold"
        notes.append(
            f"{n:,} {has} several labels, as {brief(repr(first))} does: each combination is "
            "taken for a class of its own"
        )
    return tuple(notes)


def _refuse_signs(where: str, text: pd.Series) -> None:
    """Make sure that all numbers have the same sign, or none."""
    mixed = mixed_signs(text)
    if mixed is not None:
        raise DataError(
            f"{where}: {mixed[0]} and {mixed[1]} do not have the same unit; write plain numbers, "
            "or name another column with --target"
        )


def _refuse_separators(where: str, column: pd.Series) -> None:
    """Make sure that numbers have no separators that may mean several things."""
    text, _ = without_sign(column)
    present = text[~text.isin(GAPS)].str.strip()
    grouped = present[present.str.fullmatch(GROUPED) & numbers(present).isna()]
    commas = present[present.str.fullmatch(DECIMAL_COMMA)]
    unclear = len(commas) > 0 and bool(commas.str.fullmatch(THOUSANDS_OR_NOT).all())
    others = grouped if unclear else grouped[~grouped.isin(commas)]
    if len(commas) and not len(others):
        # Beside decimal commas a point may be one of thousands.
        others = present[present.str.contains(".", regex=False)]
    n_numbers = int(numbers(present).notna().sum()) + len(commas.index.union(grouped.index))
    if len(others) and n_numbers * 10 >= 9 * len(present):
        raise DataError(
            f"{where}: numbers such as {others.iloc[0]} may be read in several ways; write them "
            "without separators of thousands and with a decimal point, or name another column "
            "with --target"
        )


def choose_folds(
    targets: npt.NDArray[np.float64], groups: pd.Series | None, classes: bool = False
) -> tuple[FoldSettings, str]:
    """Choose how to split: stratified in five folds, or fewer if the data needs it.

    Fewer folds, down to three, if a class has fewer members (with fewer than three it is in some
    folds only, however few there are) or there are fewer groups; a method that is not stratified
    where that does not help; two folds at last.

    Args:
        targets: Shape (n,).
        groups: Group of each row, if there are groups.
        classes: Whether each value is a class, however many there are.

    Returns:
        The settings, and the reason if there are fewer than five folds; "" if not.

    Raises:
        DataError: The rows cannot be split at all.
    """
    stratified: FoldMethod = "StratifiedKFold" if groups is None else "StratifiedGroupKFold"
    plain: FoldMethod = "KFold" if groups is None else "GroupKFold"
    column = pd.Series(targets)
    smallest = int(np.bincount(strata(column, 3, classes)).min())
    enough = [n for n in (5, 4, 3) if n <= smallest or smallest < 3]
    tries = [(stratified, n) for n in enough] + [(plain, n) for n in (5, 4, 3, 2)]
    for method, n_splits in tries:
        settings = FoldSettings(method=method, n_splits=n_splits)
        try:
            assign_folds(settings, column, groups, classes=classes)
        except DataError as error:
            reason = error
        else:
            return settings, "" if n_splits == 5 else _why_fewer(column, groups, smallest)
    raise DataError(f"the labelled images cannot be split: {reason}")


def _why_fewer(targets: pd.Series, groups: pd.Series | None, smallest: int) -> str:
    """Return why there are fewer than five folds."""
    if len(targets) < 5:
        return f"there are {len(targets)} labelled images"
    if groups is not None and groups.nunique() < 5:
        return f"there are {counted(groups.nunique(), 'group')}"
    if 3 <= smallest < 5:
        return f"the smallest class has {counted(smallest, 'image')}"
    return "five would leave one of them empty"


def natural_order(text: str) -> list[tuple[int, str]]:
    """Return the sort key of a text: numbers in it sort by value."""
    return [
        (int("".join(part)), "") if digits else (0, "".join(part).casefold())
        for digits, part in groupby(text, lambda char: char in "0123456789")
    ] + [(0, text)]


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values[:3]) + (", ..." if len(values) > 3 else "")
