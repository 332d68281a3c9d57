"""The ids of a sample submission, matched to those of the test table, also joined with labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

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


# Texts that may stand between an id and a label.
_BETWEEN = ("_", "__", "-", ":", " ", "/", "|", ".")


class Joined(NamedTuple):
    """How ids are joined with labels, as in ``img1_cat``.

    Attributes:
        separator: The text between them.
        label_first: The label stands before the id.
        output: The word for a label: label or target.
    """

    separator: str
    label_first: bool
    output: str = "label"

    @property
    def example(self) -> str:
        """The form, for people."""
        parts = (self.output, "id") if self.label_first else ("id", self.output)
        return self.separator.join(parts)

    def texts(self, ids: Sequence[str], label: str) -> list[str]:
        """Return ids joined with a label."""
        if self.label_first:
            return [f"{label}{self.separator}{each}" for each in ids]
        return [f"{each}{self.separator}{label}" for each in ids]


def joined_ids(
    texts: pd.Series, ids: Sequence[str], labels: Sequence[str], output: str = "label"
) -> Joined | None:
    """Return how the ids of a sample submission are joined with labels; None if they are not.

    The first row decides: it must be an id of the test table and a label.

    Args:
        texts: A column of the sample.
        ids: Ids of the test table.
        labels: Names of the labels, classes or targets.
        output: The word for one of them.
    """
    known = {*ids, *map(without_suffix, ids)}
    if not len(texts) or texts.iloc[0] in known:
        return None
    first = str(texts.iloc[0])
    for separator in _BETWEEN:
        for label in labels:
            before, after = f"{label}{separator}", f"{separator}{label}"
            if first.endswith(after) and first.removesuffix(after) in known:
                return Joined(separator, label_first=False, output=output)
            if first.startswith(before) and first.removeprefix(before) in known:
                return Joined(separator, label_first=True, output=output)
    return None


def rows_of_joined_ids(
    path: Path,
    texts: pd.Series,
    joined: Joined,
    ids: Sequence[str],
    labels: Sequence[str],
    source: str,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the row of the test table and the label that each joined id names.

    Args:
        path: The sample submission.
        texts: Its column of joined ids.
        joined: How they are joined.
        ids: Ids of the test table.
        labels: Names of the labels.
        source: Where the ids are from, as in ``the test table``.

    Returns:
        Both int64, shape (n_rows,).

    Raises:
        DataError: A joined id is missing, unknown or doubled.
    """
    spelled = [ids]
    short = list(map(without_suffix, ids))
    if short != list(ids) and len(set(short)) == len(ids):
        spelled.append(short)
    place = {
        text: row + k * len(ids)
        for of_ids in spelled
        for k, label in enumerate(labels)
        for row, text in enumerate(joined.texts(of_ids, label))
    }
    if len(place) != len(spelled) * len(ids) * len(labels):
        raise DataError(
            f"{path}: column {texts.name}: an id may be of two {joined.output}s, as two of them "
            f"joined as {joined.example} are equal; have a column per {joined.output}, or a row "
            f"per id and {joined.output}"
        )
    found = texts.map(place)
    unknown, twice = np.flatnonzero(found.isna()), np.flatnonzero(found.duplicated())
    problem = ""
    if len(unknown):
        row = int(unknown[0])
        problem = f"line {line_numbers(path, [row])[0]}: {texts.iloc[row]!r} is none of them"
    elif len(twice):
        row = int(twice[0])
        problem = f"line {line_numbers(path, [row])[0]}: {texts.iloc[row]!r} stands twice"
    elif len(texts) != len(ids) * len(labels):
        missing = min(set(range(len(ids) * len(labels))) - set(found.astype(int)))
        text = joined.texts([ids[missing % len(ids)]], labels[missing // len(ids)])[0]
        problem = f"there is none for {text!r}"
    if problem:
        raise DataError(
            f"{path}: column {texts.name}: has ids as {joined.example}, one for each id of "
            f"{source} and {joined.output}, but {problem}"
        )
    places = np.asarray(found, dtype=np.int64)
    return places % len(ids), places // len(ids)
