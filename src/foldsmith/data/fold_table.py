"""The folds of a project, and their summary."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.data.folds import (
    MAX_CLASSES,
    ClassSizes,
    assign_folds,
    few_groups_warning,
    own_folds,
    torn_groups,
)
from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import (
    FOLD_COLUMN,
    group_column_of,
    targets_are_classes,
)
from foldsmith.utils.formatting import brief

# Names of classes that fit beside each other in a table that is printed, in characters.
_WIDTH = 100
_NAME = 16

# Names of groups that often stand for a gap.
_LIKE_GAPS = {"na", "n/a", "#n/a", "<na>", "nan", "-nan", "null", "none", "nil"}


@dataclass(frozen=True)
class Split:
    """The labelled images in folds.

    Attributes:
        folds: Fold of each row, 0..n_splits-1, int64, shape (n,).
        how: Origin of the folds, as a line of text.
    """

    folds: npt.NDArray[np.int64]
    how: str


def split(
    project: ProjectFolder, train: pd.DataFrame, merged: npt.NDArray[np.int64] | None = None
) -> Split:
    """Split the labelled images: by a column ``fold`` of their table, else by the method.

    Args:
        project: The project.
        train: The train table, as :func:`~foldsmith.project.tables.read_train` returns it.
        merged: Number of each image's group, shape (n,), where near-identical images have joined
            groups.

    Raises:
        DataError: The rows cannot be split, or the column cannot be the folds.
    """
    if FOLD_COLUMN in train.columns:
        return _own_split(project, train, merged)
    settings = project.settings
    groups = train[settings.group_column] if settings.group_column else None
    targets = project.form.for_folds(project.form.read(train))
    classes = targets_are_classes(project, train)
    try:
        folds = assign_folds(settings.folds, targets, groups, merged, classes)
    except DataError as error:
        raise DataError(f"{project.data_dir / settings.train_csv}: {error}") from None
    return Split(folds, f"folds by {settings.folds.method}:")


def _own_split(
    project: ProjectFolder, train: pd.DataFrame, merged: npt.NDArray[np.int64] | None
) -> Split:
    """Return the folds of the train table's own column, after checking them.

    Raises:
        DataError: The column cannot be the folds.
    """
    settings = project.settings
    column = f"{project.data_dir / settings.train_csv}: column {FOLD_COLUMN}"
    remedy = f"mend the column {FOLD_COLUMN}, or rename it if it does not hold folds"
    try:
        own = own_folds(train[FOLD_COLUMN])
    except DataError as error:
        raise DataError(f"{column}: {error}; {remedy}") from None
    if own.n_splits != project.n_splits:
        raise DataError(
            f"{column}: holds {own.n_splits} folds, but folds/n_splits is "
            f"{project.n_splits}; set n_splits: {own.n_splits} in project.yml, or rename the "
            "column if it does not hold folds"
        )
    together = {}
    if "Group" in settings.folds.method and settings.group_column is not None:
        together[f"a group by {settings.group_column}"] = train[settings.group_column]
    if merged is not None:
        # Groups are whole, if the first check was passed: near-identical images may not be.
        together["near-identical images (folds/merge_near_duplicates)"] = pd.Series(merged)
    for what, groups in together.items():
        if problem := _torn_group(project, train, own.folds, what, groups):
            raise DataError(f"{column}: {problem}; {remedy}")
    shifted = " (its fold 1 is fold 0 here, and so on)" if own.first else ""
    return Split(
        own.folds,
        f"folds: column {FOLD_COLUMN} of {settings.train_csv}, {own.n_splits} folds{shifted}",
    )


def _torn_group(
    project: ProjectFolder,
    train: pd.DataFrame,
    folds: npt.NDArray[np.int64],
    what: str,
    groups: pd.Series,
) -> str | None:
    """Return an example of a group that is in several folds, for people; None if there is none."""
    torn = torn_groups(folds, groups)
    if not torn:
        return None
    rows = np.flatnonzero(groups.astype(str) == torn[0])
    other = rows[folds[rows] != folds[rows[0]]][0]
    one, two = train[project.settings.id_column].iloc[[rows[0], other]]
    return (
        f"{what} must stay in one fold, but ids {one} and {two} are in folds "
        f"{train[FOLD_COLUMN].iloc[rows[0]]} and {train[FOLD_COLUMN].iloc[other]} "
        f"({len(torn)} such cases)"
    )


def class_sizes(project: ProjectFolder, table: pd.DataFrame) -> ClassSizes | None:
    """Return how many images each class has; None where the targets are no classes.

    Args:
        project: The project.
        table: The train table or a fold table.
    """
    labels = project.form.indicators(table)
    if labels is not None:
        sizes = {str(name): int(n) for name, n in labels.sum().items()}
        return ClassSizes(sizes, kind="classes" if project.form.block_sizes else "labels")
    if not targets_are_classes(project, table):
        return None
    return ClassSizes.of(table[project.form.columns[0]], project.class_names or None)


def fold_table(project: ProjectFolder, table: pd.DataFrame) -> pd.DataFrame:
    """Return how many images are in each fold, of which targets, of how many groups.

    Args:
        project: The project.
        table: A fold table.

    Returns:
        A row per fold. Columns: each class, or if there are too many the number of classes that
        the fold has, or the quartiles of a continuous target, or the means of several numbers;
        images; groups, if there are groups. No two columns have the same name: where a class is
        called ``images``, the number of all is called ``all images``.
    """
    folds, found = table[FOLD_COLUMN], _by_target(project, table)
    totals = {"images": folds.value_counts().reindex(found.index)}
    group = group_column_of(project, table)
    if group is not None:
        totals["groups"] = table[group].groupby(folds).nunique()
    for name, counts in totals.items():
        while name in found.columns:
            name = f"all {name}"
        found[name] = counts
    return found


def _by_target(project: ProjectFolder, table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of :func:`fold_table` about the target."""
    folds, labels = table[FOLD_COLUMN], project.form.indicators(table)
    if labels is not None:
        if len(labels.columns) <= MAX_CLASSES:
            return labels.groupby(folds).sum()
        name = "classes" if project.form.block_sizes else "labels"
        return (labels.groupby(folds).sum() > 0).sum(axis=1).rename(name).to_frame()
    values = project.form.numbers_of(table)
    if values is not None:
        return values.iloc[:, :MAX_CLASSES].groupby(folds).mean().add_prefix("mean ")
    column = project.form.columns[0]
    targets = table[column]
    names = [brief(name, _NAME) for name in targets.unique()]
    if len(names) <= MAX_CLASSES and sum(len(name) + 2 for name in names) <= _WIDTH:
        found = pd.crosstab(folds, targets)
        if project.class_names:
            present = set(found.columns)
            found = found[[name for name in project.class_names if name in present]]
        elif targets.dtype == object:
            found = found[sorted(found.columns)]
    elif targets_are_classes(project, table):
        found = targets.groupby(folds).nunique().rename("classes").to_frame()
    else:
        found = pd.crosstab(folds, pd.qcut(targets, 4, duplicates="drop").astype(str))
    found.columns = pd.Index([str(name) for name in found.columns], name=brief(column, _NAME))
    return found


def fold_table_text(table: pd.DataFrame) -> str:
    """Return a :func:`fold_table` as it is printed: long names cut off, each on one line."""
    return table.rename(columns=lambda name: brief(name, _NAME)).to_string()


def fold_warnings(project: ProjectFolder, table: pd.DataFrame) -> list[str]:
    """Return warnings about the folds that affect the scores, a sentence each.

    Args:
        project: The project.
        table: A fold table.
    """
    found = list(project.form.notes(table))
    sizes = class_sizes(project, table)
    small = None if sizes is None else sizes.warning(project.n_splits)
    if small is not None:
        found.append(small)
    column = project.settings.group_column
    if column is not None and column in table.columns:
        counts = table[column].value_counts()
        few = few_groups_warning(len(counts))
        if few is not None:
            found.append(few)
        for name, count in counts[counts > 1].items():
            if str(name).strip().lower() in _LIKE_GAPS:
                found.append(
                    f"column {column}: {count:,} rows have the group {name}, which is taken for a "
                    "name, so that these images are one group; if they have no group, give each "
                    "one of its own"
                )
    return found
