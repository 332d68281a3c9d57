"""The inputs of an ensemble."""

from collections.abc import Mapping

from foldsmith.config import EnsembleSettings, Experiment
from foldsmith.data.image_table import IMG_INFO
from foldsmith.project.tables import (
    group_column_of,
    hash_columns,
    read_folds,
    read_test,
    readable_test,
)
from foldsmith.steps.data_hashes import hash_folds, hash_sample, judged_columns, target_values
from foldsmith.steps.inputs.shared import TARGET_SCALE, check_preprocessed, metric_files
from foldsmith.steps.manifest import Inputs
from foldsmith.utils.flatten import flatten
from foldsmith.utils.hashing import FileHashes, hash_value


def ensemble_inputs(
    experiment: Experiment, predictions: Mapping[str, str], hashes: FileHashes
) -> Inputs:
    """Return the inputs of an ensemble. Blends ignore the weights of rows in losses.

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
        | {TARGET_SCALE: experiment.globals.target_scale},
        "project.yml": target_values(project),
        "files": files,
        "groups": hash_columns(table, [group]) if group else None,
        "fold assignment": hash_folds(project, table),
        "targets": hash_columns(table, judged_columns(project)),
        "test ids": hash_columns(test, [project.settings.id_column]),
        "unreadable": hash_value(readable_test(project, test).tolist()),
        "predictions": dict(predictions),
    }
