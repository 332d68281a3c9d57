"""The ids of a sample submission, matched to those of the test table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.errors import DataError
from foldsmith.project.csv_files import line_numbers
from foldsmith.project.image_files import without_suffix
from foldsmith.utils.formatting import counted


def id_column_of(
    path: Path,
    sample: pd.DataFrame,
    ids: Sequence[str],
    *,
    id_name: str,
    target: str,
    source: str,
) -> str | None:
    """Return the column of a sample submission that holds the ids of the test table.

    Args:
        path: The sample submission.
        sample: Its content.
        ids: Ids of the test table.
        id_name: Name of the project's id column.
        target: Name of the project's target column.
        source: Where the ids are from, as in ``the test table``.

    Raises:
        DataError: No column holds them.
    """
    others = [name for name in sample.columns if name != target]
    if not others:
        return None
    if id_name in others:
        return id_name
    known = set(map(without_suffix, ids))
    found = {name: int(sample[name].map(without_suffix).isin(known).sum()) for name in others}
    best = max(others, key=lambda name: (found[name], sample[name].nunique()))
    if found[best] or not ids:
        return best
    if len(sample.columns) == 1:
        return None
    lost = _lost_zeros(sample, others, ids)
    first = [f"{name} {values.iloc[0]!r}" for name, values in sample.items() if len(values)]
    raise DataError(
        f"{path}: no column has the ids of {source}, which are such as {ids[0]!r} (the "
        f"first row has {', '.join(first) or 'no values'}); {lost}write them "
        f"into a column {id_name}"
    )


def _lost_zeros(sample: pd.DataFrame, columns: Sequence[str], ids: Sequence[str]) -> str:
    """Return advice if ids of the sample lack the leading zeros that the test table has."""
    shortened = {text.lstrip("0") or "0" for text in ids if text.isdecimal() and text[0] == "0"}
    if any(sample[name].isin(shortened).any() for name in columns):
        return "it has lost the leading zeros of its ids, as a spreadsheet does; "
    return ""


def rows_of_ids(
    path: Path, texts: pd.Series, column: str, ids: Sequence[str], source: str
) -> npt.NDArray[np.int64]:
    """Return the row of the test table that each id of a sample submission names.

    Raises:
        DataError: An id is missing, unknown or doubled.
    """
    rows = {text: row for row, text in enumerate(ids)}
    found = texts.map(rows).astype(np.float64)
    # With the suffix of an image here and without it there.
    short = {without_suffix(text): row for row, text in enumerate(ids)}
    if len(short) == len(ids):
        found = found.fillna(texts.map(without_suffix).map(short)).astype(np.float64)
    where = f"{path}: column {column}"
    unknown = np.flatnonzero(found.isna())
    missing = sorted(set(range(len(ids))) - set(found.dropna().astype(int)))
    problems = []
    if len(unknown):
        problems.append(
            f"{counted(len(unknown), 'id is', 'ids are')} not in {source}, the first is "
            f"{texts.iloc[unknown[0]]!r} in line {line_numbers(path, unknown[:1].tolist())[0]}"
        )
    if missing:
        problems.append(
            f"{counted(len(missing), 'id')} of {source} "
            f"{'is' if len(missing) == 1 else 'are'} missing, the first is {ids[missing[0]]!r}"
        )
    twice = np.flatnonzero(found.duplicated() & found.notna())
    if len(twice):
        problems.append(
            f"{counted(len(twice), 'id stands', 'ids stand')} more than once, the first is "
            f"{texts.iloc[twice[0]]!r} in line "
            f"{line_numbers(path, twice[:1].tolist())[0]}"
        )
    if problems:
        raise DataError(
            f"{where}: {'; '.join(problems)}; it must have every id of {source} once, in any order"
        )
    return np.asarray(found, dtype=np.int64)
