"""The tables of a project: labelled photos, photos to predict, folds, sample submission."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.config import Project
from foldsmith.errors import DataError, one_line

FOLD_COLUMN = "fold"


def read_table(path: Path, columns: Iterable[str], id_column: str | None = None) -> pd.DataFrame:
    """Read a CSV and make sure that it has what is needed.

    Args:
        path: The file.
        columns: Columns that must be there.
        id_column: Column read as text, whose values must be present and unique.

    Returns:
        The table, its rows in the file's order.

    Raises:
        DataError: The file is missing, empty or unreadable, lacks a column, or an id is
            missing or stands twice.
    """
    try:
        table = pd.read_csv(path, dtype={id_column: str} if id_column else None)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: cannot be read as CSV: {one_line(error)}") from None
    for column in columns:
        if column not in table.columns:
            found = ", ".join(map(str, table.columns))
            raise DataError(f"{path}: no column {column!r} (it has: {found})")
    if table.empty:
        raise DataError(f"{path}: has no rows")
    if id_column is not None:
        if table[id_column].isna().any():
            raise DataError(
                f"{path}: column {id_column}: {table[id_column].isna().sum()} empty ids"
            )
        twice = table[id_column][table[id_column].duplicated()]
        if len(twice):
            raise DataError(f"{path}: column {id_column}: {twice.iloc[0]!r} stands more than once")
    return table


def read_train(project: Project) -> pd.DataFrame:
    """Return the table of the labelled photos.

    Raises:
        DataError: As :func:`read_table`, or a target is missing, not a number or outside
            the project's ``target_range``.
    """
    settings = project.settings
    path = project.data_dir / settings.train_csv
    columns = [settings.id_column, settings.target_column]
    if settings.group_column is not None:
        columns.append(settings.group_column)
    table = read_table(path, columns, settings.id_column)
    targets = pd.to_numeric(table[settings.target_column], errors="coerce")
    low, high = settings.target_range
    wrong = table[settings.id_column][~targets.between(low, high)]
    if len(wrong):
        raise DataError(
            f"{path}: column {settings.target_column}: {len(wrong)} targets are missing or "
            f"outside target_range {low:g}..{high:g}, the first at id {wrong.iloc[0]}"
        )
    return table


def read_test(project: Project) -> pd.DataFrame:
    """Return the table of the photos to predict."""
    settings = project.settings
    return read_table(
        project.data_dir / settings.test_csv, [settings.id_column], settings.id_column
    )


def read_folds(project: Project, meta_file: str | None) -> pd.DataFrame:
    """Return the train table with the column ``fold``.

    Args:
        project: The project.
        meta_file: The table, relative to the project folder; None for the one that
            ``preprocess`` writes.

    Raises:
        DataError: The table is missing or has folds other than 0..n_splits-1.
    """
    settings = project.settings
    path = project.fold_table if meta_file is None else project.path(meta_file)
    if not path.is_file():
        raise DataError(f"{path}: no such file; run 'foldsmith preprocess' first")
    columns = [settings.id_column, settings.target_column, FOLD_COLUMN]
    table = read_table(path, columns, settings.id_column)
    if set(table[FOLD_COLUMN]) != set(range(project.n_splits)):
        raise DataError(
            f"{path}: column {FOLD_COLUMN}: must hold 0..{project.n_splits - 1}, "
            f"the folds of project.yml; run 'foldsmith preprocess' again"
        )
    return table


def photo_paths(project: Project, table: pd.DataFrame) -> list[Path]:
    """Return the path of each row's photo.

    Raises:
        DataError: The template ``image_path`` names a column that the table lacks.
    """
    template = project.settings.image_path
    records: list[Any] = table.to_dict(orient="records")
    try:
        return [project.data_dir / template.format(**record) for record in records]
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise DataError(
            f"{project.source_files[0]}: image_path: {template!r} does not fit the table's "
            f"columns ({', '.join(map(str, table.columns))}): {one_line(error)}"
        ) from None


def targets_of(project: Project, table: pd.DataFrame) -> npt.NDArray[np.float32]:
    """Return the targets, shape (n,), float32."""
    return table[project.settings.target_column].to_numpy(dtype=np.float32, copy=True)


def hash_columns(table: pd.DataFrame, columns: list[str]) -> str:
    """Return a SHA-256 of the columns' values in the order of the rows."""
    digest = hashlib.sha256()
    for row in table[columns].itertuples(index=False):
        digest.update(repr(tuple(map(str, row))).encode())
    return digest.hexdigest()


def submission_table(
    project: Project, test: pd.DataFrame, predictions: npt.ArrayLike
) -> pd.DataFrame:
    """Return predictions in the form of the sample submission.

    Args:
        project: The project.
        test: The table of the photos to predict.
        predictions: Shape (n_test,), in the order of ``test``.

    Raises:
        DataError: The sample submission has another length, no target column, or ids in
            another order than the test table.
    """
    settings = project.settings
    values = np.asarray(predictions, dtype=np.float64)
    if settings.sample_submission is None:
        ids = test[settings.id_column].to_numpy()
        return pd.DataFrame({settings.id_column: ids, settings.target_column: values})
    path = project.data_dir / settings.sample_submission
    sample = read_table(path, [settings.target_column])
    if len(sample) != len(test):
        raise DataError(f"{path}: {len(sample)} rows, but the test table has {len(test)}")
    if settings.id_column in sample.columns:
        same = (
            sample[settings.id_column].astype(str).to_numpy() == test[settings.id_column].to_numpy()
        )
        if not same.all():
            raise DataError(f"{path}: its ids are not those of the test table in the same order")
    return sample.assign(**{settings.target_column: values})
