"""Hashes of a project's tables, targets and images, and of the settings by which they are read."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from foldsmith.config import Experiment
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import (
    FOLD_COLUMN,
    hash_columns,
    image_paths,
    readable_test,
    weight_columns,
)
from foldsmith.steps.manifest import Inputs
from foldsmith.utils.hashing import FileHashes, hash_texts, hash_value
from foldsmith.utils.memo import once
from foldsmith.utils.path_list import Paths


def hash_tables(project: ProjectFolder, hashes: FileHashes) -> dict[str, str]:
    """Return the hash of each of the tables that preprocess reads."""
    names = (project.settings.train_csv, project.settings.test_csv)
    return {name: hashes.of(project.data_dir / name) for name in names}


def hash_folds(project: ProjectFolder, table: pd.DataFrame) -> str:
    """Return the hash of which row is in which fold, in the order of the rows."""
    return hash_columns(table, [project.settings.id_column, FOLD_COLUMN])


def hash_images(paths: Paths, hashes: FileHashes) -> str:
    """Return the hash of the names and contents of images, in their order."""
    return once(("images", paths.sha256()), lambda: hash_contents(paths, hashes.each(paths)))


def hash_all_images(
    project: ProjectFolder, table: pd.DataFrame, test: pd.DataFrame, hashes: FileHashes
) -> str:
    """Return :func:`hash_images` of the images of a table and of the readable test images."""
    readable = test.iloc[readable_test(project, test)]
    return hash_images(image_paths(project, table) + image_paths(project, readable), hashes)


def hash_contents(paths: Paths, digests: Iterable[str]) -> str:
    """Return :func:`hash_images` of images whose hashes are known."""
    return hash_texts([paths.names(), digests])


def intensity_range(project: ProjectFolder) -> Inputs:
    """Return the scale of images with more than 8 bits per channel; nothing if there is none."""
    return {} if project.intensity_range is None else {"intensity": list(project.intensity_range)}


def learned_columns(project: ProjectFolder) -> list[str]:
    """Return the columns that a training depends on: targets, and weights of the rows."""
    return [*project.form.columns, *weight_columns(project)]


def judged_columns(project: ProjectFolder) -> list[str]:
    """Return the columns that scores depend on: targets, and weights of the rows in the metric."""
    weights = project.settings.metric_weight_column
    return [*project.form.columns, *(() if weights is None else (weights,))]


def hash_labels(experiment: Experiment, table: pd.DataFrame) -> str:
    """Return the hash of the targets, and of the continuous column if that is learned."""
    settings = experiment.project.settings
    targets = hash_columns(table, learned_columns(experiment.project))
    continuous = settings.continuous
    if not experiment.globals.continuous_target or continuous is None:
        return targets
    labels = hash_columns(table, [name for name in (continuous.column,) if name in table])
    return hash_value([targets, labels, continuous.model_dump(mode="json")])


def hash_auxiliary(
    experiment: Experiment, table: pd.DataFrame, hashes: FileHashes
) -> dict[str, str]:
    """Return the hash of each learned auxiliary target: its settings and its column."""
    project = experiment.project
    found = {}
    for name in experiment.globals.auxiliary:
        settings = project.settings.auxiliary.get(name)
        if settings is None:
            continue  # the training will say so
        if settings.table is not None:
            content = hashes.of(project.data_dir / settings.table)
        else:
            content = hash_columns(table, [c for c in (settings.column,) if c in table])
        found[name] = hash_value([settings.model_dump(mode="json"), content])
    return found


def target_values(project: ProjectFolder) -> dict[str, Any]:
    """Return the metric and the form of the target, on which scores and blends depend."""
    weights = project.settings.metric_weight_column
    of_rows = {} if weights is None else {"metric_weight_column": weights}
    return {"metric": project.metric.title, **of_rows, **project.form.facts()}


def learned_values(project: ProjectFolder) -> dict[str, Any]:
    """Return :func:`target_values` and the column of the weights, on which trainings depend too."""
    weights = project.settings.sample_weight_column
    of_rows = {} if weights is None else {"sample_weight_column": weights}
    return target_values(project) | of_rows


def hash_sample(project: ProjectFolder, hashes: FileHashes) -> dict[str, str]:
    """Return the hash of the sample submission by its name; nothing if there is none."""
    name = project.settings.sample_submission
    return {} if name is None else {name: hashes.of(project.data_dir / name)}
