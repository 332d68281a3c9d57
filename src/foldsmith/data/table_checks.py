"""Everything that can be wrong with a project's tables, found at once."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import pandas as pd

from foldsmith.data.fold_table import split
from foldsmith.data.image_table import COLUMNS
from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.submission import submission_form
from foldsmith.project.tables import FOLD_COLUMN, read_folds, read_test, read_train

T = TypeVar("T")


def check_tables(
    project: ProjectFolder, meta_files: Iterable[str | None] = (), try_split: bool = True
) -> None:
    """Check the tables of a project; arguments as for :func:`table_problems`.

    Raises:
        DataError: One line per problem.
    """
    problems = table_problems(project, meta_files, try_split)
    if problems:
        raise DataError("\n".join(problems))


def table_problems(
    project: ProjectFolder, meta_files: Iterable[str | None] = (), try_split: bool = True
) -> list[str]:
    """Return the problems of the train and test tables and the sample submission.

    Args:
        project: The project.
        meta_files: Further fold tables, relative to the project folder; None (the one that
            preprocess writes) is skipped.
        try_split: Also assign the folds, which shows whether there are enough rows for them.

    Returns:
        One line per problem, each naming its file; empty if all is well.
    """
    problems: list[str] = []

    def attempt(check: Callable[[], T]) -> T | None:
        try:
            return check()
        except DataError as error:
            problems.extend(str(error).splitlines())
            return None

    train = attempt(lambda: read_train(project, with_bad=True))
    test = attempt(lambda: read_test(project))
    if train is not None:
        if try_split:
            attempt(lambda: split(project, train))
        attempt(lambda: _check_id_column(project))
    if test is not None and project.settings.sample_submission is not None:
        attempt(lambda: submission_form(project, test))
    if train is not None and test is not None:
        attempt(lambda: _check_overlap(project, train, test))
    for name in meta_files:
        if name is not None:
            attempt(partial(read_folds, project, name))
    return list(dict.fromkeys(problems))


def split_groups(project: ProjectFolder, meta_file: str | None) -> list[str]:
    """Return the groups that a fold table spreads over several folds: a leak.

    Raises:
        DataError: The fold table cannot be read.
    """
    column = project.settings.group_column
    table = read_folds(project, meta_file)
    if column is None or column not in table.columns:
        return []
    folds_of = table.groupby(column)[FOLD_COLUMN].nunique()
    return [str(group) for group in folds_of.index[folds_of > 1]]


def _check_id_column(project: ProjectFolder) -> None:
    """Check that no other column has the name of the id column in preprocess's tables."""
    column = project.settings.id_column
    if column in ("data_type", "problem", "in", *COLUMNS):
        raise DataError(
            f"{project.source_files[0]}: id_column: {column}: preprocess writes a column of this "
            "name; rename it in the tables"
        )


def _check_overlap(project: ProjectFolder, train: pd.DataFrame, test: pd.DataFrame) -> None:
    settings = project.settings
    both = test[settings.id_column][test[settings.id_column].isin(train[settings.id_column])]
    if len(both):
        raise DataError(
            f"{project.data_dir / settings.test_csv}: column {settings.id_column}: {len(both)} "
            f"ids are in {settings.train_csv} too, the first is {both.iloc[0]}; an image is either "
            "labelled or to predict"
        )
