"""Checks of the keys of several numbers and several class targets in ``project.yml``."""

from collections.abc import Mapping, Sequence
from math import isfinite

from foldsmith.utils.suggest import did_you_mean


def check_names(kind: str, names: Sequence[str]) -> None:
    """Check ``target_columns``.

    Args:
        kind: ``target_kind``.
        names: The columns.

    Raises:
        ValueError: There are none, or a name is empty or stands twice.
    """
    if not names:
        raise ValueError(f"target_kind: {kind} needs target_columns, the columns to predict")
    if len(set(names)) < len(names):
        raise ValueError("target_columns: a name stands twice")
    if not all(name.strip() for name in names):
        raise ValueError("target_columns: a name is empty")


def check_weights(weights: Mapping[str, float], judged: Sequence[str]) -> None:
    """Check ``target_weights``.

    Args:
        weights: Weight of some columns.
        judged: All columns that may have one.

    Raises:
        ValueError: A column is unknown, or a weight is not above 0.
    """
    for name, weight in weights.items():
        if name not in judged:
            raise ValueError(
                f"target_weights: {name} is none of target_columns and derived_columns"
                f"{did_you_mean(name, judged)}"
            )
        if not (isfinite(weight) and weight > 0):
            raise ValueError(f"target_weights: {name}: {weight:g} is not above 0")


def check_ranges(
    names: Sequence[str], ranges: Mapping[str, tuple[float, float]], of_all: tuple[float, float]
) -> None:
    """Check ``target_ranges``, or without them ``target_range``.

    Args:
        names: The columns.
        ranges: Lowest and highest value of each.
        of_all: Those of all columns, if there are no ranges.

    Raises:
        ValueError: A column is unknown or has no range, or a range is none.
    """
    for name in ranges:
        if name not in names:
            raise ValueError(
                f"target_ranges: {name} is none of target_columns{did_you_mean(name, names)}"
            )
    missing = [name for name in names if name not in ranges]
    if ranges and missing:
        raise ValueError(f"target_ranges: has no range of {missing[0]}")
    for name, (low, high) in (ranges or {"": of_all}).items():
        if not (isfinite(low) and isfinite(high) and low < high):
            key = f"target_ranges: {name}" if name else "target_range"
            raise ValueError(f"{key}: {low:g} is not below {high:g}, two finite numbers")


def check_classes(names: Sequence[str], classes: Mapping[str, Sequence[str]]) -> None:
    """Check ``target_classes``.

    Args:
        names: The columns.
        classes: Texts of the classes of each.

    Raises:
        ValueError: A column is unknown or has fewer than two classes, or a class is empty or stands
            twice.
    """
    for name in classes:
        if name not in names:
            raise ValueError(
                f"target_classes: {name} is none of target_columns{did_you_mean(name, names)}"
            )
    for name in names:
        of_column = classes.get(name, ())
        if len(of_column) < 2:
            raise ValueError(f"target_classes: {name}: needs two classes or more")
        if len(set(of_column)) < len(of_column):
            raise ValueError(f"target_classes: {name}: a class stands twice")
        if not all(text.strip() for text in of_column):
            raise ValueError(f"target_classes: {name}: a class is empty")
        if any(text != text.strip() for text in of_column):
            raise ValueError(f"target_classes: {name}: a class has blanks around it")
