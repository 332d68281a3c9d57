"""The tables of a new project, made from the rows that were read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from foldsmith.errors import DataError
from foldsmith.new.survey.columns import Source
from foldsmith.new.survey.guesses import locate
from foldsmith.new.survey.images import ImageFolder, ids_of
from foldsmith.new.survey.labels import Labels
from foldsmith.new.survey.targets import Target
from foldsmith.project.number_columns import numbers
from foldsmith.utils.formatting import counted

# The links to the images in the project's folder of data.
IMAGES, TEST_IMAGES = "images", "test_images"


@dataclass(frozen=True)
class Folders:
    """The folders of images.

    Attributes:
        images: The labelled images, and those to predict if they lie there too.
        others: The images to predict, if they lie elsewhere.
    """

    images: ImageFolder
    others: ImageFolder | None

    @property
    def all(self) -> list[ImageFolder]:
        """Both folders, or the only one."""
        return [self.images] if self.others is None else [self.images, self.others]

    @property
    def links(self) -> dict[str, Path]:
        """Name of each link in the project -> its folder."""
        return dict(zip((IMAGES, TEST_IMAGES), (one.folder for one in self.all), strict=False))


@dataclass(frozen=True)
class ReadRows:
    """The rows of the tables that are used.

    Attributes:
        train: The train table.
        test: The test table, if there is one.
        id_column: Column of the ids.
        target_column: Column of the targets; of labels in several columns their names.
        labels: The labels, where an image has several.
        paths: Image of each train row, relative to its folder.
        skipped: The rows that are left out, with the reason.
        one_hot: The target column was made of columns of 0 and 1 with exactly one 1 in each row.
    """

    train: Source
    test: Source | None
    id_column: str
    target_column: str
    labels: Labels | None
    paths: list[str]
    skipped: list[dict[str, str]]
    one_hot: bool = False


@dataclass(frozen=True)
class NewTables:
    """The tables of the new project.

    Attributes:
        train: The train table, with paths and targets.
        test: The test table, with paths.
        path_column: Column of the paths.
        target_column: Column of the targets.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    path_column: str
    target_column: str


def new_tables(
    files: tuple[Path | None, Path | None],
    rows: ReadRows,
    folders: Folders,
    target: Target | Labels,
    ordered: bool,
) -> NewTables:
    """Return the tables of the project: the rows that were read, with paths and usable targets.

    Args:
        files: The train table and the test table, for messages.
        rows: The rows.
        folders: The folders of the images.
        target: The target of the train rows; several labels or numbers stay as they are.
        ordered: Whether the target is a scale.

    Raises:
        DataError: An image has two rows.
    """
    source, test, target_column = rows.train, rows.test, rows.target_column
    path_column = _free_name("path", source, test)
    train = source.table.assign(**{path_column: below(IMAGES, rows.paths)})
    if isinstance(target, Labels):
        pass
    elif not ordered:
        train[target_column] = target.labels
    elif target.classes:
        target_column = _free_name("target", source, test)
        train[target_column] = target.values.astype(int)
    elif numbers(train[target_column]).isna().any():
        train[target_column] = target.values
    of_test = (path_column, folders.images, folders.others, source)
    new_test = _test_table(test, rows.id_column, *of_test)
    _refuse_overlap(files, rows.id_column, path_column, train, new_test)
    return NewTables(train, new_test, path_column, target_column)


def _test_table(
    test: Source | None,
    id_column: str,
    path_column: str,
    images: ImageFolder,
    others: ImageFolder | None,
    train: Source,
) -> pd.DataFrame:
    """Return the table of the images to predict; without rows if there are none."""
    prefix = IMAGES if others is None else TEST_IMAGES
    if test is not None:
        test.has(id_column, "the ids")
        paths = locate(test, id_column, others or images)
        return test.table.assign(**{path_column: below(prefix, paths)})
    if others is None:
        return pd.DataFrame({id_column: [], path_column: []}, dtype=object)
    ids = ids_of(others, prefix, train.table[id_column])
    return pd.DataFrame({id_column: ids, path_column: below(prefix, others.names)}, dtype=object)


def _refuse_overlap(
    files: tuple[Path | None, Path | None],
    id_column: str,
    path_column: str,
    train: pd.DataFrame,
    test: pd.DataFrame,
) -> None:
    # By its image too: 7 and 7.jpg are two ids of one.
    twice = train[train[path_column].duplicated(keep=False)]
    if len(twice):
        raise DataError(
            f"{files[0]}: column {id_column}: {', '.join(twice[id_column].head(2))} name the "
            f"same image, {twice[path_column].iloc[0]}; keep one row of each image"
        )
    both = test[id_column].isin(train[id_column]) | test[path_column].isin(train[path_column])
    if both.any():
        raise DataError(
            f"{files[1]}: column {id_column}: "
            f"{counted(both.sum(), 'image is', 'images are')} in {files[0]} too, the "
            f"first is {test[id_column][both].iloc[0]}; an image is either labelled or to predict"
        )


def _free_name(name: str, train: Source, test: Source | None) -> str:
    """Return a name that no column has yet."""
    taken = {*train.table.columns, *([] if test is None else test.table.columns)}
    while name in taken:
        name = f"new_{name}"
    return name


def below(folder: str, paths: Sequence[str]) -> list[str]:
    """Return paths below a folder, with ``/``."""
    return [f"{folder}/{path}" for path in paths]
