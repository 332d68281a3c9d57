"""The inputs of predictions: of an inference, of frozen features and of heads on them."""

from collections.abc import Callable, Mapping
from typing import Any

from foldsmith.config import Experiment
from foldsmith.config.settings import HEAD_DECIDES
from foldsmith.project.tables import group_column_of, hash_columns, read_folds, read_test
from foldsmith.steps.config_used import values_used
from foldsmith.steps.data_hashes import (
    hash_all_images,
    hash_folds,
    hash_labels,
    hash_sample,
    intensity_range,
    learned_columns,
    learned_values,
)
from foldsmith.steps.inputs.shared import (
    OF_TARGETS,
    check_preprocessed,
    files_of,
    metric_files,
    without_pretrained,
)
from foldsmith.steps.manifest import Inputs
from foldsmith.utils.hashing import FileHashes

# Sections that inference does not read: it uses the weights of the training.
TRAINING_ONLY = (
    *("dataset/train", "dataset/mixup", "loader/train", "optimizer", "scheduler", "manager"),
    *("extensions", "globals/max_epoch", "globals/grad_accum", "globals/freeze_backbone"),
    *("globals/seed", "globals/head_epochs", "globals/ema_decay", "globals/auxiliary", "ema"),
    *("globals/head_init", "globals/validations", "model/pretrained"),
)


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
    experiment = without_pretrained(experiment)
    lasting = new_image_inputs(experiment, types, hashes)
    return lasting | {
        "checkpoint": checkpoint,
        "files": lasting["files"] | hash_sample(project, hashes),
        "fold assignment": hash_folds(project, table),
        "targets": hash_labels(experiment, table),
        "test ids": hash_columns(test, [project.settings.id_column]),
        "images": hash_all_images(project, table, test, hashes),
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
        "files": files_of(experiment, types, hashes, without)
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
    return {
        "config": values_used(experiment, ("head", *OF_TARGETS)),
        "files": files_of(experiment, types, hashes, ("head",)),
        **intensity_range(project),
        "images": hash_all_images(project, table, test, hashes),
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
