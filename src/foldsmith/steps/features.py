"""Members made of frozen features: a small model on a backbone that is not trained further."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from foldsmith.config import Experiment
from foldsmith.config.output_path import check_output
from foldsmith.errors import ConfigError
from foldsmith.inference.oof import FoldLogits, score_table
from foldsmith.models.feature_heads import FeatureHead, fit_head, weights_of
from foldsmith.models.fitted_arrays import write_arrays
from foldsmith.models.learns_from_images import LEARNED
from foldsmith.models.threads import with_threads
from foldsmith.project import ProjectFolder
from foldsmith.project.tables import (
    FOLD_COLUMN,
    groups_of,
    metric_weights_of,
    read_folds,
    read_test,
    readable_test,
    targets_of,
)
from foldsmith.steps.checkpoint_choice import LABELS, UNCHOSEN, inference_manifest
from foldsmith.steps.fold_heads import HeadOfFold, head_file, head_of
from foldsmith.steps.frozen_features import (
    FEATURES_MANIFEST,
    TEST_FEATURES,
    TRAIN_FEATURES,
    features_of,
)
from foldsmith.steps.inputs.predictions import frozen_inputs
from foldsmith.steps.oof_summary import constant_score, print_constant
from foldsmith.steps.output_folder import Start, refuse_existing, shown
from foldsmith.steps.predictions import InferenceResults, results_of, write_results
from foldsmith.steps.run_records import RESOLVED_CONFIG, save_sources
from foldsmith.steps.step_run import StepRun, held
from foldsmith.steps.trial_build import check_components
from foldsmith.targets.column_scales import ScaleForm
from foldsmith.targets.metrics import Metric
from foldsmith.targets.row_weights import training_weights
from foldsmith.targets.task import Task
from foldsmith.utils.owned_files import OwnedFiles

logger = logging.getLogger(__name__)

Array = npt.NDArray[np.float32]


@with_threads
def fit_experiment(experiment: Experiment, start: Start) -> Path:
    """Predict from the features of a frozen backbone, with one head per fold.

    The features of all images are computed once, with the transforms of the validation, and
    kept in the output folder; another head takes them as they are. No epoch is chosen: the files
    that an inference writes for each checkpoint are written once, and stand for all checkpoints. (A
    backbone that was picked by its probe was chosen by the labels of all folds, among about ten.)

    Args:
        experiment: One with the task ``frozen-features``.
        start: Treatment of an existing output folder; ``force`` computes the features again.

    Returns:
        The output folder.

    Raises:
        ConfigError: The experiment is wrong.
        OutputError: The folder exists and ``start`` is ``new``, or another process runs it.
        DataError: A table or image is wrong.
    """
    run = StepRun.of(experiment.project)
    root = _checked_root(experiment, run, start)
    project, manifest = run.project, inference_manifest(root, UNCHOSEN)
    table, test = read_folds(project, experiment.globals.meta_file), read_test(project)
    inputs = run.noted(frozen_inputs(experiment, run.types, run.hashes))
    head, task = head_of(experiment, run.types)
    with held(root):
        owned = _reserve(root, manifest, project.n_splits)
        features = features_of(experiment, run.restarted(), root, anew=start == "force")
        folds = _fit_folds(experiment, head, task, table, features[0])
        results = _results(project, folds, task, table, test, features[1])
        run.begin_writing(owned, manifest.name, [head_file(fold.number) for fold in folds], "fit")
        sources = save_sources(root, experiment, "fit")
        outputs = _write(project, root, folds, task, table, test, results)
        constant = constant_score(_metric_of(project, task), project, table)
        run.finish(
            manifest,
            f"fit {shown(root)}",
            inputs,
            outputs,
            task=task.name,
            chooses_epochs=False,
            seed=experiment.globals.seed,
            n_train=len(table),
            n_test=len(test),
            metric_name=_metric_of(project, task).title,
            metric=float(results.scores["metric"].iloc[-1]),
            constant=constant,
        )
        _remove_others(owned, [*outputs, *sources, manifest, root / FEATURES_MANIFEST])
    scores = results.scores.drop(columns="epoch")
    logger.info(scores.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    print_constant(_metric_of(project, task), constant)
    logger.info(f"wrote {shown(root)}/*_by_{LABELS[UNCHOSEN]}* (no epoch is chosen)")
    return root


@dataclass(frozen=True)
class _Fold:
    """One fold's head.

    Attributes:
        number: The fold.
        head: The head, fitted on the other folds.
        oof: Its logits for the rows of the fold.
    """

    number: int
    head: "HeadOfFold"
    oof: FoldLogits


def _checked_root(experiment: Experiment, run: StepRun, start: Start) -> Path:
    """Check an experiment; return its output folder."""
    if experiment.globals.output_root is None:
        raise ConfigError(f"{experiment.file}: globals/output_root is missing")
    check_components(experiment, run.types)
    check_output(experiment, force=start == "force")
    root = run.project.path(experiment.globals.output_root)
    if start == "new":
        refuse_existing(root)
    return root


def _reserve(root: Path, manifest: Path, n_splits: int) -> OwnedFiles:
    """Put the files on the list of the folder, before the features take their time."""
    root.mkdir(parents=True, exist_ok=True)
    owned = OwnedFiles(root)
    owned.record([manifest.name, *map(head_file, range(n_splits))], "fit")
    owned.record([TRAIN_FEATURES, TEST_FEATURES, LEARNED, FEATURES_MANIFEST], "features")
    return owned


def _remove_others(owned: OwnedFiles, kept: Sequence[Path]) -> None:
    """Remove files of an earlier run that this one did not write."""
    names = {path.relative_to(owned.folder).as_posix() for path in kept}
    owned.remove(set(owned.of()) - names)


def _fit_folds(
    experiment: Experiment,
    head: FeatureHead,
    task: Task,
    table: pd.DataFrame,
    features: Array,
) -> list[_Fold]:
    """Fit the head once per fold, on the rows of the other folds."""
    project, settings = experiment.project, experiment.globals
    targets, groups = targets_of(project, table), groups_of(project, table)
    form, reason = task.scale_form(settings.target_scale, targets)
    if reason:
        logger.info(reason)
    folds = table[FOLD_COLUMN].to_numpy(dtype=np.int64)
    return [
        _fit_fold(
            *(fold, head, settings.seed, task, form, folds, targets, groups, features),
            training_weights(project, settings.class_weights, table, folds != fold),
        )
        for fold in range(project.n_splits)
    ]


def _fit_fold(
    fold: int,
    head: FeatureHead,
    seed: int,
    task: Task,
    form: ScaleForm | None,
    folds: npt.NDArray[np.int64],
    targets: npt.NDArray[np.float64],
    groups: npt.NDArray[np.int64],
    features: Array,
    weights: npt.NDArray[np.float64] | None,
) -> _Fold:
    """Fit the head on the other folds and predict the rows of this one."""
    seen, held_out = folds != fold, np.flatnonzero(folds == fold)
    of_fold = task.fitted(targets[seen], form)
    scale = of_fold.scale
    for line in of_fold.lines_of_fold(fold, targets[seen]):
        logger.info(line)
    learned = targets[seen] if scale is None else scale.forward(targets[seen])
    of_seen = weights_of(weights, seen)
    fitted = HeadOfFold(fit_head(head, features[seen], learned, groups[seen], seed, of_seen), scale)
    oof = FoldLogits(
        *(fold, None, held_out, fitted.logits(features[held_out]), of_fold),
        weights=None if weights is None else weights[held_out].astype(np.float32),
    )
    return _Fold(fold, fitted, oof)


def _metric_of(project: ProjectFolder, task: Task) -> Metric:
    """Return the metric that judges the predictions of a task."""
    return project.metric if task.gives_probabilities() else project.metric.for_points()


def _results(
    project: ProjectFolder,
    folds: Sequence[_Fold],
    task: Task,
    table: pd.DataFrame,
    test: pd.DataFrame,
    test_features: Array,
) -> InferenceResults:
    """Score the heads, and predict the test images by all of them."""
    targets, readable = targets_of(project, table), readable_test(project, test)
    oof = [fold.oof for fold in folds]
    weights = metric_weights_of(project, table)
    scores = score_table(oof, targets, task.loss(), _metric_of(project, task), weights)
    of_readable = None
    if len(readable):
        of_readable = np.stack([fold.head.logits(test_features) for fold in folds])
    return results_of(oof, task, targets, of_readable, readable, len(test), scores)


def _write(
    project: ProjectFolder,
    root: Path,
    folds: Sequence[_Fold],
    task: Task,
    table: pd.DataFrame,
    test: pd.DataFrame,
    results: InferenceResults,
) -> list[Path]:
    """Write heads and predictions; return the outputs for the manifest."""
    heads = [root / head_file(fold.number) for fold in folds]
    for path, fold in zip(heads, folds, strict=True):
        write_arrays(path, fold.head.arrays())
    label = LABELS[UNCHOSEN]
    predictions = write_results(root, label, project, table, test, task, results, "fit")
    names = (TRAIN_FEATURES, TEST_FEATURES, RESOLVED_CONFIG)
    learned = [path for path in (root / LEARNED,) if path.exists()]
    return [*predictions, *heads, *(root / name for name in names), *learned]
