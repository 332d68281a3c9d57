"""Numbers in columns of text."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

# Texts of a missing target, in lower case.
GAPS = ("", "na", "n/a", "nan", "null", "none")


def as_numbers(column: pd.Series) -> pd.Series:
    """Return a column of text as int64 if it holds whole numbers alone, else as float64."""
    values = numbers(column)
    # Beyond 2**53 a float no longer tells neighbours apart.
    whole = (values % 1 == 0) & (values.abs() < 2**53)
    return values.astype(np.int64) if len(values) and whole.all() else values


def numbers(column: pd.Series) -> pd.Series:
    """Return a column as float64; NaN for values that are not numbers or too large."""
    try:
        return pd.to_numeric(column, errors="coerce").astype(np.float64)
    except OverflowError:
        return column.map(_number).astype(np.float64)


def columns_of_numbers(table: pd.DataFrame, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return columns as float64, shape (n, n_columns); NaN as :func:`numbers` has it."""
    return np.stack([numbers(table[name]).to_numpy(np.float64) for name in names], axis=1)


def _number(value: object) -> float:
    try:
        return float(str(value))
    except ValueError:
        return np.nan


def is_gap(column: pd.Series) -> pd.Series:
    """Return which values of a column of text stand for a missing target."""
    return column.astype(str).str.strip().str.lower().isin(GAPS)
