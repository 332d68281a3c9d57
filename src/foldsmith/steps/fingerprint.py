"""The inputs of each step, as hashes of content."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from foldsmith.config import EnsembleSettings, Experiment
from foldsmith.config.backbones import snapshot_epochs
from foldsmith.config.named_files import named_files
from foldsmith.config.settings import HEAD_DECIDES
from foldsmith.data.folds import MAX_CLASSES
from foldsmith.data.image_table import IMG_INFO, STATS_BY_DATA
from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.own_files import files_behind, hashes_of
from foldsmith.project.tables import (
    group_column_of,
    hash_columns,
    image_paths,
    read_folds,
    read_table,
    read_test,
    read_train,
    readable_test,
    targets_are_classes,
)
from foldsmith.steps.config_used import tree_read, values_used
from foldsmith.steps.data_hashes import (
    hash_auxiliary,
    hash_folds,
    hash_images,
    hash_labels,
    hash_sample,
    hash_tables,
    intensity_range,
    learned_columns,
    learned_values,
    target_values,
)
from foldsmith.steps.manifest import PREPROCESS_MANIFEST, Inputs, read_manifest
from foldsmith.targets.metrics import Metric
from foldsmith.utils.flatten import flatten
from foldsmith.utils.hashing import FileHashes, hash_value

# Not read by a pretraining and by features, which learn no target.
_TARGET_SCALE = "globals/target_scale"
_OF_TARGETS = (_TARGET_SCALE, "globals/class_weights")

# Not read by a training.
_INFERENCE_ONLY = ("dataset/test", "loader/test", "globals/tta")

# Sections that inference does not read: it uses the weights of the training.
TRAINING_ONLY = (
    *("dataset/train", "dataset/mixup", "loader/train", "optimizer", "scheduler", "manager"),
    *("extensions", "globals/max_epoch", "globals/grad_accum", "globals/freeze_backbone"),
    *("globals/seed", "globals/head_epochs", "globals/ema_decay", "globals/auxiliary", "ema"),
    *("globals/head_init", "globals/validations", "model/pretrained"),
)


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
        "project.yml": _project_values(project, keys),
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


def check_preprocessed(experiment: Experiment, hashes: FileHashes) -> None:
    """Make sure that folds and statistics are what ``preprocess`` wrote.

    Raises:
        DataError: One was changed since.
    """
    project = experiment.project
    manifest = read_manifest(project.data_dir / PREPROCESS_MANIFEST)
    names = [STATS_BY_DATA, IMG_INFO]
    if experiment.globals.meta_file is None:
        names.append(project.fold_table.name)
    if manifest is None:
        return
    for name in names:
        made, found = manifest.outputs.get(name), hashes.of(project.data_dir / name)
        # A file that is gone is named by those who read it.
        if made is not None and found not in (made, "missing"):
            raise DataError(
                f"{project.data_dir / name}: was changed since preprocess wrote it; keep it under "
                "another name (globals/meta_file names a fold table), or run 'foldsmith "
                "preprocess' to have it made again"
            )


def pretrain_inputs(
    experiment: Experiment, types: Mapping[str, Callable[..., Any]], hashes: FileHashes
) -> Inputs:
    """Return the inputs of a pretraining: its configuration and every image.

    With a probe also, under ``probe``, what its values depend on, and so which backbone is the
    best: folds, targets and metric. The backbones themselves do not: see
    :func:`without_probe`.
    """
    project = experiment.project
    test = read_test(project)
    readable = test.iloc[readable_test(project, test)]
    paths = image_paths(project, read_train(project)) + image_paths(project, readable)
    check_preprocessed(experiment, hashes)
    without = (*_INFERENCE_ONLY, "probe")
    inputs: Inputs = {
        "config": values_used(experiment, (*without, *_OF_TARGETS)),
        "files": _files(experiment, types, hashes, without),
        "images": hash_images(paths, hashes),
        **intensity_range(project),
    }
    if experiment.tree.get("probe"):
        table = read_folds(project, experiment.globals.meta_file)
        config, files = values_used(experiment, _INFERENCE_ONLY), _files(experiment, types, hashes)
        inputs["probe"] = {
            **{key: value for key, value in config.items() if key not in inputs["config"]},
            **{key: value for key, value in files.items() if key not in inputs["files"]},
            **target_values(project),
            "metric": project.metric.for_points().title,
            **metric_files(project, hashes, project.metric.for_points()),
            "fold assignment": hash_folds(project, table),
            "targets": hash_columns(table, list(project.form.columns)),
            "probed backbones": sorted(snapshot_epochs(experiment.globals)),
        }
    return inputs


def without_probe(inputs: Inputs) -> Inputs:
    """Return the inputs of a pretraining's backbones, without its probe.

    Args:
        inputs: As :func:`pretrain_inputs` returns them.
    """
    return {name: value for name, value in inputs.items() if name not in ("probe", "sha256")}


def as_trained(experiment: Experiment) -> dict[str, Any]:
    """Return the values of a fine-tuning that its trainings depend on, by path."""
    return values_used(experiment, _INFERENCE_ONLY)


def train_inputs(
    experiment: Experiment, fold: int, types: Mapping[str, Callable[..., Any]], hashes: FileHashes
) -> Inputs:
    """Return the inputs of one fold's training: configuration, folds, labelled images."""
    project = experiment.project
    check_preprocessed(experiment, hashes)
    table = read_folds(project, experiment.globals.meta_file)
    return {
        "config": as_trained(experiment),
        "project.yml": learned_values(project),
        "fold": fold,
        "files": _files(experiment, types, hashes, _INFERENCE_ONLY)
        | metric_files(project, hashes, project.metric),
        "fold assignment": hash_folds(project, table),
        "targets": hash_labels(experiment, table),
        "auxiliary": hash_auxiliary(experiment, table, hashes),
        "images": hash_images(image_paths(project, table), hashes),
        **intensity_range(project),
    }


def infer_inputs(
    experiment: Experiment,
    checkpoint: str,
    snapshots: Mapping[str, str],
    types: Mapping[str, Callable[..., Any]],
    hashes: FileHashes,
) -> Inputs:
    """Return the inputs of an inference.

    Args:
        experiment: The fine-tuning.
        checkpoint: Which snapshots.
        snapshots: Name of each fold -> hash of its snapshot.
        types: The registry.
        hashes: Hashes of files.
    """
    project = experiment.project
    check_preprocessed(experiment, hashes)
    table = read_folds(project, experiment.globals.meta_file)
    test = read_test(project)
    readable = test.iloc[readable_test(project, test)]
    paths = image_paths(project, table) + image_paths(project, readable)
    experiment = without_pretrained(experiment)
    lasting = new_image_inputs(experiment, types, hashes)
    return lasting | {
        "checkpoint": checkpoint,
        "files": lasting["files"] | hash_sample(project, hashes),
        "fold assignment": hash_folds(project, table),
        "targets": hash_labels(experiment, table),
        "test ids": hash_columns(test, [project.settings.id_column]),
        "images": hash_images(paths, hashes),
        "snapshots": dict(snapshots),
    }


def new_image_inputs(
    experiment: Experiment, types: Mapping[str, Callable[..., Any]], hashes: FileHashes
) -> Inputs:
    """Return what predictions of new images depend on, beside the models of the folds.

    Some of the inputs of an inference, or of a fit of frozen features.
    """
    project = experiment.project
    without = () if experiment.globals.task in HEAD_DECIDES else TRAINING_ONLY
    return {
        "config": values_used(experiment, without),
        "project.yml": learned_values(project),
        "files": _files(experiment, types, hashes, without)
        | metric_files(project, hashes, project.metric),
        **intensity_range(project),
    }


def features_inputs(
    experiment: Experiment, types: Mapping[str, Callable[..., Any]], hashes: FileHashes
) -> Inputs:
    """Return the inputs of the features of a frozen backbone: all but the head and targets."""
    project = experiment.project
    check_preprocessed(experiment, hashes)
    table = read_folds(project, experiment.globals.meta_file)
    test = read_test(project)
    readable = test.iloc[readable_test(project, test)]
    paths = image_paths(project, table) + image_paths(project, readable)
    return {
        "config": values_used(experiment, ("head", *_OF_TARGETS)),
        "files": _files(experiment, types, hashes, ("head",)),
        **intensity_range(project),
        "images": hash_images(paths, hashes),
    }


def frozen_inputs(
    experiment: Experiment, types: Mapping[str, Callable[..., Any]], hashes: FileHashes
) -> Inputs:
    """Return the inputs of a head on frozen features: the features' own, folds and targets."""
    project = experiment.project
    features = features_inputs(experiment, types, hashes)
    lasting = new_image_inputs(experiment, types, hashes)
    table = read_folds(project, experiment.globals.meta_file)
    names = (*learned_columns(project), group_column_of(project, table))
    return lasting | {
        "files": lasting["files"] | hash_sample(project, hashes),
        "fold assignment": hash_folds(project, table),
        "targets": hash_columns(table, [name for name in names if name is not None]),
        "images": features["images"],
        "test ids": hash_columns(read_test(project), [project.settings.id_column]),
    }


def ensemble_inputs(
    experiment: Experiment, predictions: Mapping[str, str], hashes: FileHashes
) -> Inputs:
    """Return the inputs of an ensemble. Blends ignore the weights of rows.

    Args:
        experiment: The ensemble.
        predictions: Output folder of each member -> hash of its predictions.
        hashes: Hashes of files.
    """
    project = experiment.project
    check_preprocessed(experiment, hashes)
    table = read_folds(project, experiment.globals.meta_file)
    test = read_test(project)
    settings = EnsembleSettings.model_validate(experiment.tree["ensemble"])
    files = hash_sample(project, hashes) | metric_files(project, hashes, project.metric)
    if "stack" in settings.methods:
        files[IMG_INFO] = hashes.of(project.data_dir / IMG_INFO)
    group = group_column_of(project, table)
    searches = "optuna" in (settings.method, *settings.methods)
    ignored = {"anytime"} | (set() if searches else {"n_trials", "weight_step"})
    return {
        "config": flatten(settings.model_dump(mode="json", exclude=ignored))
        | {"globals/seed": experiment.globals.seed}
        | {_TARGET_SCALE: experiment.globals.target_scale},
        "project.yml": target_values(project),
        "files": files,
        "groups": hash_columns(table, [group]) if group else None,
        "fold assignment": hash_folds(project, table),
        "targets": hash_columns(table, list(project.form.columns)),
        "test ids": hash_columns(test, [project.settings.id_column]),
        "unreadable": hash_value(readable_test(project, test).tolist()),
        "predictions": dict(predictions),
    }


def without_pretrained(experiment: Experiment) -> Experiment:
    """Return a fine-tuning whose weights come from its snapshots, as in inference."""
    if "pretrained" in experiment.tree["model"]:
        return experiment.with_values({"model/pretrained": None})
    return experiment


def _table(project: ProjectFolder, name: str) -> pd.DataFrame:
    """Read a table with every row, those with unreadable images included."""
    column = project.settings.id_column
    return read_table(project.data_dir / name, [column], column, may_be_empty=True)


def _project_values(project: ProjectFolder, keys: Iterable[str]) -> dict[str, Any]:
    values = project.settings.model_dump(mode="json")
    return flatten({key: values[key] for key in keys})


def _files(
    experiment: Experiment,
    types: Mapping[str, Callable[..., Any]],
    hashes: FileHashes,
    without: tuple[str, ...] = (),
) -> dict[str, str]:
    """Return the hashes of the files that parts of an experiment come from.

    Args:
        experiment: The experiment.
        types: The registry.
        hashes: Hashes of files.
        without: As for :func:`~foldsmith.steps.config_used.tree_read`.

    Raises:
        ConfigError: Python of the project was edited since it was imported, or a file that it
            reads is not there.
    """
    project, tree = experiment.project, tree_read(experiment.wired, without)
    found: dict[str, Path] = {}
    of_python = hashes_of(project.folder, files_behind(project.own_files, tree), hashes)
    for node in _calls(tree):
        if node["type"] == "ChannelStatistics":
            found[STATS_BY_DATA] = project.data_dir / STATS_BY_DATA
    for name in named_files(tree).values():
        found[name] = project.path(name)
    return of_python | {name: hashes.of(path) for name, path in sorted(found.items())}


def metric_files(project: ProjectFolder, hashes: FileHashes, metric: Metric) -> dict[str, str]:
    """Return the hashes of the files that a metric of the project's own is made from.

    Results depend on it although no experiment names it.
    """
    own = [file for file in project.own_files if metric.name in file.offers]
    return hashes_of(project.folder, own, hashes)


def _calls(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if isinstance(node.get("type"), str):
            yield node
        for child in node.values():
            yield from _calls(child)
    elif isinstance(node, list):
        for child in node:
            yield from _calls(child)
