"""Files and checks that the inputs of several steps share."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from foldsmith.config import Experiment
from foldsmith.config.named_files import named_files
from foldsmith.config.references import nodes_of
from foldsmith.data.image_table import IMG_INFO, STATS_BY_DATA
from foldsmith.errors import DataError
from foldsmith.project import ProjectFolder
from foldsmith.project.own_files import files_behind, hashes_of
from foldsmith.steps.config_used import tree_read
from foldsmith.steps.manifest import PREPROCESS_MANIFEST, read_manifest
from foldsmith.targets.metrics import Metric
from foldsmith.utils.hashing import FileHashes

# Not read by a pretraining and by features, which learn no target.
TARGET_SCALE = "globals/target_scale"
OF_TARGETS = (TARGET_SCALE, "globals/class_weights")

# Not read by a training.
INFERENCE_ONLY = ("dataset/test", "loader/test", "globals/tta")


def check_preprocessed(experiment: Experiment, hashes: FileHashes) -> None:
    """Make sure that folds and statistics are what ``preprocess`` wrote.

    Raises:
        DataError: One was changed since.
    """
    project = experiment.project
    manifest = read_manifest(project.data_dir / PREPROCESS_MANIFEST)
    if manifest is None:
        return
    names = [STATS_BY_DATA, IMG_INFO]
    if experiment.globals.meta_file is None:
        names.append(project.fold_table.name)
    for name in names:
        made, found = manifest.outputs.get(name), hashes.of(project.data_dir / name)
        # The code that reads a file reports that it is missing.
        if made is not None and found not in (made, "missing"):
            raise DataError(
                f"{project.data_dir / name}: was changed since preprocess wrote it; keep it under "
                "another name (globals/meta_file names a fold table), or run 'foldsmith "
                "preprocess' to have it made again"
            )


def without_pretrained(experiment: Experiment) -> Experiment:
    """Return a fine-tuning whose weights come from its snapshots, as in inference."""
    if "pretrained" in experiment.tree["model"]:
        return experiment.with_values({"model/pretrained": None})
    return experiment


def files_of(
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
    for _, node in nodes_of(tree):
        if isinstance(node, dict) and node.get("type") == "ChannelStatistics":
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
