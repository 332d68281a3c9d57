"""The inputs of the training of one fold."""

from collections.abc import Callable, Mapping
from typing import Any

from foldsmith.config import Experiment
from foldsmith.project.tables import image_paths, read_folds
from foldsmith.steps.config_used import values_used
from foldsmith.steps.data_hashes import (
    hash_auxiliary,
    hash_folds,
    hash_images,
    hash_labels,
    intensity_range,
    learned_values,
)
from foldsmith.steps.inputs.shared import INFERENCE_ONLY, check_preprocessed, files_of, metric_files
from foldsmith.steps.manifest import Inputs
from foldsmith.utils.hashing import FileHashes


def as_trained(experiment: Experiment) -> dict[str, Any]:
    """Return the values of a fine-tuning that its trainings depend on, by path."""
    return values_used(experiment, INFERENCE_ONLY)


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
        "files": files_of(experiment, types, hashes, INFERENCE_ONLY)
        | metric_files(project, hashes, project.metric),
        "fold assignment": hash_folds(project, table),
        "targets": hash_labels(experiment, table),
        "auxiliary": hash_auxiliary(experiment, table, hashes),
        "images": hash_images(image_paths(project, table), hashes),
        **intensity_range(project),
    }
