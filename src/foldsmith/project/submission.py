"""Submissions: predictions in the form that the sample submission has."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.csv_files import line_numbers, read_texts
from foldsmith.project.image_files import without_suffix
from foldsmith.project.tables import as_written, points_of
from foldsmith.utils.formatting import counted


@dataclass(frozen=True)
class SubmissionForm:
    """The form of a project's submissions.

    Attributes:
        table: Their columns, all values texts as the sample submission has them; the predictions
            take the place of ``value_column``.
        id_column: Column of the ids; None if the order of the rows is all there is.
        value_column: Column of the predictions.
        rows: Row of the test table that each row is about, int64, shape (n_test,).
    """

    table: pd.DataFrame
    id_column: str | None
    value_column: str
    rows: npt.NDArray[np.int64]


def submission_form(project: ProjectFolder, test: pd.DataFrame) -> SubmissionForm:
    """Return the form of the submissions; the sample submission defines it if there is one.

    Its rows are matched to those of the test table by their ids, in whatever order and column
    they stand, with or without the suffix of an image. A sample of a single column has the order
    of the test table.

    Args:
        project: The project.
        test: The table of the images to predict.

    Raises:
        DataError: The sample submission has no column of the test table's ids, an id of it is
            missing, unknown or doubled, or the column of the predictions is not clear.
    """
    settings = project.settings
    if settings.sample_submission is None:
        texts = test[settings.id_column].to_numpy(dtype=object)
        columns = {settings.id_column: texts, settings.target_column: ""}
        table = pd.DataFrame(columns, dtype=object)
        return SubmissionForm(
            table, settings.id_column, settings.target_column, np.arange(len(test))
        )
    path = project.data_dir / settings.sample_submission
    sample = read_texts(path)
    ids = test[settings.id_column].tolist()
    id_column = _id_column(project, path, sample, ids)
    value_column = _value_column(project, path, sample, id_column)
    if id_column is not None:
        rows = _rows(path, sample[id_column], id_column, ids)
    elif len(sample) == len(test):
        rows = np.arange(len(test))
    else:
        raise DataError(
            f"{path}: {counted(len(sample), 'row')}, but the test table has {len(test)}"
        )
    return SubmissionForm(sample, id_column, value_column, rows)


def submission_table(
    project: ProjectFolder, test: pd.DataFrame, predictions: npt.ArrayLike
) -> pd.DataFrame:
    """Return predictions in the form of the sample submission, its rows in their order.

    Args:
        project: The project.
        test: The table of the images to predict.
        predictions: Shape (n_test,), in the order of ``test``.

    Raises:
        DataError: The sample submission does not fit the test table.
    """
    form = submission_form(project, test)
    values = as_written(project, np.asarray(predictions, dtype=np.float64))
    return form.table.assign(**{form.value_column: values[form.rows]})


def read_submission(
    project: ProjectFolder, path: Path, test: pd.DataFrame
) -> npt.NDArray[np.float64]:
    """Return the predictions of a submission.

    Args:
        project: The project.
        path: A file that :func:`submission_table` has made.
        test: The table of the images to predict.

    Returns:
        float64, shape (n_test,), in the order of ``test``; numbers of classes where those are
        texts.

    Raises:
        DataError: The file cannot be read, or is of other ids than the form has now.
    """
    form = submission_form(project, test)
    column = form.value_column
    table = read_texts(path)
    same = column in table.columns and len(table) == len(form.rows)
    if same and form.id_column is not None:
        same = form.id_column in table.columns and bool(
            (table[form.id_column].to_numpy() == form.table[form.id_column].to_numpy()).all()
        )
    if not same:
        raise DataError(
            f"{path}: is not a submission of today's test table and sample submission; make it "
            "anew with 'foldsmith run'"
        )
    values = np.empty(len(test), dtype=np.float64)
    values[form.rows] = points_of(project, table[column]).to_numpy(dtype=np.float64)
    return values


def _id_column(
    project: ProjectFolder, path: Path, sample: pd.DataFrame, ids: Sequence[str]
) -> str | None:
    """Return the column of a sample submission that holds the ids of the test table."""
    settings = project.settings
    others = [name for name in sample.columns if name != settings.target_column]
    if not others:
        return None
    if settings.id_column in others:
        return settings.id_column
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
        f"{path}: no column has the ids of {settings.test_csv}, which are such as {ids[0]!r} (the "
        f"first row has {', '.join(first) or 'no values'}); {lost}write them "
        f"into a column {settings.id_column}"
    )


def _lost_zeros(sample: pd.DataFrame, columns: Sequence[str], ids: Sequence[str]) -> str:
    """Return advice if ids of the sample lack the leading zeros that the test table has."""
    shortened = {text.lstrip("0") or "0" for text in ids if text.isdecimal() and text[0] == "0"}
    if any(sample[name].isin(shortened).any() for name in columns):
        return "it has lost the leading zeros of its ids, as a spreadsheet does; "
    return ""


def _value_column(
    project: ProjectFolder, path: Path, sample: pd.DataFrame, id_column: str | None
) -> str:
    """Return the column of a sample submission that the predictions go to."""
    target = project.settings.target_column
    if target in sample.columns:
        return target
    others = [name for name in sample.columns if name != id_column]
    if id_column is not None and len(others) == 1:
        return others[0]
    has = f"it has: {', '.join(sample.columns)}"
    if set(project.class_names) & set(others):
        raise DataError(
            f"{path}: has a column for each class ({', '.join(others[:4])}, ...), but submissions "
            f"have one column of predictions, {target}; leave out sample_submission, and hand in "
            "the ensemble's probabilities.csv"
        )
    raise DataError(
        f"{path}: no column {target!r} ({has}); name the column of the predictions so, and keep "
        "one such column"
    )


def _rows(path: Path, texts: pd.Series, column: str, ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the row of the test table that each id of a sample submission names."""
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
            f"{counted(len(unknown), 'id is', 'ids are')} not in the test table, the first is "
            f"{texts.iloc[unknown[0]]!r} in line {line_numbers(path, unknown[:1].tolist())[0]}"
        )
    if missing:
        problems.append(
            f"{counted(len(missing), 'id')} of the test table "
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
            f"{where}: {'; '.join(problems)}; it must have every id of the test table once, in "
            "any order"
        )
    return np.asarray(found, dtype=np.int64)
