"""The inputs of a pretraining."""

from collections.abc import Callable, Mapping
from typing import Any

from foldsmith.config import Experiment
from foldsmith.config.backbones import snapshot_epochs
from foldsmith.project.tables import hash_columns, read_folds, read_test, read_train
from foldsmith.steps.config_used import values_used
from foldsmith.steps.data_hashes import (
    hash_all_images,
    hash_folds,
    intensity_range,
    judged_columns,
    target_values,
)
from foldsmith.steps.inputs.shared import (
    INFERENCE_ONLY,
    OF_TARGETS,
    check_preprocessed,
    files_of,
    metric_files,
)
from foldsmith.steps.manifest import Inputs
from foldsmith.utils.hashing import FileHashes


def pretrain_inputs(
    experiment: Experiment, types: Mapping[str, Callable[..., Any]], hashes: FileHashes
) -> Inputs:
    """Return the inputs of a pretraining: its configuration and every image.

    With a probe also, under ``probe``, what its values depend on, and so which backbone is the
    best: folds, targets and metric. The backbones themselves do not: see
    :func:`without_probe`.
    """
    project = experiment.project
    train, test = read_train(project), read_test(project)
    check_preprocessed(experiment, hashes)
    without = (*INFERENCE_ONLY, "probe")
    inputs: Inputs = {
        "config": values_used(experiment, (*without, *OF_TARGETS)),
        "files": files_of(experiment, types, hashes, without),
        "images": hash_all_images(project, train, test, hashes),
        **intensity_range(project),
    }
    if experiment.tree.get("probe"):
        table = read_folds(project, experiment.globals.meta_file)
        config, files = values_used(experiment, INFERENCE_ONLY), files_of(experiment, types, hashes)
        inputs["probe"] = {
            **{key: value for key, value in config.items() if key not in inputs["config"]},
            **{key: value for key, value in files.items() if key not in inputs["files"]},
            **target_values(project),
            "metric": project.metric.for_points().title,
            **metric_files(project, hashes, project.metric.for_points()),
            "fold assignment": hash_folds(project, table),
            "targets": hash_columns(table, judged_columns(project)),
            "probed backbones": sorted(snapshot_epochs(experiment.globals)),
        }
    return inputs


def without_probe(inputs: Inputs) -> Inputs:
    """Return the inputs of a pretraining's backbones, without its probe.

    Args:
        inputs: As :func:`pretrain_inputs` returns them.
    """
    return {name: value for name, value in inputs.items() if name not in ("probe", "sha256")}
