"""The inputs of the statistics and folds."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from foldsmith.data.folds import MAX_CLASSES
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import image_paths, read_table, targets_are_classes
from foldsmith.steps.data_hashes import hash_images, hash_tables, intensity_range
from foldsmith.steps.manifest import Inputs
from foldsmith.utils.flatten import flatten
from foldsmith.utils.hashing import FileHashes


def preprocess_inputs(project: ProjectFolder, hashes: FileHashes) -> Inputs:
    """Return the inputs of the statistics and folds, as today's files give them."""
    settings = project.settings
    train, test = (_table(project, name) for name in (settings.train_csv, settings.test_csv))
    paths = image_paths(project, train) + image_paths(project, test)
    return inputs_read(project, train, hash_tables(project, hashes), hash_images(paths, hashes))


def inputs_read(
    project: ProjectFolder, train: pd.DataFrame, tables: Mapping[str, str], images: str
) -> Inputs:
    """Return the inputs of the statistics and folds, as they were read.

    Args:
        project: The project.
        train: The train table.
        tables: As :func:`hash_tables` returns them.
        images: As :func:`hash_images` returns it.
    """
    keys = (
        *("data_dir", "train_csv", "test_csv", "image_path", "id_column", "target_column"),
        *("group_column", "folds", *project.form.project_keys),
    )
    return {
        "project.yml": _values(project, keys),
        "many classes": _are_many_classes(project, train),
        "files": dict(tables),
        "images": images,
        **intensity_range(project),
    }


def _are_many_classes(project: ProjectFolder, train: pd.DataFrame) -> bool:
    """Return whether more target values than are strata by themselves are spread as classes."""
    return (
        "Stratified" in project.settings.folds.method
        and bool(project.form.class_values)
        and set(project.form.columns) <= set(train.columns)
        and train[project.form.columns[0]].nunique() > MAX_CLASSES
        and targets_are_classes(project, train)
    )


def _table(project: ProjectFolder, name: str) -> pd.DataFrame:
    """Read a table with every row, those with unreadable images included."""
    column = project.settings.id_column
    return read_table(project.data_dir / name, [column], column, may_be_empty=True)


def _values(project: ProjectFolder, keys: Iterable[str]) -> dict[str, Any]:
    values = project.settings.model_dump(mode="json")
    return flatten({key: values[key] for key in keys})
