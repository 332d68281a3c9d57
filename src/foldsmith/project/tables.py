"""The tables of a project: labelled images, images to predict, folds."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from string import Formatter

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.errors import DataError, one_line
from foldsmith.project import ProjectFolder
from foldsmith.project.csv_files import line_numbers, parse
from foldsmith.project.number_columns import as_numbers, numbers
from foldsmith.targets.class_values import off_values
from foldsmith.utils.formatting import counted
from foldsmith.utils.hashing import hash_texts
from foldsmith.utils.memo import once
from foldsmith.utils.path_list import Paths

FOLD_COLUMN = "fold"
# Groups that near-identical images have joined, where preprocess was asked to.
MERGED_COLUMN = "merged_group"

# Rows that preprocess was told to leave out: data_type, id, path, problem.
BAD_IMAGES = "bad_images.csv"


def read_table(
    path: Path,
    columns: Iterable[str],
    id_column: str | None = None,
    unique: bool = True,
    may_be_empty: bool = False,
    number_columns: Iterable[str] = (),
) -> pd.DataFrame:
    """Read a CSV and check its required columns.

    Every value is the text that stands there, whatever it looks like: ``007``, ``1.10``, ``NA``
    and ``TRUE`` name something. A gap is an empty text.

    Args:
        path: The file, as for :func:`~foldsmith.project.csv_files.parse`.
        columns: Columns that must be there, once each.
        id_column: Column whose values must be present.
        unique: Whether an id may stand only once.
        may_be_empty: Whether there may be a line of column names alone.
        number_columns: Columns that are converted to numbers, if present: int64 if all values are
            whole, else float64 with NaN for other values.

    Returns:
        The table, its rows in the file's order.

    Raises:
        DataError: The file is missing, empty or unreadable, or one line per problem: a
            column is missing or stands twice, an id is missing or stands twice.
    """
    parsed = once(("table", path), lambda: parse(path))
    table: pd.DataFrame = parsed.table.copy()
    problems = [
        parsed.doubled[column] for column in dict.fromkeys(columns) if column in parsed.doubled
    ]
    problems += _table_problems(path, table, columns, id_column, unique, may_be_empty)
    if problems:
        raise DataError("\n".join(f"{path}: {problem}" for problem in problems))
    for column in set(number_columns) & set(table.columns):
        table[column] = as_numbers(table[column])
    return table


def _table_problems(
    path: Path,
    table: pd.DataFrame,
    columns: Iterable[str],
    id_column: str | None,
    unique: bool,
    may_be_empty: bool,
) -> Iterable[str]:
    for column in columns:
        if column not in table.columns:
            yield f"no column {column!r} (it has: {', '.join(map(str, table.columns))})"
    if table.empty and not may_be_empty:
        yield "has a line of column names but no rows"
    elif id_column in table.columns:
        empty = table[id_column] == ""
        if empty.any():
            yield f"column {id_column}: {empty.sum()} empty ids, the first in {_lines(path, empty)}"
        twice = table[id_column].duplicated() & ~empty
        if unique and twice.any():
            value = table[id_column][twice].iloc[0]
            yield (
                f"column {id_column}: {value!r} stands more than once ({twice.sum()} such rows, "
                f"{_lines(path, twice)})"
            )


def _lines(path: Path, wrong: pd.Series) -> str:
    """Return the first lines of a file in which rows are wrong, as text."""
    numbers = line_numbers(path, np.flatnonzero(wrong.to_numpy())[:3].tolist())
    more = ", ..." if wrong.sum() > 3 else ""
    return f"line{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}{more}"


def read_train(project: ProjectFolder, with_bad: bool = False) -> pd.DataFrame:
    """Return the table of the labelled images.

    Args:
        project: The project.
        with_bad: Also the rows whose images preprocess left out.

    Raises:
        DataError: As :func:`read_table`; also, one line per problem: a target is missing, no
            number or outside the project's ``target_range``, a group is missing, an image
            would lie outside the image folder.
    """
    settings = project.settings
    path = project.data_dir / settings.train_csv
    columns = [settings.id_column, *project.form.columns]
    if settings.group_column is not None:
        columns.append(settings.group_column)
    columns += weight_columns(project)
    table = read_table(
        path, columns, settings.id_column, number_columns=project.form.number_columns
    )
    problems = [*_value_problems(project, path, table), *path_problems(project, table)]
    if MERGED_COLUMN in table.columns:
        problems.append(
            f"column {MERGED_COLUMN}: preprocess writes one of this name into the fold table; "
            "rename yours"
        )
    if problems:
        raise DataError("\n".join(f"{path}: {problem}" for problem in problems))
    return table if with_bad else _without_bad(project, table)


def read_test(project: ProjectFolder) -> pd.DataFrame:
    """Return the table of the images to predict, all of them; it may have no rows.

    Raises:
        DataError: As :func:`read_table`, or an image would lie outside the image folder.
    """
    settings = project.settings
    path = project.data_dir / settings.test_csv
    table = read_table(path, [settings.id_column], settings.id_column, may_be_empty=True)
    problems = path_problems(project, table)
    if problems:
        raise DataError("\n".join(f"{path}: {problem}" for problem in problems))
    return table


def readable_test(project: ProjectFolder, table: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return the rows of the test table whose images preprocess could read."""
    bad = bad_ids(project, "test")
    return np.flatnonzero(~table[project.settings.id_column].isin(bad).to_numpy())


def _value_problems(project: ProjectFolder, path: Path, table: pd.DataFrame) -> Iterable[str]:
    settings = project.settings

    def lines(wrong: pd.Series) -> str:
        return _lines(path, wrong)

    yield from project.form.problems(table, table[settings.id_column], lines, project.metric)
    if settings.group_column is not None:
        empty = gaps(table[settings.group_column])
        if empty.any():
            yield f"column {settings.group_column}: {_without_group(path, empty)}"
    yield from _weight_problems(project, path, table)


def weight_columns(project: ProjectFolder) -> list[str]:
    """Return the columns of the train table with weights of rows, each once."""
    settings = project.settings
    named = (settings.sample_weight_column, settings.metric_weight_column)
    return list(dict.fromkeys(name for name in named if name is not None))


def _weight_problems(project: ProjectFolder, path: Path, table: pd.DataFrame) -> Iterable[str]:
    for column in weight_columns(project):
        weights = numbers(table[column])
        # NaN is no number either, and infinity would leave the others nothing.
        wrong = ~((weights >= 0) & (weights < np.inf))
        if wrong.any():
            yield (
                f"column {column}: {counted(int(wrong.sum()), 'weight is', 'weights are')} "
                f"missing, negative or no number, such as {str(table[column][wrong].iloc[0])!r} "
                f"({_lines(path, wrong)}); weights must be numbers of at least 0"
            )
        elif not (weights > 0).any():
            yield f"column {column}: every weight is 0; one at least must be above 0"
        elif column == project.settings.metric_weight_column and FOLD_COLUMN in table:
            judged = weights.groupby(table[FOLD_COLUMN]).max()
            if (judged == 0).any():
                yield (
                    f"column {column}: every row of fold {(judged == 0).idxmax()} has the weight "
                    "0, so that metric_weight_column leaves nothing of it to be judged; take "
                    "fewer folds, or another folds/seed in project.yml"
                )


def _without_group(path: Path, empty: pd.Series) -> str:
    return f"{counted(int(empty.sum()), 'row has', 'rows have')} no group, {_lines(path, empty)}"


def targets_are_classes(project: ProjectFolder, table: pd.DataFrame) -> bool:
    """Return whether every target is a class: the name of one, or the value of one."""
    values = project.form.class_values
    return bool(values) and not off_values(project.form.read(table), values).any()


def gaps(column: pd.Series) -> pd.Series:
    """Return which values of a column of text are gaps: nothing, or blanks alone."""
    return column.str.strip() == ""


def path_problems(project: ProjectFolder, table: pd.DataFrame) -> list[str]:
    """Return the rows whose image would lie outside the image folder, as problems.

    The image folder is the part of ``image_path`` before the first ``{``.
    """
    folder = PurePath(project.settings.image_path.partition("{")[0] + "x").parent
    inside = _normal(str(project.data_dir / folder)) + "/"
    paths = image_paths(project, table)
    if paths.all_plainly_below(f"{folder}/" if str(folder) != "." else ""):
        return []
    problems = [
        f"column {project.settings.id_column}: {name!r} leads out of the image folder {folder}"
        for name, path in zip(table[project.settings.id_column], paths.texts(), strict=True)
        if not _normal(path).startswith(inside)
    ]
    more = len(problems) - 5
    return [*problems[:5], f"... and {more} more such ids"] if more > 0 else problems


def _normal(path: str) -> str:
    """Return a path without ``..``; links are not followed, they are the owner's choice."""
    parts: list[str] = []
    for part in path.replace("\\", "/").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def bad_ids(project: ProjectFolder, data_type: str) -> set[str]:
    """Return the ids of ``train`` or ``test`` images that preprocess left out, if any."""
    path = project.data_dir / BAD_IMAGES
    if not path.is_file():
        return set()
    id_column = project.settings.id_column
    table = read_table(path, ["data_type", id_column], id_column)
    return set(table[id_column][table["data_type"] == data_type])


def _without_bad(project: ProjectFolder, table: pd.DataFrame) -> pd.DataFrame:
    """Return the train rows whose images could be read."""
    bad = bad_ids(project, "train")
    if not bad:
        return table
    return table[~table[project.settings.id_column].isin(bad)].reset_index(drop=True)


def read_folds(project: ProjectFolder, meta_file: str | None) -> pd.DataFrame:
    """Return the train table with the column ``fold``.

    Args:
        project: The project.
        meta_file: The table, relative to the project folder; None for the one that
            ``preprocess`` writes.

    Raises:
        DataError: The table is missing, has folds other than 0..n_splits-1, or targets that
            the train table could not have.
    """
    settings = project.settings
    path = project.fold_table if meta_file is None else project.path(meta_file)
    if not path.is_file():
        remedy = (
            "run 'foldsmith preprocess' first" if meta_file is None else "see globals/meta_file"
        )
        raise DataError(f"{path}: no such file; {remedy}")
    columns = [settings.id_column, *project.form.columns, FOLD_COLUMN]
    columns += weight_columns(project)
    as_number = [*project.form.number_columns, FOLD_COLUMN]
    table = read_table(path, columns, settings.id_column, number_columns=as_number)
    table = _without_bad(project, table)
    # Only its own table does preprocess write anew.
    remedy = "run 'foldsmith preprocess' again" if meta_file is None else "mend this table"
    if set(table[FOLD_COLUMN]) != set(range(project.n_splits)):
        raise DataError(
            f"{path}: column {FOLD_COLUMN}: must hold 0..{project.n_splits - 1}, "
            f"the folds of project.yml; {remedy}"
        )
    problems = [*path_problems(project, table), *_weight_problems(project, path, table)]
    group = group_column_of(project, table)
    if group is not None and gaps(table[group]).any():
        problems.append(f"column {group}: {_without_group(path, gaps(table[group]))}")
    if problems:
        raise DataError("\n".join(f"{path}: {problem}" for problem in problems))
    wrong = project.form.wrong(table).to_numpy()
    if wrong.any():
        columns = list(project.form.columns)
        raise DataError(
            f"{path}: column{'s' if len(columns) > 1 else ''} {', '.join(columns)}: "
            f"{counted(wrong.sum(), 'target is', 'targets are')} missing or "
            f"outside target_range; {remedy}"
        )
    return table


def image_paths(project: ProjectFolder, table: pd.DataFrame) -> Paths:
    """Return the path of each row's image.

    Raises:
        DataError: The template ``image_path`` names a column that the table lacks.
    """
    template = project.settings.image_path
    try:
        # {image.name} and {image[0]} are of the column image.
        columns = list(dict.fromkeys(re.split(r"[.\[]", field)[0] for field in _fields(template)))
        values = [table[column].tolist() for column in columns]
        rows = zip(*values, strict=True) if values else [()] * len(table)
        names = (template.format(**dict(zip(columns, row, strict=True))) for row in rows)
        return Paths(project.data_dir, names)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{project.source_files[0]}: image_path: {template!r} does not fit the table's "
            f"columns ({', '.join(map(str, table.columns))}): {one_line(error)}{_as_text(error)}"
        ) from None


def _as_text(error: Exception) -> str:
    """Return a remedy for a format that takes numbers alone, such as ``{id:05d}``."""
    if "type 'str'" not in str(error):
        return ""
    return "; values of tables are text, which is filled up with zeros by {column:0>5}"


def _fields(template: str) -> Iterator[str]:
    """Yield the fields of a ``str.format`` template, also within ``{a:{b}}``."""
    for _, field, spec, _ in Formatter().parse(template):
        if field is not None:
            yield field
            yield from _fields(spec or "")


def targets_of(project: ProjectFolder, table: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the targets, float64, shape (n,), or (n, n_outputs) by the form of the target."""
    return project.form.read(table)


def sample_weights_of(
    project: ProjectFolder, table: pd.DataFrame
) -> npt.NDArray[np.float64] | None:
    """Return the weight of each row, shape (n,); None without a ``sample_weight_column``."""
    column = project.settings.sample_weight_column
    return None if column is None else numbers(table[column]).to_numpy(np.float64, copy=True)


def metric_weights_of(
    project: ProjectFolder, table: pd.DataFrame
) -> npt.NDArray[np.float64] | None:
    """Return the weight of each row in the metric, with the mean 1, shape (n,).

    None without a ``metric_weight_column``, or if all weights are equal.
    """
    column = project.settings.metric_weight_column
    if column is None:
        return None
    weights = numbers(table[column]).to_numpy(np.float64, copy=True)
    return None if np.ptp(weights) == 0 else weights / weights.mean()


def group_column_of(project: ProjectFolder, table: pd.DataFrame) -> str | None:
    """Return the column of a fold table whose equal values stay together, if there is one.

    The column of merged near-identical images comes before the project's own group column, which
    it contains if folds are made by group. A table made by hand may lack both.
    """
    own = project.settings.group_column
    by_group = own is None or "Group" in project.settings.folds.method
    for column in (MERGED_COLUMN if by_group else None, own):
        if column is not None and column in table.columns:
            return column
    return None


def groups_of(project: ProjectFolder, table: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return the number of each row's group, from 0 on; each image is one if there is no column.

    Args:
        project: The project.
        table: The fold table.

    Returns:
        int64, shape (n,).
    """
    column = group_column_of(project, table)
    if column is None:
        return np.arange(len(table))
    return np.unique(table[column].astype(str), return_inverse=True)[1].astype(np.int64)


def hash_columns(table: pd.DataFrame, columns: list[str]) -> str:
    """Return a SHA-256 of the columns' values in the order of the rows."""
    return hash_texts(map(str, table[column]) for column in columns)
